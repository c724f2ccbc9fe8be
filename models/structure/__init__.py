"""Declared parents of model and guide: d-separation, formulas and graphs."""
