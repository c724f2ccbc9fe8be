"""Reports of ``evaluation.enhance`` side by side, priors in rows and methods in columns, for each folder of recordings.

python -m benchmarks.enhancement runs/enhanced/*/enhance.json --picture enhanced.png

A cell of the table, in Markdown, has the means of SI-SDR, ESTOI and PESQ wide, in italics where the input is better.
The picture has the change of SI-SDR in each recording and its mean: for one method it shows what the prior and
knowledge of the noise are worth, for several methods what the inference is worth.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from evaluation.reporting.comparability import run_names
from evaluation.reporting.plots import COLOURS, FAINT, INK, STRIPE, new_figure, open_axes, save_picture
from evaluation.reporting.report import read_json
from evaluation.resynthesis.metrics import METRICS
from inference.observation.settings import NoiseSettings
from inference.posterior.problem import InferenceSettings

__all__ = ["Cell", "cells", "main", "picture", "table"]

FIGURES = ("si_sdr", "estoi", "pesq_wb")
LOWEST_DB = -16.0
"""Left end of the picture's axis; changes below it are lost speech, whose size has no meaning."""


class Cell(NamedTuple):
    """The figures of one prior and one method.

    Attributes:
        recordings: the folder of noisy recordings.
        prior: name of the run.
        noise: how W is known, and settings of the noise that are not the defaults.
        method: the method, and settings of it that are not the defaults.
        means: mean of each figure.
        inputs: the same of the input.
        changes: change of SI-SDR in each recording, in dB.
    """

    recordings: str
    prior: str
    noise: str
    method: str
    means: Mapping[str, float]
    inputs: Mapping[str, float]
    changes: Sequence[float]

    def text(self) -> str:
        """The figures, those in which the input is better in italics."""
        shown = []
        for name in FIGURES:
            figure = _short(name, self.means[name])
            shown.append(f"*{figure}*" if self.means[name] < self.inputs[name] else figure)
        return " / ".join(shown)

    def input_text(self) -> str:
        """The figures of the input."""
        return " / ".join(_short(name, self.inputs[name]) for name in FIGURES)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""

    def command() -> None:
        parser = Parser("benchmarks.enhancement", "Table and picture of reports of evaluation.enhance.")
        parser.add_argument("reports", nargs="+", type=Path, metavar="REPORT", help="files enhance.json")
        parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the change of SI-SDR (png, pdf, svg)")
        args = parser.parse(argv)
        found = cells(args.reports)
        for recordings in dict.fromkeys(cell.recordings for cell in found):
            print(f"{recordings}, {' / '.join(METRICS[name].label for name in FIGURES)}\n")
            print(table([cell for cell in found if cell.recordings == recordings]) + "\n")
        if args.picture is not None:
            save_picture(picture(found), args.picture)

    return guarded(command)


def cells(reports: Sequence[Path]) -> list[Cell]:
    """The cells of reports, one for each method in each of them.

    Raises:
        UserError: a file is no report with clean recordings, or two of them have the same prior, noise and method.
    """
    remedy = "Make it with: python -m evaluation.enhance RUN --noisy PATH --clean PATH"
    read = [(file, read_json(file, remedy)) for file in reports]
    for file, report in read:
        if report.get("evaluation") != "enhance" or report.get("clean") is None:
            raise UserError(f"{file} is not a report of enhance with clean recordings. {remedy}")
    runs = [Path(report["run"]) for _, report in read]
    names = dict(zip(dict.fromkeys(runs), run_names(list(dict.fromkeys(runs))), strict=True))
    found: dict[tuple[str, ...], Cell] = {}
    for run, (file, report) in zip(runs, read, strict=True):
        changes = _changes(file.with_suffix(".csv"))
        span = report["noise"]["span"]
        noise = ["W learned" if span is None else f"W from {span} s", *_changed(report["noise"], NoiseSettings())]
        settings = _changed(report["inference"], InferenceSettings())
        for method, figures in report["methods"].items():
            cell = Cell(
                recordings=str(report["root"]),
                prior=names[run],
                noise=", ".join(noise),
                method=", ".join([method, *settings]),
                means={name: figures[name]["mean"] for name in FIGURES},
                inputs={name: figures[f"{name}_input"]["mean"] for name in FIGURES},
                changes=changes[method],
            )
            if found.setdefault(cell[:4], cell) is not cell:
                raise UserError(f"{file}: another report has {', '.join(cell[1:4])} too. Give one of the two.")
    return list(found.values())


def table(found: Sequence[Cell]) -> str:
    """A row for each prior and noise and a column for each method, in Markdown; the first row is the input."""
    methods = list(dict.fromkeys(cell.method for cell in found))
    rows = [["prior", "noise", *methods], ["---"] * (2 + len(methods))]
    rows.append(["none: the input", "", found[0].input_text(), *[""] * (len(methods) - 1)])
    for prior in dict.fromkeys(cell.prior for cell in found):
        of = [cell for cell in found if cell.prior == prior]
        for noise in dict.fromkeys(cell.noise for cell in of):
            texts = {cell.method: cell.text() for cell in of if cell.noise == noise}
            rows.append([prior, noise, *(texts.get(method, "") for method in methods)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def picture(found: Sequence[Cell]) -> Figure:
    """The change of SI-SDR in each recording, and its mean, with a panel for each folder.

    Rows are priors with their noise, and colours methods; if there is only one method, rows are priors and colours how
    the noise is known.
    """
    folders = list(dict.fromkeys(cell.recordings for cell in found))
    one_method = len({cell.method for cell in found}) == 1
    drawn = [(cell.prior if one_method else f"{cell.prior}, {cell.noise}", cell) for cell in found]
    rows = list(dict.fromkeys(row for row, _ in drawn))
    series = list(dict.fromkeys(cell.noise if one_method else cell.method for cell in found))
    height = (0.2 + 0.13 * len(series)) * len(rows)  # inches
    width = 0.6 + 0.07 * max(map(len, rows)) + 3.6 * len(folders)
    figure = new_figure(width, 1.1 + height + 0.06 * len(series), dpi=110)
    panels = figure.subplots(1, len(folders), sharey=True, squeeze=False)[0]
    for axes, folder in zip(panels, folders, strict=True):
        of = [(row, cell) for row, cell in drawn if cell.recordings == folder]
        for row, cell in of:
            place = series.index(cell.noise if one_method else cell.method)
            _draw_changes(axes, rows.index(row), place, len(series), cell.changes)
        count = len(of[0][1].changes)
        axes.set_title(f"{_folder_name(folder)}: {count} recordings", fontsize=8, loc="left", color=INK)
        for shaded in range(0, len(rows), 2):
            axes.axhspan(shaded - 0.5, shaded + 0.5, color=STRIPE, lw=0, zorder=0)
        axes.axvline(0.0, color=INK, lw=0.8)
        axes.set_xlim(left=max(LOWEST_DB, axes.get_xlim()[0]))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("change of SI-SDR, dB", fontsize=8, color=FAINT)
        open_axes(axes, "left")
    handles = [
        axes.plot([], [], "o", ms=6, color=COLOURS[k % len(COLOURS)], label=name)[0] for k, name in enumerate(series)
    ]
    title = f"{f'{found[0].method}; ' if one_method else ''}large: mean, small: a recording"
    legend = figure.legend(
        handles=handles, loc="outside lower left", ncols=5, fontsize=7, frameon=False, title=title, title_fontsize=7
    )
    legend.set_alignment("left")
    return figure


def _draw_changes(axes: Axes, row: int, place: int, places: int, changes: Sequence[float]) -> None:
    """The changes and their mean at a place of a row."""
    height, colour = row - 0.4 + 0.8 / places * (place + 0.5), COLOURS[place % len(COLOURS)]
    axes.plot(changes, [height] * len(changes), "o", ms=2.5, color=colour, alpha=0.45, mew=0)
    mean = sum(changes) / len(changes)
    if mean > LOWEST_DB:
        axes.plot([mean], [height], "o", ms=6, color=colour, mec="white", mew=0.8, zorder=3)
    else:
        axes.text(LOWEST_DB + 0.2, height, f"◂ {mean:.0f} dB", fontsize=7, color=colour, va="center")


def _changes(file: Path) -> dict[str, list[float]]:
    """Change of SI-SDR in each recording, by method."""
    if not file.is_file():
        raise UserError(f"{file}, which evaluation.enhance writes beside its report, does not exist.")
    changes: dict[str, list[float]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            changes.setdefault(row["inference"], []).append(float(row["si_sdr_difference"]))
    return changes


def _changed(given: Mapping[str, Any], default: NoiseSettings | InferenceSettings) -> list[str]:
    """Settings of a report that are not the defaults."""
    return [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in given.items()
        if key not in ("span", "seed") and value != asdict(default).get(key)
    ]


def _folder_name(folder: str) -> str:
    """The name of a folder of recordings, or of the folder of pairs that it is in."""
    path = Path(folder)
    return path.parent.name if path.name in ("noisy", "mixture") else path.name


def _short(name: str, value: float) -> str:
    text = f"{value:.2f}" if name != "estoi" else f"{value:.3f}"
    return text.replace("0.", ".", 1) if name == "estoi" else text


if __name__ == "__main__":
    sys.exit(main())
