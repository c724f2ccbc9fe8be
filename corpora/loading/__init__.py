"""Utterances to sequences and batches, and the cache of features."""
