"""Missing frames filled by the exact smoother of a KVAE, and what its states hold."""
