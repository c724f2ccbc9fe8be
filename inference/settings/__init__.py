"""The settings tree: its dataclasses, how it is filled, and validation."""
