"""The pages of the documentation, and `docs.generator`, which writes the reference pages from the code."""
