"""What `enhance`, `separate` and `inpaint` share: arguments, settings, the observed program, and reports."""
