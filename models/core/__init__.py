"""The time axis, sample sites and effects."""
