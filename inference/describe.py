"""Summary of a model and its guide: ``python -m models.describe --model vrnn [--guide G] [key=value ...]``.

Prints the factorisation of both, the comparison of the guide with the exact posterior, and the number of parameters of
each conditional and each network. ``--graph FILE`` draws the graphical model, unrolled over a few frames. The work is
in `inference.summary`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.command_line import Parser, guarded

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""

    def command() -> None:
        args = _parser().parse(argv)
        # Heavy imports happen after parsing, so that --help does not wait for torch.
        from inference.settings.resolve import resolve
        from inference.summary import describe, draw_graph

        settings = resolve(args.model, args.guide, args.config, [*args.settings, "device=cpu"])
        print("\n".join(describe(settings)))
        if args.graph is not None:
            draw_graph(settings, args.graph)
            print(f"graph {args.graph}")

    return guarded(command)


def _parser() -> Parser:
    from inference.settings.arguments import add_model_arguments  # imports guides and models, which may be shadowed

    parser = Parser(
        "models.describe",
        "Show the factorisation of a model and its guide, and compare the guide with the exact posterior.",
    )
    add_model_arguments(parser)
    parser.add_argument("--graph", metavar="FILE", type=Path, help="draw the graphical model: .dot, .svg, .pdf, .png")
    parser.add_settings()
    parser.usage = f"{parser.prog} (--model M | --config YAML) [options] [key=value ...]"
    return parser
