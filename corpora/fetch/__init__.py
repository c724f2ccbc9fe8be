"""Download openly licensed corpora, file by file with checksums: ``python -m corpora.fetch NAME``."""
