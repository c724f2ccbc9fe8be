"""The training loop, its data, schedules, logs and processes."""
