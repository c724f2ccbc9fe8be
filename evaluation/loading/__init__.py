"""The data of a run as evaluations read them: its corpus, utterances, sequences and sounds."""
