"""Comparison of resynthesis reports: which figures are comparable, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dvae_pyro.command_line import nearest_path
from dvae_pyro.errors import UserError
from evaluation.reporting.comparability import DATA_WARNINGS, different_keys, run_names
from evaluation.reporting.outputs import find_reports
from evaluation.reporting.report import Summary, mode_text, read_json, text_table
from evaluation.resynthesis.metrics import METRICS

__all__ = [
    "COLUMNS",
    "Entry",
    "best_rows",
    "differences",
    "differing",
    "entries",
    "heading",
    "refuse_mixed_modes",
    "report_of",
    "table",
]

COLUMNS = ("rmse_scaled", "si_sdr", "pesq_wb", "pesq_nb", "stoi", "estoi", "is_per_frame", "kl_per_frame")


CONDITIONS = {
    **DATA_WARNINGS,
    "mode": "modes: in gt the decoder is given the true past, in gen its own output",
    "latents": "latents: means resynthesise better than samples",
    "frontend": "front ends: IS and KL per frame cannot be compared",
}
"""Keys that must agree for figures to be comparable, with the end of the warning where they do not."""

FRAME_FIGURES = ("is_per_frame", "kl_per_frame")


class Entry(NamedTuple):
    """A row of the comparison.

    Attributes:
        name: name of the run.
        run: its folder.
        report: its report of resynthesis.
        file: the file of the report.
    """

    name: str
    run: Path
    report: dict[str, Any]
    file: Path

    def figure(self, name: str) -> Summary:
        """A figure of the report; empty if the report is of an older version without it."""
        values = self.report["metrics"].get(name, {})
        return Summary(values.get("mean"), values.get("stderr"), values.get("n", 0))

    @property
    def description(self) -> str:
        """Model, guide, parameters, and the mode of an autoregressive model."""
        model = f"{self.report['model']}, guide {self.report['guide']}, {self.report['parameters']:,} parameters"
        return model + mode_text(self.report)


def entries(runs: Sequence[Path], *, split: str | None = None, mode: str | None = None) -> list[Entry]:
    """Read the report of each run.

    Args:
        runs: run folders, or reports of ``evaluation.resynthesis``.
        split: the split of the reports; None is that of the run's own defaults.
        mode: their mode; None is the same.

    Raises:
        UserError: a run has no report, or its report lacks a key.
    """
    rows = []
    for name, run in zip(run_names(runs), runs, strict=True):
        if not run.exists():
            raise UserError(f"No run folder at {run}.{nearest_path(run)}")
        file = run if run.is_file() else _report(run, {"split": split, "mode": mode})
        made_by = run if run.is_dir() else f"RUN --json {run}"
        remedy = f"Make it with: python -m evaluation.resynthesis {made_by}"
        report = read_json(file, remedy)
        missing = [k for k in ("run", "metrics", "model", "guide", "parameters", *CONDITIONS) if k not in report]
        if missing:
            raise UserError(f"{file} is not a report of resynthesis: it lacks {', '.join(missing)}. {remedy}")
        inside = (file.parent / "config.yaml").is_file()  # also of a run folder that was moved since
        rows.append(Entry(name, file.parent if inside else Path(report["run"]), report, file))
    return rows


def _report(run: Path, wanted: Mapping[str, str | None]) -> Path:
    """The report in a run folder that has these values: that with the run's own defaults, or else the only one.

    Raises:
        UserError: there is no such report, or there are several.
    """
    own = run / "resynthesis.json"
    asked = {key: value for key, value in wanted.items() if value is not None}
    found = find_reports(run, "resynthesis")
    fitting = [path for path in found if _fits(read_json(path, "Remove it."), asked)]
    if own in fitting or not found:
        return own
    if len(fitting) == 1:
        return fitting[0]
    options = "".join(f" --{key} {value}" for key, value in asked.items())
    if not fitting:
        raise UserError(f"{run} has no such report. Make it with: python -m evaluation.resynthesis {run}{options}")
    names = ", ".join(path.name for path in fitting)
    raise UserError(f"{run} has several reports of resynthesis: {names}. Give --split and --mode, or one of the files.")


def _fits(report: dict[str, Any], asked: Mapping[str, str]) -> bool:
    """Whether a report has the values asked for; a model that is given no past frames has no modes."""
    keys = {key: value for key, value in asked.items() if key != "mode" or report.get("autoregressive", True)}
    return not different_keys(keys, report, keys)


def refuse_mixed_modes(runs: Sequence[Entry]) -> None:
    """Refuse runs of models with autoregression that were evaluated in different modes.

    Raises:
        UserError: with the modes of the runs.
    """
    if "mode" in differing(runs):
        modes = ", ".join(f"{entry.name}: {entry.report['mode']}" for entry in _concerned(runs, "mode"))
        raise UserError(
            f"the runs were evaluated in different modes ({modes}): in gt the decoder is given the true past, in gen "
            "its own output.\nGive --mode gt or --mode gen to compare reports of one mode, or --mix-modes."
        )


def best_rows(runs: Sequence[Entry]) -> list[int | None]:
    """The best row of each column; None where no row is best or the figures are not comparable."""
    differ = differing(runs)
    best: list[int | None] = []
    for name in COLUMNS:
        figures = [entry.figure(name) for entry in runs]
        known = [(figure.mean, i) for i, figure in enumerate(figures) if figure.mean is not None]
        better = METRICS[name].better
        comparable = not differ or (differ == ["frontend"] and name not in FRAME_FIGURES and _same_sounds(runs))
        choose = max if better == "higher" else min
        best.append(choose(known)[1] if better and comparable and len(known) > 1 else None)
    return best


def differing(runs: Sequence[Entry]) -> list[str]:
    """Those of `CONDITIONS` in which the runs differ."""
    differ = [c for c in CONDITIONS if len({_text(c, e.report[c]) for e in _concerned(runs, c)}) > 1]
    # Different corpora have different roots and sizes: one warning is enough.
    implied = {"corpus": ("root", "num_sequences"), "split": ("num_sequences",)}
    return [c for c in differ if not any(c in implied.get(cause, ()) for cause in differ)]


def _concerned(runs: Sequence[Entry], condition: str) -> list[Entry]:
    """The runs that a condition applies to: the mode has no effect on a model without autoregression."""
    return [e for e in runs if condition != "mode" or e.report.get("autoregressive", True)]


def _same_sounds(runs: Sequence[Entry]) -> bool:
    """Whether the references are the same although the front ends differ: equal rate and trimming."""
    return len({(e.report["frontend"].get("rate"), e.report["frontend"].get("trim_db")) for e in runs}) == 1


def differences(runs: Sequence[Entry]) -> list[str]:
    """One warning for each condition in which the runs differ; empty if all figures are comparable."""
    lines = []
    for condition in differing(runs):
        values: dict[str, list[str]] = {}
        for entry in _concerned(runs, condition):
            values.setdefault(_text(condition, entry.report[condition]), []).append(entry.name)
        each = "; ".join(f"{value}: {', '.join(names)}" for value, names in values.items())
        what = CONDITIONS[condition]
        if condition == "frontend" and not _same_sounds(runs):
            what = "front ends, which resample or trim differently, so no figure can be compared"
        lines.append(f"different {what} ({each})")
    return lines


def report_of(runs: Sequence[Entry]) -> dict[str, Any]:
    """The comparison as JSON: common conditions, warnings, and a row for each run."""
    first = runs[0].report
    common = {c: first[c] for c in CONDITIONS if all(e.report[c] == first[c] for e in runs)}
    keys = ("model", "guide", "parameters", "checkpoint", "step", "pesq_unscored", "metrics", *CONDITIONS)
    rows = [{"name": e.name, "run": str(e.run), **{k: e.report.get(k) for k in keys}} for e in runs]
    return {"evaluation": "compare", **common, "warnings": differences(runs), "runs": rows}


def table(runs: Sequence[Entry]) -> str:
    """The comparison for the terminal; * marks the best of each column."""
    what = ["model", "guide", *(c for c in differing(runs) if c not in ("root", "frontend"))]
    header = ["run", *what, "parameters"]
    rows = [[e.name, *(str(e.report[k]) for k in what), f"{e.report['parameters']:,}"] for e in runs]
    for name, best in zip(COLUMNS, best_rows(runs), strict=True):
        metric = METRICS[name]
        header.append(metric.label)
        for i, (row, entry) in enumerate(zip(rows, runs, strict=True)):
            row.append(("*" if i == best else "") + entry.figure(name).text(metric.decimals, metric.scale))
    return text_table(header, rows)


def heading(runs: Sequence[Entry]) -> str:
    """The conditions that the runs have in common, in one line."""
    differ = differing(runs)
    same = {c: _text(c, runs[0].report[c]) for c in CONDITIONS if c not in differ}
    if "corpus" in differ or "split" in differ:
        same = {c: text for c, text in same.items() if c not in ("root", "num_sequences")}
    corpus = " ".join(part for part in (same.get("corpus", "several corpora"), Path(same.get("root", "")).name) if part)
    count = f", {same['num_sequences']} utterances" if "num_sequences" in same else ""
    rest = "".join(f", {c} {same[c]}" for c in ("mode", "latents") if c in same)
    split = f"split {same['split']}" if "split" in same else "several splits"
    return f"Resynthesis of {corpus}, {split}{count}{rest}"


def _text(condition: str, value: object) -> str:
    """The value of a condition, as it is printed and compared."""
    if condition == "root" and value is not None:
        return str(Path(str(value)).resolve())
    if isinstance(value, dict):
        return ", ".join(f"{k} {v}" for k, v in value.items())
    return "" if value is None else str(value)
