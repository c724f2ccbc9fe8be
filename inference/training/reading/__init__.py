"""What training reads: from settings to sequences in memory or to a stream, and from these to batches."""
