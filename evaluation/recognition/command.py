"""The work of `evaluation.recognition`: open the runs, read the splits, evaluate, report and draw."""

from __future__ import annotations

import argparse
from dataclasses import replace

from dvae_pyro.errors import UserError, nearest
from evaluation.disentanglement.embeddings import segment_size
from evaluation.loading.splits import corpus_of
from evaluation.recognition.ctc import RecogniserOptions
from evaluation.recognition.dataset import ALL, FeatureSet, TranscribedSplit, read_transcribed
from evaluation.recognition.experiment import evaluate, model_text, table
from evaluation.reporting.command_line import Request, check_minimum, read_run, say
from evaluation.reporting.comparability import SEQUENCE_SETTINGS, check_same_data, run_names
from evaluation.reporting.outputs import outputs_of
from evaluation.reporting.plots import grouped_bars
from evaluation.reporting.provenance import provenance
from inference.runs import Run

__all__ = ["run_recognition"]

DOMAIN, CLEAN = "domain", "clean"
CONDITIONS = "ABCD"
"""Conditions that are made from clean speech, unless data.conditions or --by are given."""


def run_recognition(request: Request, options: argparse.Namespace) -> None:
    """Evaluate runs, write ``recognition.json`` and the picture, and print the table."""
    recogniser = RecogniserOptions(width=options.width, steps=options.steps, batch=options.batch)
    recogniser.check()
    check_minimum(options, hop=1, seeds=1)
    runs = _open_runs(request, options)
    settings = runs[0].settings
    outputs = outputs_of("recognition", request, settings)
    if options.by == DOMAIN and not any(item.startswith("data.conditions=") for item in request.overrides):
        settings = replace(settings, data=replace(settings.data, conditions=CONDITIONS))
    corpus = corpus_of(settings, "train", "valid", request.split)
    reader = runs[0]._replace(settings=settings)
    read = {split: read_transcribed(reader, corpus, split, options.by) for split in corpus.splits}
    splits = {"train": read["train"], "valid": read["valid"], "test": read[request.split]}
    source, test = _source(options, splits["train"]), splits["test"]
    rows = [FeatureSet(domain, None, settings.data.frontend) for domain in (ALL, source)]
    for run in runs:
        latents = ("z1",) if run.settings.model.name == "beta_vae" else ("z1", "z2")
        rows += [FeatureSet(source, run, latent) for latent in latents]
    seeds = [settings.seed + n for n in range(options.seeds)]
    entries = evaluate(rows, splits, recogniser, hop=options.hop, seeds=seeds, device=runs[0].settings.device)
    report = {
        **provenance("recognition", runs[0], request),
        "runs": [str(run.path) for run in runs],
        "num_sequences": len(test.items),
        "num_tokens": sum(len(transcript) for transcript in test.transcripts),
        "tokens": len({token for transcript in splits["train"].transcripts for token in transcript}),
        "by": options.by,
        "from": source,
        "domains": list(dict.fromkeys(test.domains)),
        "hop": options.hop,
        "recogniser": {**recogniser._asdict(), "seeds": seeds},
        "rows": entries,
    }
    names = run_names(options.runs)
    short: dict[str | None, str | None] = {None: None, **dict(zip(report["runs"], names, strict=True))}
    models = [model_text({**entry, "run": short[entry["run"]]}) for entry in entries]
    labels = [
        f"{entry['trained']}, {entry['features']} {model}".removesuffix(" -")
        for entry, model in zip(entries, models, strict=True)
    ]
    figure = grouped_bars(
        [*report["domains"], ALL],
        {label: list(entry["error"].values()) for label, entry in zip(labels, entries, strict=True)},
        "token error rate, %",
        f"{', '.join(names)}: recogniser trained on {source} (first: on all), tested on split "
        f"{request.split} of {corpus.name}",
        groups_label="condition of the test data",
        rows_label="condition trained on, features",
        scale=100.0,
    )
    outputs.draw(figure)
    outputs.write(report)
    print(table(report))
    say(f"wrote {outputs.names('png')}")


def _open_runs(request: Request, options: argparse.Namespace) -> list[Run]:
    """The runs, of models of segments and on the same sounds."""
    runs = [read_run(request._replace(run=path)) for path in options.runs]
    for run in runs:
        segment = segment_size(run)
        if options.hop > segment:
            raise UserError(f"--hop {options.hop}: expected 1 to {segment} frames, the segment of {run.path}.")
    # The conditions may differ: the models are then trained on different domains.
    check_same_data({run.path: run.settings for run in runs}, ignored=SEQUENCE_SETTINGS)
    return runs


def _source(options: argparse.Namespace, train: TranscribedSplit) -> str:
    """The domain to train on."""
    known = sorted(set(train.domains))
    source: str = options.source or (CLEAN if options.by == DOMAIN else "")
    if source not in known:
        raise UserError(
            f"--from {source or '(none)'}: split train has the values {', '.join(known)} of {options.by}. Give one."
            f"{nearest(source, known)}"
        )
    return source
