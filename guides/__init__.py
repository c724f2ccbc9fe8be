"""Inference models: each family as a Pyro `guide`."""
