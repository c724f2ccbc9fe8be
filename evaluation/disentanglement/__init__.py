"""What latents of sequences and segments represent: embeddings, probes, exchange, recombination and traversal."""
