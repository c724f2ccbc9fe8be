"""Imputation of missing frames by the exact smoother of a KVAE."""
