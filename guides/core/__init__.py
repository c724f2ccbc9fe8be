"""Base class of guides, recurrent guides for any model, ladder guides, fast loops over frames."""
