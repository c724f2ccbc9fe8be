"""Log-weights, resampling and particle filters."""
