"""Command-line arguments that several evaluations of latents share."""

from __future__ import annotations

import argparse

__all__ = ["add_phase_argument", "add_position_argument"]


def add_phase_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--phase``, the phase of decoded sounds."""
    parser.add_argument(
        "--phase",
        choices=["griffin_lim", "input"],
        default="griffin_lim",
        help="phase of the sounds: estimated from their spectra, or that of the utterance that provides z (default: "
        "%(default)s)",
    )


def add_position_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--at``, the position of segments in their utterances."""
    parser.add_argument(
        "--at", type=float, metavar="S", help="position in seconds (default: that of the loudest segment)"
    )
