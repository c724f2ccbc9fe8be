r"""What a guide loses: ``python -m evaluation.inference_gap RUN [RUN ...]``.

.. math:: \log p(x) - \mathrm{ELBO}[q] =
    \underbrace{\log p(x) - \mathrm{ELBO}[q^*]}_{\text{approximation}} +
    \underbrace{\mathrm{ELBO}[q^*] - \mathrm{ELBO}[q]}_{\text{amortisation}}

(Cremer, Li & Duvenaud, "Inference suboptimality in variational autoencoders", 2018): q* is the guide refined for each
sequence (`inference.estimation.refinement`), and log p(x) is taken to be the best of the lower bounds that importance
weights and particle filters give. docs/inference_gap.md says how to read it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from evaluation.inference_gap.gaps import Effort, Gaps
    from inference.runs import Run

__all__ = ["main", "report_of", "table"]

#: What must be the same for all runs, or their figures are not of the same data.
OF_DATA = (
    "corpus",
    "root",
    "subset",
    "conditions",
    "seed",
    "frontend",
    "rate",
    "window",
    "hop",
    "trim_db",
    "sequence_frames",
    "short_utterances",
)


def report_of(run: Run, request: Request, found: Gaps, effort: Effort, mode: str, one_model: bool) -> dict[str, Any]:
    """The part of one run: what inference_gap.json in its folder holds."""
    from evaluation.reporting.provenance import provenance
    from evaluation.reporting.report import summarise
    from guides.registry import compare

    figures = {name: value for name, value in found.measured._asdict().items() if value is not None}
    figures |= {"log_evidence": found.log_evidence, "approximation_gap": found.approximation}
    figures |= {"amortisation_gap": found.amortisation}
    verdicts = compare(run.settings.model, run.settings.guide.name)
    return {
        **provenance("inference_gap", run, request._replace(mode=mode, latents="sample")),
        "num_sequences": len(found.log_evidence),
        "verdict": {latent: verdict.word for latent, verdict in verdicts.items()},
        "same_model": one_model,
        "log_evidence_from": found.best,
        "note": POINT if run.model.hierarchical else None,
        **effort._asdict(),
        "metrics": {name: summarise(value.tolist())._asdict() for name, value in figures.items()},
    }


def table(reports: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """The reports side by side for the terminal."""
    from evaluation.reporting.report import Summary, text_table

    columns = {
        "elbo": "ELBO",
        "iwae": "IWAE",
        "smc": "SMC",
        "refined_elbo": "ELBO refined",
        "log_evidence": "log p(x) >=",
        "approximation_gap": "approximation",
        "amortisation_gap": "amortisation",
    }
    rows = []
    for name, report in zip(names, reports, strict=True):
        figures = report["metrics"]
        row = [name, report["guide"], "/".join(dict.fromkeys(report["verdict"].values()))]
        rows.append([*row, *(Summary(**figures[c]).text(2) if c in figures else "none" for c in columns)])
    first = reports[0]
    return (
        f"{first['model']} on {first['corpus']}, split {first['split']}: {first['num_sequences']} sequences, "
        f"{first['particles']} particles, {first['steps']} steps of refinement\n"
        + DESIGN[bool(first["same_model"])]
        + "\n\n"
        + text_table(["run", "guide", "it is", *columns.values()], rows)
        + "\n\nnats per frame, mean ± standard error over sequences"
        + "".join(f"\n{note}" for note in dict.fromkeys(report["note"] for report in reports) if note)
    )


DESIGN = {
    True: "one model, the same weights in all: guides are compared, and log p(x) is the best bound of any of them",
    False: "models differ, at least in their weights: each guide's gaps are to the log p(x) of its own model",
}

#: Of guides that have a point for what the segments of a sequence share.
POINT = (
    "its guide has a point for mu2, which has no density: what stands under log p(x) estimates log p(x, mu2) there, "
    "every segment a sequence of its own, and is no bound on log p(x)"
)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser("inference_gap", "Split what guides lose into approximation and amortisation.")
    add = parser.add_argument
    add("--particles", type=int, default=100, metavar="K", help="of IWAE and SMC (default: %(default)s)")
    add("--steps", type=int, default=100, metavar="S", help="steps of refinement (default: %(default)s)")
    add("--lr", type=float, default=0.02, help="learning rate of refinement (default: %(default)s)")
    add("--chunk", type=int, default=20, metavar="P", help="particles at once (default: %(default)s)")
    add(
        "--sequences", type=int, default=16, metavar="N", help="sequences, spread over the split (default: %(default)s)"
    )
    add("--picture", type=Path, metavar="FILE", help="draw the gaps (png, pdf, svg)")

    def command() -> None:
        request, given = parse(parser, argv, several=True)
        if min(given.particles, given.steps, given.sequences, given.chunk) < 1 or not given.lr > 0:
            raise UserError("--particles, --steps, --chunk and --sequences take numbers from 1 up, --lr one above 0.")
        if request.latents == "mean":
            raise UserError("--latents mean: bounds need draws of the latents. Leave it away.")
        from evaluation.inference_gap.gaps import Effort

        effort = Effort(given.particles, given.steps, given.lr, given.chunk)
        _command(request, given.runs, effort, given.sequences, given.picture)

    return guarded(command)


def _command(request: Request, folders: Sequence[Path], effort: Effort, most: int, picture: Path | None) -> None:
    runs = [open_run(request._replace(run=folder)) for folder in folders]
    import pyro

    from corpora.frontends.registry import open_frontend
    from evaluation.inference_gap.gaps import gaps, measure, same_model
    from evaluation.predictive_checks.replications import read_sequences
    from evaluation.reporting.comparability import run_names
    from evaluation.reporting.report import write_json

    first = runs[0].settings
    for run in runs[1:]:
        differ = [k for k in OF_DATA if getattr(run.settings.data, k) != getattr(first.data, k)]
        differ += ["bins of the model"] if run.settings.model.bins != first.model.bins else []
        if differ:
            raise UserError(
                f"{run.path} and {runs[0].path} are not of the same data: {', '.join(differ)} differ.\n"
                "Give --corpus and --root, or data.*=..., for both."
            )
    names = run_names(folders)
    one_model = same_model(runs)
    mode = request.mode or first.evaluation.mode
    frontend = open_frontend(first.data, first.model.bins)
    sequences = read_sequences(runs[0], frontend, request.split, most)
    with pyro.validation_enabled(False):
        measured = []
        for name, run in zip(names, runs, strict=True):
            say(f"{name}: {run.checkpoint_path.name}, step {run.state['step']}")
            measured.append(measure(run, sequences, effort, mode))
    found = gaps(measured, one_model)
    reports = [report_of(run, request, one, effort, mode, one_model) for run, one in zip(runs, found, strict=True)]
    for run, report in zip(runs, reports, strict=True):
        write_json(run.path / "inference_gap.json", report)
    print(table(reports, names))
    for name, one, report in zip(names, found, reports, strict=True):
        stuck = int((one.amortisation == 0).sum())
        if stuck:
            say(f"{name}: refinement found nothing better for {stuck} of {len(sequences)} sequences: take a lower --lr")
        if report["metrics"]["approximation_gap"]["mean"] < 0:
            say(f"{name}: the refined ELBO is above every estimate of log p(x): take more --particles")
    if request.json is not None:
        write_json(request.json, {"evaluation": "inference_gap", "runs": dict(zip(names, reports, strict=True))})
    if picture is not None:
        from evaluation.inference_gap.plot import gap_picture
        from evaluation.reporting.plots import save_picture

        save_picture(gap_picture(reports, names, DESIGN[one_model]), picture)
        say(f"drew {picture}")
    say("wrote inference_gap.json in each run folder")


if __name__ == "__main__":
    sys.exit(main())
