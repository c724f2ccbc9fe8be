"""Resynthesis and its quality metrics."""
