"""Share a run: ``python -m evaluation.share RUN --out DIR --licence cc-by-4.0``.

Writes a folder with the weights as safetensors, ``config.yaml`` without the paths of this machine, and a model card,
``README.md``, with the formula of the model, the figures of the reports in the run folder, the licence, and how to load
it. The folder is a run folder: ``dvae_pyro.load`` and every evaluation take it; once uploaded, it is ``hf:USER/NAME``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.command_line import Parser

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.share.command`; returns the exit status."""
    parser = Parser("evaluation.share", "Write a run as a folder to share.")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="run folder")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    add("--licence", required=True, metavar="ID", help="licence of the weights by its SPDX name, such as cc-by-4.0")
    add("--checkpoint", type=Path, metavar="FILE", help="default: best.pt of the run, else last.pt")
    return parser.run(argv, "evaluation.share.command:run_share")


if __name__ == "__main__":
    sys.exit(main())
