"""What a training shows while it runs: numbers, sounds and pictures, for TensorBoard and other services."""
