"""Corpora in Lhotse's manifests (Zelasko et al., 2021): cuts, recordings with supervisions, and Shar shards."""
