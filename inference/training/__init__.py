"""The training loop, schedules, signals and processes; its data (`reading`) and its reports (`monitor`)."""
