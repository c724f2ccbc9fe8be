"""Estimates of the likelihood of held-out data."""
