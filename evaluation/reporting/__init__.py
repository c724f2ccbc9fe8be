"""Shared by all evaluations: command line, reports, provenance and plots."""
