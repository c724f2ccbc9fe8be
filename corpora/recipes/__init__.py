"""Loaders of corpora, one a file, and the table of layouts that folders of audio are recognised by."""
