"""Loaders, one per corpus, and the folder layouts of known speech corpora."""
