"""Checkpoints of the public DVAE code."""
