r"""Linear probes of latents: ``python -m evaluation.probes RUN [RUN ...] [--factors LABEL,...]``.

A multinomial logistic regression predicts the speaker, or the phone in the middle of a segment, from the latents of
each segment of a split: the means of z1 and z2, and mu1 and mu2 of its utterance, which are the same for all of its
segments. The folds of cross-validation consist of whole utterances. The report contains the accuracy, that of always
predicting the most frequent class, and a lower bound on the mutual information of latent and factor in bits
(`evaluation.disentanglement.linear_probe`). Writes ``probes.json`` in the folder of each run, and a picture in that of
the first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dvae_pyro.command_line import separated
from evaluation.reporting.command_line import PICTURED, SEGMENTS, evaluation_parser, launch

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run `evaluation.disentanglement.probes`; returns the exit status."""
    parser = evaluation_parser("probes", "Predict speaker and content from latents, linearly.", SEGMENTS, PICTURED)
    parser.add_argument(
        "--factors",
        type=separated,
        default=["speaker", "phone", "kind"],
        metavar="LABEL,...",
        help="speaker, phone, kind (of phone), or labels of the corpus (default: speaker,phone,kind)",
    )
    return launch(parser, argv, "evaluation.disentanglement.probes:run_probes", several=True)


if __name__ == "__main__":
    sys.exit(main())
