"""Likelihoods: the distribution of a frame of data given a decoder's features."""
