"""Command-line arguments that several evaluations of latents share."""

from __future__ import annotations

import argparse

__all__ = ["add_pair_arguments", "add_position_argument"]


def add_pair_arguments(parser: argparse.ArgumentParser, source: str, reference: str) -> None:
    """Add two utterances and ``--phase``, the phase of decoded sounds.

    Args:
        parser: gets the arguments.
        source: what ``--source`` provides.
        reference: what ``--reference`` provides.
    """
    for option, metavar, what in (("--source", "A", source), ("--reference", "B", reference)):
        text = f"{what}: a sound file, or the name of one in the split"
        parser.add_argument(option, required=True, metavar=metavar, help=text)
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
