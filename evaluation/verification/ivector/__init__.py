"""The i-vector baseline."""
