"""Recognition across domains: ``python -m evaluation.recognition RUN [RUN ...] [--by LABEL] [--from VALUE]``.

Hsu, Zhang & Glass (2017), section 4.3: the same recogniser (`evaluation.recognition.ctc`) is trained on features of one
domain, and tested on all. Features are FBank, or what a model of segments infers of the segments: mean and log-variance
of z1 and of z2 of an FHVAE, of z1 of a beta-VAE. A recogniser of FBank that is trained on all domains shows what can be
had. Domains are conditions made from clean speech (`corpora.audio.conditions`), or any label of the corpus, such as
``sex``. Leaves ``recognition.json`` and a picture in the folder of the first run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError, nearest
from evaluation.recognition.dataset import ALL, Row, Spoken, features_of, read_split
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from corpora.loading.sequences import Prepared
    from evaluation.recognition.ctc import Options
    from inference.runs import Run

__all__ = ["evaluate", "main", "table"]

DOMAIN, CLEAN = "domain", "clean"
#: Settings of the data that all runs must share, or their features are not of the same sound.
SHARED = ("corpus", "root", "subset", "seed", "frontend", "rate", "window", "hop", "trim_db")


def evaluate(
    rows: Sequence[Row], splits: Mapping[str, Spoken], options: Options, *, hop: int, seeds: Sequence[int], device: str
) -> list[dict[str, Any]]:
    """Train and test the recognisers of a table.

    Args:
        rows: the recognisers.
        splits: "train", "valid" and "test".
        options: of the recognisers.
        hop: frames from one feature to the next.
        seeds: of the recognisers; one is trained with each.
        device: where to compute.

    Returns:
        For each row what the report says of it.
    """
    from evaluation.recognition.ctc import count_errors, needed, recognise, share, train
    from evaluation.reporting.report import ratio

    found = []
    test = splits["test"]
    domains = sorted(set(test.domains), key=test.domains.index)
    for place, row in enumerate(rows, start=1):
        data: dict[str, list[Prepared]] = {}
        said: dict[str, list[list[str]]] = {}
        for split in ("train", "valid"):
            chosen = splits[split].of(row.trained)
            every = list(zip(features_of(row, splits[split], chosen, hop), chosen, strict=True))
            if split == "train":  # CTC has no way to say more tokens than there are frames
                every = [(item, n) for item, n in every if len(item.x) >= needed(splits[split].said[n])]
                if len(every) < len(chosen):
                    say(
                        f"{len(chosen) - len(every)} of {len(chosen)} training utterances are too short for --hop {hop}"
                    )
            data[split], said[split] = [item for item, _ in every], [splits[split].said[n] for _, n in every]
            if not every:
                raise UserError(f"nothing of domain {row.trained} is left of split {split} to recognise.")
        heard_in_test = features_of(row, test, range(len(test.items)), hop)
        counts, steps = [], []
        for seed in seeds:
            label = f"recogniser {place}/{len(rows)} ({row.trained}, {row.features}), seed {seed}"
            both = (data["train"], said["train"], data["valid"], said["valid"])
            recogniser, step = train(*both, options, seed=seed, device=device, label=label, progress=True)
            heard = recognise(recogniser, heard_in_test)
            counts.append([count_errors(*pair) for pair in zip(test.said, heard, strict=True)])
            steps.append(step)
        error: dict[str, Any] = {}
        for domain in (*domains, ALL):
            chosen = test.of(domain)
            by_seed = [share([one[n] for n in chosen]) for one in counts]
            # Over utterances, each with the errors of all seeds: a seed more does not make more utterances.
            pooled = ratio([(sum(one[n].errors for one in counts), len(seeds) * len(test.said[n])) for n in chosen])
            error[domain] = {"mean": pooled.mean, "stderr": pooled.stderr, "by_seed": by_seed}
        found.append({**described(row), "dim": heard_in_test[0].x.shape[1], "best_steps": steps, "error": error})
    return found


def described(row: Row) -> dict[str, Any]:
    """What a row is, for the report."""
    if row.run is None:
        return {"trained": row.trained, "run": None, "features": row.features}
    settings = row.run.settings
    name = settings.model.name
    weight = settings.train.beta if name == "beta_vae" else settings.train.discriminative.alpha
    return {
        "trained": row.trained,
        "run": str(row.run.path),
        "model": name,
        "beta" if name == "beta_vae" else "alpha": weight,
        "model_domains": settings.data.conditions,
        "step": row.run.state["step"],
        "features": row.features,
    }


def table(report: Mapping[str, Any]) -> str:
    """The report as text, a row for each recogniser, as the paper's Tables 2 and 3."""
    from evaluation.reporting.report import text_table

    domains = [*report["domains"], ALL]
    lines = []
    for row in report["rows"]:
        figures = [row["error"][domain] for domain in domains]
        cells = [
            f"{100 * f['mean']:.1f}" + ("" if f["stderr"] is None else f" ±{100 * f['stderr']:.1f}") for f in figures
        ]
        lines.append([row["trained"], name_of(row), row["features"], *cells])
    counted = f"{report['num_sequences']} utterances, {report['num_tokens']} tokens of {report['tokens']} kinds"
    heading = f"token error rate, %, split {report['split']} of {report['corpus']}: {counted}\n\n"
    return heading + text_table(["trained on", "(FH-, beta-)VAE", "features", *domains], lines)


def name_of(row: Mapping[str, Any]) -> str:
    """The model of a row: its weight of the paper, and the domains that it was trained in."""
    if row["run"] is None:
        return "-"
    weight = f"beta={row['beta']:g}" if "beta" in row else f"alpha={row['alpha']:g}"
    return f"{row['model_domains'] or ALL}, {weight}, {row['run']}"


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = _parser()

    def command() -> None:
        request, given = parse(parser, argv, several=True)
        from evaluation.recognition.ctc import Options  # brings torch, which the help does not need

        options = Options(width=given.width, steps=given.steps, batch=given.batch)
        options.check()
        for name in ("hop", "seeds"):
            if getattr(given, name) < 1:
                raise UserError(f"--{name}: got {getattr(given, name)}, expected 1 or more.")
        _command(request, given, options)

    return guarded(command)


def _parser() -> argparse.ArgumentParser:
    parser = evaluation_parser(
        "recognition", "Train recognisers on features of one domain, test them on all.", without=("mode", "latents")
    )
    parser.add_argument("--by", default=DOMAIN, metavar="LABEL", help="what is a domain (default: %(default)s)")
    parser.add_argument("--from", dest="source", metavar="VALUE", help="the domain to train on (default: clean)")
    parser.add_argument("--hop", type=int, default=2, metavar="N", help="frames from feature to feature (%(default)s)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="recognisers for each row (%(default)s)")
    parser.add_argument("--steps", type=int, default=600, metavar="N", help="updates of a recogniser (%(default)s)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="utterances in each (%(default)s)")
    parser.add_argument("--width", type=int, default=128, metavar="H", help="of its LSTM (%(default)s)")
    return parser


def _command(request: Request, given: argparse.Namespace, options: Options) -> None:
    from corpora.registry import open_corpus
    from evaluation.reporting.bars import grouped_bars
    from evaluation.reporting.plots import save_picture
    from evaluation.reporting.provenance import provenance
    from evaluation.reporting.report import write_json

    runs = _open_runs(request, given)
    data = runs[0].settings.data
    made = given.by == DOMAIN and not any(item.startswith("data.conditions=") for item in request.overrides)
    trained_in = data.conditions
    data.conditions = "ABCD" if made else trained_in
    corpus = open_corpus(data, data.seed, needed=list(dict.fromkeys(["train", "valid", request.split])))
    read = {split: read_split(runs[0], corpus, split, given.by) for split in corpus.splits}
    data.conditions = trained_in
    splits = {"train": read["train"], "valid": read["valid"], "test": read[request.split]}
    source = _source(given, splits["train"])
    rows = [Row(ALL, None, data.frontend), Row(source, None, data.frontend)]
    for run in runs:
        kinds = ("z1",) if run.settings.model.name == "beta_vae" else ("z1", "z2")
        rows += [Row(source, run, kind) for kind in kinds]
    seeds = [runs[0].settings.seed + n for n in range(given.seeds)]
    found = evaluate(rows, splits, options, hop=given.hop, seeds=seeds, device=request.device)
    test = splits["test"]
    report = {
        **provenance("recognition", runs[0], request),
        "runs": [str(run.path) for run in runs],
        "num_sequences": len(test.items),
        "num_tokens": sum(len(said) for said in test.said),
        "tokens": len({token for said in splits["train"].said for token in said}),
        "by": given.by,
        "from": source,
        "domains": sorted(set(test.domains), key=test.domains.index),
        "hop": given.hop,
        "recogniser": {**options._asdict(), "seeds": seeds},
        "rows": found,
    }
    path, picture = request.run / "recognition.json", request.run / "recognition.png"
    figure = grouped_bars(
        [*report["domains"], ALL],
        {f"{r['trained']}, {r['features']} {name_of(r)}".removesuffix(" -"): list(r["error"].values()) for r in found},
        "token error rate, %",
        f"trained on {source} (first: on all), tested on split {request.split} of {corpus.name}",
        scale=100.0,
    )
    save_picture(figure, picture)
    write_json(path, report)
    if request.json is not None:
        write_json(request.json, report)
    print(table(report))
    say(f"wrote {path} and {picture}")


def _open_runs(request: Request, given: argparse.Namespace) -> list[Run]:
    """The runs, which must be of models of segments, and of the same sound."""
    runs: list[Run] = []
    for path in given.runs:
        run = open_run(request._replace(run=path))
        if run.model.segment is None:
            raise UserError(
                f"{path} is a run of model '{run.settings.model.name}', which has no latents of segments. Give runs of "
                "fhvae and beta_vae."
            )
        say(f"reading {run.checkpoint_path}, step {run.state['step']}")
        first, this = (runs[0] if runs else run).settings, run.settings
        differ = [f"data.{key}" for key in SHARED if getattr(first.data, key) != getattr(this.data, key)]
        differ += ["model.bins"] if first.model.bins != this.model.bins else []
        if differ:
            raise UserError(
                f"{path} and {given.runs[0]} differ in {', '.join(differ)}: their features are not of the same sound. "
                "Give runs that were trained with the same, or evaluate them one by one."
            )
        if not 1 <= given.hop <= run.model.segment:
            raise UserError(f"--hop {given.hop}: expected 1 to {run.model.segment} frames, the segment of {path}.")
        runs.append(run)
    return runs


def _source(given: argparse.Namespace, train: Spoken) -> str:
    """The domain to train on."""
    known = sorted(set(train.domains))
    source = given.source or (CLEAN if given.by == DOMAIN else "")
    if source not in known:
        raise UserError(
            f"--from {source or '(none)'}: split train has the values {', '.join(known)} of {given.by}. Give one."
            f"{nearest(source, known)}"
        )
    return source


if __name__ == "__main__":
    sys.exit(main())
