"""Speech out of noise: `python -m evaluation.enhance RUN --noisy PATH`."""
