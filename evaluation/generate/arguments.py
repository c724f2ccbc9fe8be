"""Command-line arguments of evaluations that sample from a model."""

from __future__ import annotations

import argparse

__all__ = ["add_sampling_arguments"]


def add_sampling_arguments(parser: argparse.ArgumentParser, sequences: int, what: str) -> None:
    """Add the number, length and kind of samples, and the size of batches.

    Args:
        parser: gets the arguments.
        sequences: default of ``--sequences``.
        what: description of ``--sequences``.
    """
    parser.add_argument("--sequences", type=int, default=sequences, metavar="N", help=f"{what} (default: %(default)s)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of each (default: 1.6)")
    parser.add_argument(
        "--x",
        choices=["mean", "sample"],
        help="take the mean of each conditional of x or a sample of it, also as the past that the model is given "
        "(default: mean for sounds, sample for other data)",
    )
    parser.add_argument(
        "--chunk", type=int, default=256, metavar="C", help="sequences computed together (default: %(default)s)"
    )
    parser.add_argument(
        "--phase-iterations",
        type=int,
        default=32,
        metavar="I",
        help="iterations of the algorithm of Griffin and Lim (default: %(default)s)",
    )
