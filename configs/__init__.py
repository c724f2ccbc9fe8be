"""Settings of the papers: one folder per paper, one YAML file per row of its tables."""
