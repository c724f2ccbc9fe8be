"""Importance-weighted estimates, and guides refined for each sequence."""
