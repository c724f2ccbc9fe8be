"""Generation, reconstruction, whole utterances from segments."""
