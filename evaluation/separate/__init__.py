"""Several voices from one recording: `python -m evaluation.separate RUN RUN --mixture PATH`."""
