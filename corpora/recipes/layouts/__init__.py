"""Folder layouts of known speech corpora: the table, detection, and assignment of files to splits."""
