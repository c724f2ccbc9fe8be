"""Benchmarks of time and memory, to be run by hand: `python -m benchmarks.NAME`."""
