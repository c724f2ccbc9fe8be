"""What all evaluations share: command line, reports, provenance, plots."""
