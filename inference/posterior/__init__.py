"""Inference for given recordings: each method is a guide and an optimiser, or a chain, or a particle filter."""
