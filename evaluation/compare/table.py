"""Reports of resynthesis side by side: which figures can be compared, as a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from evaluation.reporting.report import Summary
from evaluation.reporting.comparability import run_names

__all__ = [
    "COLUMNS",
    "Entry",
    "best_rows",
    "differences",
    "differing",
    "entries",
    "heading",
    "picture",
    "report_of",
    "table",
]


COLUMNS = ("rmse_scaled", "si_sdr", "pesq_wb", "pesq_nb", "stoi", "estoi", "is_per_frame", "kl_per_frame")


#: What must be the same for figures to be comparable, and what is said where it is not.
CONDITIONS = {
    "corpus": "corpora, so no figure can be compared",
    "root": "roots: figures can be compared only if both hold the same files",
    "split": "splits, so no figure can be compared",
    "data_seed": "seeds of the data, so each may hold other utterances",
    "num_sequences": "numbers of utterances, so no figure can be compared",
    "mode": "modes: in gt the decoder sees the true past, in gen its own output",
    "latents": "latents: means resynthesise better than samples",
    "frontend": "front ends: IS and KL per frame cannot be compared",
}


OF_FRAMES = ("is_per_frame", "kl_per_frame")


class Entry(NamedTuple):
    """A row of the comparison: the run's name, its folder, its report and the file that this was read from."""

    name: str
    run: Path
    report: dict[str, Any]
    file: Path

    def figure(self, name: str) -> Summary:
        """A figure of the report; a report of an older version may lack it."""
        from evaluation.reporting.report import Summary

        values = self.report["metrics"].get(name, {})
        return Summary(values.get("mean"), values.get("stderr"), values.get("n", 0))

    @property
    def what(self) -> str:
        """Model, guide and parameters."""
        return f"{self.report['model']}, guide {self.report['guide']}, {self.report['parameters']:,} parameters"


def entries(runs: Sequence[Path]) -> list[Entry]:
    """Read what was measured of each run.

    Args:
        runs: run folders, or reports that --json of evaluation.resynthesis wrote (another mode).
    """
    from evaluation.reporting.report import read_json

    found = []
    for name, run in zip(run_names(runs), runs, strict=True):
        file = run if run.is_file() else run / "resynthesis.json"
        if not run.exists():
            raise UserError(f"No run folder at {run}.")
        made_by = run if run.is_dir() else f"RUN --json {run}"
        remedy = f"Make it with: python -m evaluation.resynthesis {made_by}"
        report = read_json(file, remedy)
        missing = [k for k in ("run", "metrics", "model", "guide", "parameters", *CONDITIONS) if k not in report]
        if missing:
            raise UserError(f"{file} is no report of resynthesis: it lacks {', '.join(missing)}. {remedy}")
        found.append(Entry(name, run if run.is_dir() else Path(report["run"]), report, file))
    return found


def best_rows(found: Sequence[Entry]) -> list[int | None]:
    """For each column the best row; None where there is none, or where the runs cannot be compared."""
    from evaluation.resynthesis.metrics import METRICS

    differ = differing(found)
    best: list[int | None] = []
    for name in COLUMNS:
        figures = [entry.figure(name) for entry in found]
        known = [(figure.mean, i) for i, figure in enumerate(figures) if figure.mean is not None]
        better = METRICS[name].better
        comparable = not differ or (differ == ["frontend"] and name not in OF_FRAMES and _same_sounds(found))
        choose = max if better == "higher" else min
        best.append(choose(known)[1] if better and comparable and len(known) > 1 else None)
    return best


def differing(found: Sequence[Entry]) -> list[str]:
    """The conditions under which the runs were evaluated that are not the same for all."""
    differ = [c for c in CONDITIONS if len({_text(c, e.report[c]) for e in _concerned(found, c)}) > 1]
    # Another corpus has another root and size: one warning is enough.
    implied = {"corpus": ("root", "num_sequences"), "split": ("num_sequences",)}
    return [c for c in differ if not any(c in implied.get(cause, ()) for cause in differ)]


def _concerned(found: Sequence[Entry], condition: str) -> list[Entry]:
    """The runs that a condition touches: a model that sees no past data is the same in every mode."""
    return [e for e in found if condition != "mode" or e.report.get("autoregressive", True)]


def _same_sounds(found: Sequence[Entry]) -> bool:
    """Whether front ends that differ leave the same sounds to compare with: of one rate, trimmed alike."""
    return len({(e.report["frontend"].get("rate"), e.report["frontend"].get("trim_db")) for e in found}) == 1


def differences(found: Sequence[Entry]) -> list[str]:
    """What keeps the figures of these runs from being compared, in words; nothing if they can be."""
    lines = []
    for condition in differing(found):
        values: dict[str, list[str]] = {}
        for entry in _concerned(found, condition):
            values.setdefault(_text(condition, entry.report[condition]), []).append(entry.name)
        each = "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
        what = CONDITIONS[condition]
        if condition == "frontend" and not _same_sounds(found):
            what = "front ends, which resample or trim differently, so no figure can be compared"
        lines.append(f"different {what} ({each})")
    return lines


def report_of(found: Sequence[Entry]) -> dict[str, Any]:
    """The comparison as JSON: what is common, what is not, and a row per run."""
    first = found[0].report
    common = {c: first[c] for c in CONDITIONS if all(e.report[c] == first[c] for e in found)}
    keys = ("model", "guide", "parameters", "checkpoint", "step", "pesq_unscored", "metrics", *CONDITIONS)
    rows = [{"name": e.name, "run": str(e.run), **{k: e.report.get(k) for k in keys}} for e in found]
    return {"evaluation": "compare", **common, "warnings": differences(found), "runs": rows}


def table(found: Sequence[Entry]) -> str:
    """The comparison for the terminal; the best of each column is starred."""
    from evaluation.reporting.report import text_table
    from evaluation.resynthesis.metrics import METRICS

    what = ["model", "guide", *(c for c in differing(found) if c not in ("root", "frontend"))]
    header = ["run", *what, "parameters"]
    rows = [[e.name, *(str(e.report[k]) for k in what), f"{e.report['parameters']:,}"] for e in found]
    for name, best in zip(COLUMNS, best_rows(found), strict=True):
        metric = METRICS[name]
        header.append(metric.label)
        for i, (row, entry) in enumerate(zip(rows, found, strict=True)):
            row.append(("*" if i == best else "") + entry.figure(name).text(metric.decimals, metric.scale))
    return text_table(header, rows)


def picture(found: Sequence[Entry]) -> Figure:
    """The comparison as a picture."""
    from evaluation.reporting.plots import dot_table
    from evaluation.resynthesis.metrics import METRICS

    return dot_table(
        [entry.name for entry in found],
        [entry.what for entry in found],
        [(METRICS[name], [entry.figure(name) for entry in found]) for name in COLUMNS],
        best_rows(found),
        heading=heading(found),
        footnotes=differences(found),
    )


def heading(found: Sequence[Entry]) -> str:
    differ = differing(found)
    same = {c: _text(c, found[0].report[c]) for c in CONDITIONS if c not in differ}
    if "corpus" in differ or "split" in differ:
        same = {c: text for c, text in same.items() if c not in ("root", "num_sequences")}
    corpus = " ".join(part for part in (same.get("corpus", "several corpora"), Path(same.get("root", "")).name) if part)
    count = f", {same['num_sequences']} utterances" if "num_sequences" in same else ""
    rest = "".join(f", {c} {same[c]}" for c in ("mode", "latents") if c in same)
    split = f"split {same['split']}" if "split" in same else "several splits"
    return f"Resynthesis of {corpus}, {split}{count}{rest}"


def _text(condition: str, value: object) -> str:
    """A condition as it is printed, and by which two are told apart."""
    if condition == "root" and value is not None:
        return str(Path(str(value)).resolve())
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "" if value is None else str(value)
