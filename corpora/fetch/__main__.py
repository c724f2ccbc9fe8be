"""Download an openly licensed corpus: ``python -m corpora.fetch librispeech-mini``.

Prints source, licence, size and target folder, and asks for confirmation. Every file is verified by its checksum; an
interrupted download is resumed by the same command.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from corpora.fetch.recipes import RECIPES
from dvae_pyro.command_line import Parser, guarded

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 success or declined, 2 invalid input, 130 after Ctrl-C."""

    def command() -> None:
        args = _parser().parse(argv)
        from corpora.fetch.download import fetch

        fetch(args.corpus, args.out or Path("data") / args.corpus, url=args.url, yes=args.yes)

    return guarded(command, "stopped; the same command continues from here")


def _parser() -> Parser:
    parser = Parser(
        "corpora.fetch",
        "Download an openly licensed corpus, every file checked against its checksum.",
        epilog="Then: python -m inference.svi --model dkf --corpus folder --root data/librispeech-mini",
    )
    parser.add_argument("corpus", choices=sorted(RECIPES), metavar="NAME", help=", ".join(sorted(RECIPES)))
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: data/NAME)")
    parser.add_argument("--url", metavar="URL", help="download from a mirror of the source instead")
    parser.add_argument("--yes", action="store_true", help="download without asking")
    return parser


if __name__ == "__main__":
    sys.exit(main())
