"""Networks that models and guides share."""
