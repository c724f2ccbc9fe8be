"""The time axis, sample sites and effects of models and guides."""
