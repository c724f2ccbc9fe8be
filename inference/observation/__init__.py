"""Observation models: handlers that replace the model's site x by degraded data."""
