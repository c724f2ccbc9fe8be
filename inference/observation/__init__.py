"""What became of the clean data: handlers around the model's site x."""
