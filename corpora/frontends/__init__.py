"""Front ends: recordings to frames, and back."""
