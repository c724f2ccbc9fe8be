"""Generation, reconstruction, and cutting utterances into segments."""
