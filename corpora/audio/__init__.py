"""Audio files: reading, integrity, acoustic conditions."""
