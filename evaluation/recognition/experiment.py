"""The experiment of `evaluation.recognition`: a recogniser for each row of the table, tested on each domain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from evaluation.recognition.ctc import (
    RecogniserOptions,
    count_errors,
    error_rate,
    frames_needed,
    recognise,
    train,
)
from evaluation.recognition.dataset import ALL, FeatureSet, TranscribedSplit, features_of
from evaluation.reporting.command_line import say
from evaluation.reporting.report import ratio, text_table

__all__ = ["evaluate", "model_text", "table"]


def evaluate(
    rows: Sequence[FeatureSet],
    splits: Mapping[str, TranscribedSplit],
    options: RecogniserOptions,
    *,
    hop: int,
    seeds: Sequence[int],
    device: str,
) -> list[dict[str, Any]]:
    """Train and test the recognisers of a table.

    Args:
        rows: features of each row.
        splits: "train", "valid" and "test".
        options: options of the recognisers.
        hop: frames from one feature to the next.
        seeds: seeds of the recognisers; one is trained with each.
        device: device to compute on.

    Returns:
        For each row its entry of the report.

    Raises:
        UserError: no utterance of a domain is left.
    """
    entries = []
    test = splits["test"]
    domains = list(dict.fromkeys(test.domains))
    for number, row in enumerate(rows, start=1):
        training, validation = (_training_data(row, splits[split], split, hop) for split in ("train", "valid"))
        features = features_of(row, test, range(len(test.items)), hop)
        counts, steps = [], []
        for seed in seeds:
            label = f"recogniser {number}/{len(rows)} ({row.domain}, {row.features}), seed {seed}"
            recogniser, step = train(
                *training, *validation, options, seed=seed, device=device, label=label, progress=True
            )
            hypotheses = recognise(recogniser, features)
            counts.append([count_errors(*pair) for pair in zip(test.transcripts, hypotheses, strict=True)])
            steps.append(step)
        errors: dict[str, Any] = {}
        for domain in (*domains, ALL):
            chosen = test.indices(domain)
            by_seed = [error_rate([of_seed[n] for n in chosen]) for of_seed in counts]
            # The standard error is over utterances, each with the errors of all seeds.
            pooled = ratio(
                [(sum(of_seed[n].errors for of_seed in counts), len(seeds) * len(test.transcripts[n])) for n in chosen]
            )
            errors[domain] = {"mean": pooled.mean, "stderr": pooled.stderr, "by_seed": by_seed}
        entries.append({**_described(row), "dim": features[0].x.shape[1], "best_steps": steps, "error": errors})
    return entries


def _training_data(
    row: FeatureSet, split: TranscribedSplit, name: str, hop: int
) -> tuple[list[Prepared], list[list[str]]]:
    """Features and transcripts of the utterances of a domain; for training, of those long enough for CTC."""
    chosen = split.indices(row.domain)
    pairs = list(zip(features_of(row, split, chosen, hop), (split.transcripts[n] for n in chosen), strict=True))
    if name == "train":
        pairs = [(item, said) for item, said in pairs if len(item.x) >= frames_needed(said)]
        if len(pairs) < len(chosen):
            say(f"{len(chosen) - len(pairs)} of {len(chosen)} training utterances are too short for --hop {hop}")
    if not pairs:
        raise UserError(f"no utterance of domain {row.domain} is left in split {name}.")
    return [item for item, _ in pairs], [said for _, said in pairs]


def _described(row: FeatureSet) -> dict[str, Any]:
    """The description of a row for the report."""
    if row.run is None:
        return {"trained": row.domain, "run": None, "features": row.features}
    settings = row.run.settings
    name = settings.model.name
    weight = settings.train.beta if name == "beta_vae" else settings.train.discriminative.alpha
    return {
        "trained": row.domain,
        "run": str(row.run.path),
        "model": name,
        "beta" if name == "beta_vae" else "alpha": weight,
        "model_domains": settings.data.conditions,
        "step": row.run.state["step"],
        "features": row.features,
    }


def table(report: Mapping[str, Any]) -> str:
    """The report for the terminal, a row for each recogniser, as in the paper's Tables 2 and 3."""
    domains = [*report["domains"], ALL]
    lines = []
    for row in report["rows"]:
        figures = [row["error"][domain] for domain in domains]
        cells = [
            f"{100 * f['mean']:.1f}" + ("" if f["stderr"] is None else f" ±{100 * f['stderr']:.1f}") for f in figures
        ]
        lines.append([row["trained"], model_text(row), row["features"], *cells])
    counts = f"{report['num_sequences']} utterances, {report['num_tokens']} tokens of {report['tokens']} kinds"
    heading = f"token error rate, %, split {report['split']} of {report['corpus']}: {counts}\n\n"
    return heading + text_table(["trained on", "(FH-, beta-)VAE", "features", *domains], lines)


def model_text(row: Mapping[str, Any]) -> str:
    """The domains that the model of a row was trained on, its weight, and its run."""
    if row["run"] is None:
        return "-"
    weight = f"beta={row['beta']:g}" if "beta" in row else f"alpha={row['alpha']:g}"
    return f"{row['model_domains'] or ALL}, {weight}, {row['run']}"
