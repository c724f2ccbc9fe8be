"""Unconditional generation."""
