"""Approximation and amortisation gaps of guides."""
