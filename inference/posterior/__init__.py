"""Methods of posterior inference for given recordings: gradient-based, Markov chains, and a particle filter."""
