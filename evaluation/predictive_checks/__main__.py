r"""Does a fitted model make spectra like those it has seen? ``python -m evaluation.predictive_checks RUN``.

Frame energy, spectral tilt and pauses (`evaluation.predictive_checks.spectra`) of utterances against those of
replications: x ~ p(x | z) with z ~ q(z | x), the posterior predictive, and x ~ p(x), the prior predictive. For a
statistic S,

.. math:: p = P(S(x^{rep}) > S(x)) + \tfrac12 P(S(x^{rep}) = S(x))

is the (posterior) predictive p-value (Gelman, Meng & Stern, "Posterior predictive assessment of model fitness", 1996):
near 0 or 1 where the model does not make such data, and not uniform otherwise, but nearer 1/2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dvae_pyro.errors import UserError
from evaluation.predictive_checks.checks import DRAWS, check, report_of, table
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    pass

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("predictive_checks", "Check energy, tilt and pauses of what a model makes.")
    parser.add_argument("--draws", type=int, default=DRAWS, metavar="S", help="replications (default: %(default)s)")
    parser.add_argument("--sequences", type=int, metavar="N", help="utterances, spread over the split (default: all)")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw them (png, pdf, svg)")

    def command() -> None:
        request, given = parse(parser, argv)
        if given.draws < 20 or (given.sequences is not None and given.sequences < 1):
            raise UserError("--draws takes a number from 20 up (it gives 5 % quantiles), --sequences one from 1 up.")
        if request.latents == "mean":
            raise UserError("--latents mean: a predictive distribution needs draws of the latents. Leave it away.")
        _command(request, given.draws, given.sequences, given.picture)

    return guarded(command)


def _command(request: Request, draws: int, most: int | None, picture: Path | None) -> None:
    run = open_run(request)
    from corpora.frontends.registry import open_frontend
    from corpora.frontends.stft import Stft
    from evaluation.predictive_checks.replications import read_utterances
    from evaluation.reporting.provenance import autoregressive
    from evaluation.reporting.report import write_json

    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    if not isinstance(frontend, Stft):
        raise UserError(
            f"{run.path} uses front end '{run.settings.data.frontend}': energy, tilt and pauses are those of power "
            "spectra.\nThe checks need a run with data.frontend=stft."
        )
    mode = request.mode or run.settings.evaluation.mode
    say(f"reading {run.checkpoint_path}, step {run.state['step']}")
    sequences = read_utterances(run, frontend, request.split, most)
    found = check(run, sequences, draws, rate=frontend.rate, hop=frontend.hop, mode=mode)
    report = report_of(run, request, found, draws, mode)
    for path in (run.path / "predictive_checks.json", request.json):
        if path is not None:
            write_json(path, report)
    print(table(report))
    print("\np is near 0 or 1 where the model makes no such data; it is P(replicated > observed)")
    if autoregressive(run) and mode == "gt":
        print("each frame of x ~ p(x|z) is given the true frames before it: a kinder check than --mode gen")
    if picture is not None:
        from evaluation.predictive_checks.plots import check_picture
        from evaluation.reporting.plots import save_picture

        save_picture(check_picture(found, [item.file for item in sequences], table(report).splitlines()[0]), picture)
        say(f"drew {picture}")
    say(f"wrote {run.path / 'predictive_checks.json'}")


if __name__ == "__main__":
    sys.exit(main())
