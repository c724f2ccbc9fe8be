"""Helpers that every package of the distribution may import: errors, atomic file writing, ranges, memory."""
