"""List the commands of inference, or run one by name: ``python -m inference [NAME ...]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dvae_pyro.commands import run_package

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    return run_package("inference", argv)


if __name__ == "__main__":
    sys.exit(main())
