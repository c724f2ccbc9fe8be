"""Command-line arguments that name a model, its guide and their settings."""

from __future__ import annotations

from dvae_pyro.command_line import Parser
from guides.registry import guide_names
from models.registry import model_names

__all__ = ["add_model_arguments"]


def add_model_arguments(parser: Parser) -> None:
    """Add ``--model``, ``--guide`` and ``--config``."""
    parser.add_argument("--model", metavar="M", help="the generative model: " + ", ".join(model_names()))
    parser.add_argument("--guide", metavar="G", help="the inference model: " + ", ".join(guide_names()))
    parser.add_argument("--config", metavar="YAML", help="settings: a file, or a packaged one by name")
