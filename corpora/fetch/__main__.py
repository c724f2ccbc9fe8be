"""Download an openly licensed corpus: ``python -m corpora.fetch librispeech-mini``.

Prints source, licence, size and target folder, and asks for confirmation. Every file is verified by its checksum; an
interrupted download is resumed by the same command.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from corpora.fetch.recipes import RECIPES
from dvae_pyro.errors import UserError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 success or declined, 2 invalid input, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    args = _parser().parse_args(argv)
    try:
        from corpora.fetch.download import fetch

        fetch(args.corpus, args.out or Path("data") / args.corpus, url=args.url, yes=args.yes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m corpora.fetch",
        description="Download an openly licensed corpus, every file checked against its checksum.",
        epilog="Then: python -m inference.svi --model dkf --corpus folder --root data/librispeech-mini",
        allow_abbrev=False,
    )
    parser.add_argument("corpus", choices=sorted(RECIPES), metavar="NAME", help=", ".join(sorted(RECIPES)))
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: data/NAME)")
    parser.add_argument("--url", metavar="URL", help="download from a mirror of the source instead")
    parser.add_argument("--yes", action="store_true", help="download without asking")
    return parser


if __name__ == "__main__":
    sys.exit(main())
