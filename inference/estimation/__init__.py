"""Importance-weighted estimates of log p(x), and guides refined per sequence."""
