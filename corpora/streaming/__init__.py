"""Streaming of corpora larger than memory: recordings are read sequentially during training."""
