"""Checkpoints: files and the state that they hold."""
