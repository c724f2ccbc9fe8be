"""The model card: what a run is, what it reached, how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation.likelihood.report import LABELS
from evaluation.report.collect import Report
from evaluation.report.sections.reproduce import bibtex, version_of
from evaluation.reporting.provenance import autoregressive
from evaluation.reporting.report import Summary
from evaluation.resynthesis.metrics import METRICS
from inference.runs import Run
from inference.summary import structure, total
from models.structure.formulas import factorisation, outside_time

__all__ = ["card", "figures"]

GIVEN_PAST = (
    "Rows in mode gt are of a decoder that is given the true previous frames, which makes the task easier: they cannot "
    "be compared with rows in mode gen or with models that do not depend on past data."
)


def card(run: Run, reports: Sequence[Report], name: str, licence: str) -> str:
    """The model card in Markdown, with the header that model hubs read.

    Args:
        run: the run.
        reports: the reports in its folder.
        name: name of the shared folder.
        licence: SPDX name of the licence of the weights.
    """
    settings, declared = run.settings, structure(run.settings)
    outside = outside_time(declared.model, declared.guide)
    data, model = settings.data, settings.model.name
    frames = f"{data.frontend}, {data.rate} Hz, " if data.frontend != "frames" else "frames of the corpus, "
    tags = ["dvae", "variational-autoencoder", "pyro", model, *([] if data.frontend == "frames" else ["speech"])]
    rows = list(figures(reports))
    parts = [
        "---",
        f"license: {json.dumps(licence)}",
        "library_name: dvae-pyro",
        f"tags: {json.dumps(tags)}",
        "---",
        "",
        f"# {name}: {model} with guide {settings.guide.name}",
        "",
        "A dynamical variational autoencoder of the library dvae-pyro.",
        "",
        f"    {factorisation('p', declared.model, outside)}",
        f"    {factorisation('q', declared.guide, outside, 'x_{1:T}')}",
        "",
        "## Loading",
        "",
        "```python",
        "import dvae_pyro as dvae",
        "",
        f'run = dvae.load("hf:USER/{name}")  # or the path of this folder',
        *(['y = run.resynthesise("a.wav")'] if data.frontend == "stft" else ["z = run.encode(x)  # x (T, N, D)"]),
        "```",
        "",
        f"Every command takes this folder as a run: `python -m evaluation.likelihood {name} --corpus C --root DIR`. "
        "The weights are safetensors and hold no code.",
        "",
        "## Training",
        "",
        f"- corpus {data.corpus}, training split; data seed {data.seed}",
        f"- {frames}{settings.model.bins} values per frame, likelihood {settings.model.likelihood}",
        f"- {run.state['step']} steps of {settings.train.batch_size} sequences, objective {settings.train.objective}, "
        f"learning rate {settings.optim.lr:g}, seed {settings.seed}",
        f"- {total(run.model, run.guide):,} parameters of model and guide",
        f"- dvae-pyro {version_of('dvae-pyro')}; all settings are in config.yaml",
        "",
        "## Figures",
        "",
        *_table(rows),
        *(["", GIVEN_PAST] if autoregressive(run) and any("gt" in row for row in rows) else []),
        "",
        "## Licence",
        "",
        f"The weights: {licence}. The corpus has a licence of its own, and the library is MIT.",
        "",
        "## Citation",
        "",
        "```bibtex",
        bibtex([model]).rstrip(),
        "```",
    ]
    return "\n".join(parts) + "\n"


def figures(reports: Sequence[Report]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Evaluation, data, mode, metric, mean and standard error, and number of values, of each figure of the reports."""
    for report in reports:
        content = report.content
        metrics = content.get("metrics")
        if not isinstance(metrics, Mapping) or not {"corpus", "split"} <= content.keys():
            continue
        mode = str(content.get("mode") or "") if content.get("autoregressive", True) else ""
        for key, values in metrics.items():
            if (found := _figure(report.evaluation, key, values)) is not None:
                yield (report.evaluation, f"{content['corpus']}, {content['split']}", mode, *found)


def _figure(evaluation: str, key: str, values: Any) -> tuple[str, str, str] | None:
    """Label, text and number of one figure; None without a mean."""
    if not isinstance(values, Mapping):
        return None
    label, decimals, scale = key, 3, 1.0
    if evaluation == "resynthesis" and key in METRICS:
        label, decimals, scale = METRICS[key].label, METRICS[key].decimals, METRICS[key].scale
    elif evaluation == "likelihood" and key in LABELS:
        label, values = f"{LABELS[key]}, nats per frame", {"n": values.get("n"), **values.get("per_frame", {})}
    if values.get("mean") is None:
        return None
    summary = Summary(float(values["mean"]), values.get("stderr"), int(values.get("n") or 0))
    return label, summary.text(decimals, scale), str(summary.n or "")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return ["The run has not been evaluated."]
    head = ("evaluation", "data", "mode", "figure", "mean ± standard error", "values")
    lines = [head, tuple("---" for _ in head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
