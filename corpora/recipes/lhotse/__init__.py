"""Corpora with Lhotse manifests (Zelasko et al., 2021): cuts, recordings with supervisions, and Shar shards."""
