"""Utterances to sequences and batches; the cache of features."""
