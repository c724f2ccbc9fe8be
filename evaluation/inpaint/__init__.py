"""Inpainting of missing speech: `python -m evaluation.inpaint RUN --input PATH --gaps 0.5:0.6 | --above 4000`."""
