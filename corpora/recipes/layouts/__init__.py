"""Layouts that folders of audio are recognised by: the table, what applies it, and how files are dealt to splits."""
