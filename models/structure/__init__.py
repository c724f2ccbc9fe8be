"""Declared parents, d-separation, formulas and graphs."""
