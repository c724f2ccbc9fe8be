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

from evaluation.reporting.command_line import PICTURED, SEGMENTS, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.verification.command`; returns the exit status."""
    parser = evaluation_parser("verification", "Equal error rate of speaker verification.", SEGMENTS, PICTURED)
    parser.add_argument(
        "--system",
        choices=["fhvae", "ivector"],
        default="fhvae",
        help="s-vectors of the run's FHVAE, or i-vectors trained on the run's corpus (default: %(default)s)",
    )
    sizes = parser.add_argument_group("sizes of --system ivector")
    sizes.add_argument("--components", type=int, metavar="C", help="Gaussians of the background model (default: 64)")
    sizes.add_argument("--covariance", choices=["diag", "full"], help="of each Gaussian (default: diag)")
    sizes.add_argument("--ivector-dim", type=int, metavar="R", help="dimensions of an i-vector (default: 100)")
    sizes.add_argument("--em-iterations", type=int, metavar="I", help="EM steps of the subspace (default: 20)")
    sizes.add_argument("--cmn", action="store_true", default=None, help="subtract each utterance's mean MFCC")
    return launch(parser, argv, "evaluation.verification.command:run_verification")


if __name__ == "__main__":
    sys.exit(main())
