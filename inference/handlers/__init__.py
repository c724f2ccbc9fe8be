"""Pyro handlers (poutines) that change a model, a guide or an objective."""
