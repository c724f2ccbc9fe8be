"""Reading of training data: sequences in memory or a stream, and their batches."""
