"""Evaluation of trained runs: one command each, and the reports that they share."""
