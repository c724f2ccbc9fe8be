"""SVI: objectives, handlers, schedules, checkpoints and the training loop."""
