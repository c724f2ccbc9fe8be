"""Source separation: `python -m evaluation.separate RUN RUN --mixture PATH`."""
