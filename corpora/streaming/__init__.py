"""Corpora larger than memory: recordings read in sequence while training goes on."""
