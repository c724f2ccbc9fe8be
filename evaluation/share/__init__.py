"""A run as a folder that can be shared: weights, settings, and a model card."""
