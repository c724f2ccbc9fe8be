"""The work of `evaluation.probes`: classes of segments, probes of all latents, reports, table and picture."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corpora.loading.sequences import Prepared
from corpora.recipes.synthetic.phones import PHONES
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError
from evaluation.disentanglement.embeddings import embed, segment_latents, segment_size
from evaluation.disentanglement.linear_probe import FOLDS, ProbeResult, probe
from evaluation.loading.splits import corpus_of, read_split
from evaluation.loading.waveforms import sound_frontend
from evaluation.reporting.command_line import Request, read_run, say
from evaluation.reporting.outputs import Outputs, outputs_of
from evaluation.reporting.plots import grouped_bars
from evaluation.reporting.provenance import provenance
from evaluation.reporting.report import text_table
from inference.runs import Run

__all__ = ["classes", "phone_at", "probe_run", "run_probes", "table"]

OF_CONTENT = ("phone", "kind")
"""Factors that change within an utterance."""


def run_probes(request: Request, options: argparse.Namespace) -> None:
    """Probe runs, write reports and picture, and print the table.

    Raises:
        UserError: phones are asked for, and the utterances are trimmed.
    """
    arguments = {k: v for k, v in (request.arguments or {}).items() if k != "runs"} or None  # each run by itself
    outputs: list[Outputs] = []
    reports: list[dict[str, Any]] = []
    bars: dict[str, list[dict[str, Any]]] = {}
    for path in options.runs:
        single = request._replace(run=path, json=None, picture=None, arguments=arguments)
        run = read_run(single)
        outputs.append(outputs_of("probes", single, run.settings))
        trim_db = run.settings.data.trim_db
        if trim_db is not None and {*OF_CONTENT} & {*options.factors}:
            raise UserError(
                f"data.trim_db={trim_db}: trimming shifts the frames relative to the phone labels. Add "
                "data.trim_db=null, or give --factors without phone and kind."
            )
        corpus = corpus_of(run.settings, request.split)
        metrics = report_of(probe_run(run, corpus, request.split, options.factors))
        head = provenance("probes", run, single)
        count = len(corpus.splits[request.split])
        reports.append({**head, "num_sequences": count, "folds": FOLDS, "metrics": metrics})
        for latent in next(iter(metrics.values())):
            bars[f"{latent} of {path}"] = [by_latent[latent]["accuracy"] for by_latent in metrics.values()]
    first = outputs[0] = outputs[0]._replace(request=outputs[0].request._replace(json=request.json))
    for out, report in zip(outputs, reports, strict=True):
        out.write(report)
    levels = [next(iter(by_latent.values()))["chance"] for by_latent in reports[0]["metrics"].values()]
    which = ", ".join(dict.fromkeys(path.name for path in options.runs))
    heading = f"{which}: linear probes of segments, split {request.split} of {reports[0]['corpus']}"
    kinds = {"groups_label": "predicted factor", "rows_label": "run and latent"}
    picture = grouped_bars(options.factors, bars, "accuracy, %", heading, **kinds, scale=100.0, levels=levels)
    first._replace(request=request).draw(picture)
    print(table(reports))
    say(f"wrote {', '.join(str(out.json) for out in outputs)} and {first.picture}")


def probe_run(run: Run, corpus: Corpus, split: str, factors: Sequence[str]) -> dict[str, dict[str, ProbeResult]]:
    """Probe all latents of a run for all factors.

    Returns:
        Results by factor, then by latent.

    Raises:
        UserError: a factor has fewer than two classes that occur in enough utterances.
    """
    items = read_split(run, corpus, split)
    latents, counts = _vectors(run, items)
    by_file = {utterance.file: utterance for utterance in corpus.splits[split]}
    utterances = [by_file[item.file] for item in items]
    centres = _centres(run, utterances, counts) if {*OF_CONTENT} & {*factors} else [[0.0] * n for n in counts]
    utterance_of = np.arange(len(items)).repeat(counts)
    results: dict[str, dict[str, ProbeResult]] = {}
    for factor in factors:
        labels = [
            label for u, samples in zip(utterances, centres, strict=True) for label in classes(u, factor, samples)
        ]
        occurrences: dict[str, set[int]] = {}
        for label, number in zip(labels, utterance_of.tolist(), strict=True):
            if label is not None:
                occurrences.setdefault(label, set()).add(number)
        frequent = {label for label, numbers in occurrences.items() if len(numbers) >= FOLDS}
        if len(frequent) < 2:
            raise UserError(
                f"--factors {factor}: {len(frequent)} of its values are in {FOLDS} or more utterances of split {split} "
                f"of corpus '{corpus.name}', and a probe needs two. Use another factor or corpus, or a larger split."
            )
        if rare := sorted({*occurrences} - frequent):
            say(f"{factor}: left out {', '.join(rare)}, in fewer than {FOLDS} utterances")
        kept = np.array([label in frequent for label in labels])
        y = [str(label) for label, keep in zip(labels, kept, strict=True) if keep]
        groups = utterance_of[kept].tolist()
        results[factor] = {name: probe(z[kept], y, groups, run.settings.seed) for name, z in latents.items()}
    return results


def _vectors(run: Run, items: Sequence[Prepared]) -> tuple[dict[str, NDArray[np.float64]], list[int]]:
    """Latents of all segments (K, L), by name, and the number of segments of each utterance."""
    vectors = {}
    by_latent = segment_latents(run, items)
    for name, moments in by_latent.items():
        pooled = np.concatenate([x.double().numpy() for x in moments])
        vectors[name] = pooled[:, : pooled.shape[1] // 2]  # the means
    counts = [len(x) for x in by_latent["z1"]]
    return vectors | {name: v.repeat(counts, axis=0) for name, v in embed(run, items).vectors.items()}, counts


def _centres(run: Run, utterances: Sequence[Utterance], counts: Sequence[int]) -> list[list[float]]:
    """Sample, at the rate of the file, in the middle of each segment of each utterance."""
    frontend = sound_frontend(run)
    segment_samples = segment_size(run) * frontend.hop * (utterances[0].sound().rate / frontend.rate)
    return [[(n + 0.5) * segment_samples for n in range(count)] for count in counts]


def classes(utterance: Utterance, factor: str, samples: Sequence[float]) -> list[str | None]:
    """The class of a factor in each segment of an utterance; None where it is unknown.

    Args:
        utterance: the utterance.
        factor: "speaker"; "phone", or its "kind" (vowel, nasal, ...), from the label ``content``; or a label.
        samples: sample of the file in the middle of each segment.
    """
    if factor in OF_CONTENT:
        content: Any = utterance.labels.get("content", ())
        phones = [phone_at(content, sample) for sample in samples]
        return phones if factor == "phone" else [PHONES[n].kind if n in PHONES else None for n in phones]
    value = utterance.speaker if factor == "speaker" else utterance.labels.get(factor)
    return [None if value is None else str(value)] * len(samples)


def phone_at(content: Sequence[Any], sample: float) -> str | None:
    """The name of the phone at a sample of the file; None beyond the last phone.

    Example:
        >>> from corpora.recipes.synthetic.corpus import Placed
        >>> phone_at([Placed("aa", 0, 10), Placed("t", 10, 15)], 10.0)
        't'
    """
    return next((str(phone.name) for phone in content if phone.start <= sample < phone.end), None)


def report_of(results: Mapping[str, Mapping[str, ProbeResult]]) -> dict[str, Any]:
    """The metrics of the report of a run."""
    return {
        factor: {
            latent: {
                "accuracy": {"mean": result.accuracy.mean, "stderr": result.accuracy.stderr},
                "information_bits": {"mean": result.information_bits.mean, "stderr": result.information_bits.stderr},
                **{name: getattr(result, name) for name in ("chance", "entropy_bits", "classes", "segments")},
            }
            for latent, result in by_latent.items()
        }
        for factor, by_latent in results.items()
    }


def table(reports: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy and information of each latent of each run, for each factor."""
    factors = list(reports[0]["metrics"])
    header = ["run", "latent", *(f"{factor}{unit}" for factor in factors for unit in (", %", ", bits"))]
    lines = []
    for report in reports:
        for latent in next(iter(report["metrics"].values())):
            cells = []
            for by_latent in report["metrics"].values():
                for name, scale, decimals in (("accuracy", 100.0, 1), ("information_bits", 1.0, 2)):
                    f = by_latent[latent][name]
                    error = "" if f["stderr"] is None else f" ±{scale * f['stderr']:.{decimals}f}"
                    cells.append(f"{scale * f['mean']:.{decimals}f}{error}")
            lines.append([report["run"], latent, *cells])
    first = [next(iter(by_latent.values())) for by_latent in reports[0]["metrics"].values()]
    ends = [cell for f in first for cell in (f"{100 * f['chance']:.1f}", f"{f['entropy_bits']:.2f}")]
    lines.append(["chance; entropy of the factor", "", *ends])
    return text_table(header, lines)
