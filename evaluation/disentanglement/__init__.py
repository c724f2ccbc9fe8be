"""Representations of utterances and segments, and what they hold."""
