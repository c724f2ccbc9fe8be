"""Generative models: each DVAE as a Pyro `model`, with the networks, likelihoods and time axis they share."""
