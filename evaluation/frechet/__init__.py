"""Frechet distances between sets of sounds."""
