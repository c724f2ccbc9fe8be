"""The settings tree, how it is filled and checked."""
