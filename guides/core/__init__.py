"""What guides are built from: the base class, the family of guides for any model, fast loops."""
