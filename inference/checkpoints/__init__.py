"""Checkpoint files and the training state that they hold."""
