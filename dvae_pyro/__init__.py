"""What every package of the distribution may import: errors, safe file writing, memory."""
