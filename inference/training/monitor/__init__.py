"""What a training reports: metrics, logs, messages about convergence, sounds and pictures."""
