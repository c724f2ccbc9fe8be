"""Speaker verification: ``python -m evaluation.verification RUN [--system fhvae|ivector]``.

Scores all pairs of utterances of a split by the cosine of their embeddings, raw and after linear discriminant analysis
(LDA) fitted on split train, and reports the equal error rate (`evaluation.verification.trials`). Embeddings are the
s-vectors of an FHVAE (mu2, and mu1, which should not depend on the speaker), or i-vectors
(`evaluation.verification.ivector.pipeline`). Writes ``verification.json`` and a picture of the detection error
trade-off in the run folder.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import evaluation_parser, guarded, parse

__all__ = ["main"]

SIZES = ("components", "covariance", "dim", "iterations", "cmn")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.verification.command`; returns the exit status."""
    parser = evaluation_parser(
        "verification", "Equal error rate of speaker verification with embeddings.", without=("mode", "latents")
    )
    parser.add_argument(
        "--system",
        choices=["fhvae", "ivector"],
        default="fhvae",
        help="s-vectors of the run's FHVAE, or i-vectors trained on the run's corpus (default: %(default)s)",
    )
    sizes = parser.add_argument_group("sizes of --system ivector")
    sizes.add_argument("--components", type=int, metavar="C", help="Gaussians of the background model (default: 64)")
    sizes.add_argument("--covariance", choices=["diag", "full"], help="of each Gaussian (default: diag)")
    sizes.add_argument("--dim", type=int, metavar="R", help="dimensions of an i-vector (default: 100)")
    sizes.add_argument("--iterations", type=int, metavar="I", help="EM steps of the subspace (default: 20)")
    sizes.add_argument("--cmn", action="store_true", default=None, help="subtract each utterance's mean MFCC")

    def command() -> None:
        request, options = parse(parser, argv)
        sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
        if options.system != "ivector" and sizes:
            raise UserError(f"--{next(iter(sizes))} has no effect with --system {options.system}: leave it out.")
        from evaluation.verification.command import run_command

        run_command(request, options.system, sizes)

    return guarded(command)


if __name__ == "__main__":
    sys.exit(main())
