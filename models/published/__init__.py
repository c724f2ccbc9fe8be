"""Reading checkpoints of the public DVAE code."""
