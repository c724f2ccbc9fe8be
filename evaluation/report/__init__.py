"""A page to look at, listen to and share: what the run folders hold about one or several runs."""
