"""The parts of the suite, each a program of its own."""
