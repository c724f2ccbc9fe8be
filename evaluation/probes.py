r"""What latents know of the truth: ``python -m evaluation.probes RUN [RUN ...] [--factors LABEL,...]``.

Linear probes: from the latents of each segment of a split (means of z1 and z2, and mu1 and mu2 of its utterance, the
same for all of its segments) a multinomial logistic regression predicts who speaks, and what is said in the middle of
the segment. Folds of whole utterances are predicted by a probe that is fitted to the others. Reported are accuracy,
beside that of always naming the most frequent class, and how much the latent tells, in bits: a bound from below on
their mutual information (`evaluation.disentanglement.linear_probe`), which a probe other than linear may raise; at 0 or
less nothing was found. Leaves ``probes.json`` in the folder of each run, and a picture in that of the first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request, evaluation_parser, guarded, open_run, parse, say

if TYPE_CHECKING:
    from corpora.types import Corpus, Utterance
    from evaluation.disentanglement.linear_probe import Probed
    from inference.runs import Run

__all__ = ["main", "middle", "table", "truth"]


def middle(content: Sequence[Any], place: float) -> str | None:
    """The name of the phone at a sample of the file; None beyond the last.

    Example:
        >>> from corpora.recipes.synthetic.corpus import Placed
        >>> middle([Placed("aa", 0, 10), Placed("t", 10, 15)], 10.0)
        't'
    """
    return next((str(phone.name) for phone in content if phone.start <= place < phone.end), None)


def truth(utterance: Utterance, factor: str, samples: Sequence[float]) -> list[str | None]:
    """The class of a factor in each segment of an utterance; None where it is not known.

    Args:
        utterance: the utterance.
        factor: "speaker"; "phone", or its "kind" (vowel, nasal, ...), of the label ``content``; or a label.
        samples: of the file, in the middle of each segment.
    """
    if factor in ("phone", "kind"):
        from corpora.recipes.synthetic.phones import PHONES

        content: Any = utterance.labels.get("content", ())
        names = [middle(content, place) for place in samples]
        return names if factor == "phone" else [PHONES[n].kind if n in PHONES else None for n in names]
    value = utterance.speaker if factor == "speaker" else utterance.labels.get(factor)
    return [None if value is None else str(value)] * len(samples)


def probe_run(run: Run, corpus: Corpus, split: str, factors: Sequence[str]) -> dict[str, dict[str, Probed]]:
    """All factors from all latents of a run, by factor, then by latent.

    Raises:
        UserError: nothing is known of a factor.
    """
    import numpy as np

    from corpora.frontends.registry import open_frontend
    from corpora.loading.sequences import load_split
    from evaluation.disentanglement.embeddings import embed, segment_latents
    from evaluation.disentanglement.linear_probe import FOLDS, probe

    data = run.settings.data
    frontend: Any = open_frontend(data, run.settings.model.bins)
    items = load_split(corpus, split, frontend, data, say)
    latents = segment_latents(run, items)
    counts = [len(x) for x in latents["z1"]]
    known = {}
    for kind, of in latents.items():
        both = np.concatenate([x.double().numpy() for x in of])
        known[kind] = both[:, : both.shape[1] // 2]  # means, of [mean; log-variance]
    known |= {kind: vectors.repeat(counts, axis=0) for kind, vectors in embed(run, items).vectors.items()}
    utterance_of = {utterance.file: utterance for utterance in corpus.splits[split]}
    said = [utterance_of[item.file] for item in items]
    size: Any = run.model.segment
    scale = said[0].sound().rate / frontend.rate if {"phone", "kind"} & set(factors) else 1.0
    middles = [[(n + 0.5) * size * frontend.hop * scale for n in range(count)] for count in counts]
    number = np.arange(len(items)).repeat(counts)
    found: dict[str, dict[str, Probed]] = {}
    for factor in factors:
        labels = [label for u, places in zip(said, middles, strict=True) for label in truth(u, factor, places)]
        where: dict[str, set[int]] = {}
        for label, utterance in zip(labels, number.tolist(), strict=True):
            if label is not None:
                where.setdefault(label, set()).add(utterance)
        usual = {label for label, utterances in where.items() if len(utterances) >= FOLDS}
        if len(usual) < 2:
            raise UserError(
                f"--factors {factor}: {len(usual)} of its values are in {FOLDS} or more utterances of split {split} of "
                f"corpus '{corpus.name}', and a probe needs two. Take another factor or corpus, or a larger split."
            )
        if len(usual) < len(where):
            say(f"{factor}: left out {', '.join(sorted(set(where) - usual))}, in fewer than {FOLDS} utterances")
        kept = np.array([label in usual for label in labels])
        chosen = [str(label) for label, keep in zip(labels, kept, strict=True) if keep]
        found[factor] = {
            kind: probe(x[kept], chosen, number[kept].tolist(), run.settings.seed) for kind, x in known.items()
        }
    return found


def report_of(found: Mapping[str, Mapping[str, Probed]]) -> dict[str, Any]:
    """What the report says of a run's probes."""
    return {
        factor: {
            kind: {
                "accuracy": {"mean": p.accuracy.mean, "stderr": p.accuracy.stderr},
                "information_bits": {"mean": p.information_bits.mean, "stderr": p.information_bits.stderr},
                **{name: getattr(p, name) for name in ("chance", "entropy_bits", "classes", "segments")},
            }
            for kind, p in of.items()
        }
        for factor, of in found.items()
    }


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy and information of each latent of each run, factor by factor."""
    from evaluation.reporting.report import text_table

    factors = list(reports[0]["metrics"])
    header = ["run", "latent", *(f"{factor}{what}" for factor in factors for what in (", %", ", bits"))]
    lines = []
    for report in reports:
        for kind in next(iter(report["metrics"].values())):
            cells = []
            for of in report["metrics"].values():
                for name, scale, decimals in (("accuracy", 100.0, 1), ("information_bits", 1.0, 2)):
                    f = of[kind][name]
                    error = "" if f["stderr"] is None else f" ±{scale * f['stderr']:.{decimals}f}"
                    cells.append(f"{scale * f['mean']:.{decimals}f}{error}")
            lines.append([report["run"], kind, *cells])
    first = [next(iter(of.values())) for of in reports[0]["metrics"].values()]
    ends = [cell for p in first for cell in (f"{100 * p['chance']:.1f}", f"{p['entropy_bits']:.2f}")]
    lines.append(["chance; all there is", "", *ends])
    return text_table(header, lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = evaluation_parser(
        "probes", "Predict speaker and content from latents of segments, linearly.", without=("mode", "latents")
    )
    parser.add_argument(
        "--factors",
        type=lambda text: text.split(","),
        default=["speaker", "phone", "kind"],
        metavar="LABEL,...",
        help="speaker, phone, kind (of phone), or labels of the corpus (default: speaker,phone,kind)",
    )

    def command() -> None:
        request, given = parse(parser, argv, several=True)
        _command(request, given)

    return guarded(command)


def _command(request: Request, given: argparse.Namespace) -> None:
    from corpora.registry import open_corpus
    from evaluation.disentanglement.linear_probe import FOLDS
    from evaluation.reporting.bars import grouped_bars
    from evaluation.reporting.plots import save_picture
    from evaluation.reporting.provenance import provenance
    from evaluation.reporting.report import write_json

    reports: list[dict[str, Any]] = []
    bars: dict[str, list[dict[str, Any]]] = {}
    for path in given.runs:
        run = open_run(request._replace(run=path))
        data = run.settings.data
        if data.trim_db is not None and {"phone", "kind"} & set(given.factors):
            raise UserError(
                f"data.trim_db={data.trim_db}: what is cut off in front moves frames against phones. Add "
                "data.trim_db=null, or give --factors without phone and kind."
            )
        say(f"reading {run.checkpoint_path}, step {run.state['step']}")
        corpus = open_corpus(data, data.seed, needed=[request.split])
        metrics = report_of(probe_run(run, corpus, request.split, given.factors))
        of_run = request._replace(run=path)
        reports.append(
            {
                **provenance("probes", run, of_run),
                "num_sequences": len(corpus.splits[request.split]),
                "folds": FOLDS,
                "metrics": metrics,
            }
        )
        for kind in next(iter(metrics.values())):
            bars[f"{kind} of {path}"] = [of[kind]["accuracy"] for of in metrics.values()]
    for path, report in zip(given.runs, reports, strict=True):
        write_json(path / "probes.json", report)
    if request.json is not None:
        write_json(request.json, reports[0])
    levels = [next(iter(of.values()))["chance"] for of in reports[0]["metrics"].values()]
    heading = f"linear probes of segments, split {request.split} of {reports[0]['corpus']}"
    picture = given.runs[0] / "probes.png"
    save_picture(grouped_bars(given.factors, bars, "named right, %", heading, scale=100.0, levels=levels), picture)
    print(table(reports))
    say(f"wrote {', '.join(str(path / 'probes.json') for path in given.runs)} and {picture}")


if __name__ == "__main__":
    sys.exit(main())
