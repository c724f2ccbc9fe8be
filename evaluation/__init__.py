"""What a trained run is worth: resynthesis, comparison, and the reports they share."""
