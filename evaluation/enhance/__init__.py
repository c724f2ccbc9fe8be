"""Speech enhancement: `python -m evaluation.enhance RUN --noisy PATH`."""
