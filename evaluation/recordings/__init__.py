"""Recordings in and out: files, blocks of long ones, and what is reported of them."""
