"""Command-line arguments of evaluations that sample from a model."""

from __future__ import annotations

import argparse

__all__ = ["add_sampling_arguments"]


def add_sampling_arguments(parser: argparse.ArgumentParser, num: int, num_help: str) -> None:
    """Add the number, length and kind of samples, and the size of batches.

    Args:
        parser: gets the arguments.
        num: default of ``--num``.
        num_help: description of ``--num``.
    """
    parser.add_argument("--num", type=int, default=num, metavar="N", help=f"{num_help} (default: %(default)s)")
    parser.add_argument("--seconds", type=float, metavar="S", help="length of each (default: 1.6)")
    parser.add_argument(
        "--x",
        choices=["mean", "sample"],
        help="take the mean of each conditional of x or a sample of it, also as the past that the model is given "
        "(default: mean for sounds, sample for other data)",
    )
    parser.add_argument("--batch", type=int, default=256, metavar="B", help="sequences at once (default: %(default)s)")
    parser.add_argument(
        "--iterations",
        type=int,
        default=32,
        metavar="I",
        help="iterations of the algorithm of Griffin and Lim (default: %(default)s)",
    )
