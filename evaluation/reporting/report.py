"""Reports of evaluations: X.json, X.csv, and tables for the terminal."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dvae_pyro.errors import UserError
from dvae_pyro.files import write_atomically

__all__ = [
    "CsvRow",
    "Results",
    "Summary",
    "csv_text",
    "data_text",
    "mode_text",
    "model_text",
    "ratio",
    "read_json",
    "summarise",
    "text_table",
    "write_csv",
    "write_json",
]

CsvRow = dict[str, str | int | float]


class Results(NamedTuple):
    """The report X.json of an evaluation, and the rows of X.csv."""

    report: dict[str, Any]
    rows: list[CsvRow]


class Summary(NamedTuple):
    """Mean and standard error of `n` finite values; the mean is None for no value, the error for fewer than two."""

    mean: float | None
    stderr: float | None
    n: int

    def text(self, decimals: int, scale: float = 1.0) -> str:
        """The mean and its standard error.

        Example:
            >>> Summary(0.0512, 0.0031, 40).text(2, scale=100.0)
            '5.12 ±0.31'
            >>> Summary(None, None, 0).text(2)
            'none'
        """
        if self.mean is None:
            return "none"
        mean = f"{self.mean * scale:.{decimals}f}"
        return mean if self.stderr is None else f"{mean} ±{self.stderr * scale:.{decimals}f}"


def summarise(values: Iterable[float]) -> Summary:
    r"""Mean and standard error :math:`\sqrt{\sum_i (v_i - \bar v)^2 / (n - 1)} / \sqrt n` over the finite
    values. Values that are not finite are left out; the caller reports them.

    Example:
        >>> summarise([1.0, 3.0, float("nan")])
        Summary(mean=2.0, stderr=1.0, n=2)
        >>> summarise([5.0])
        Summary(mean=5.0, stderr=None, n=1)
    """
    finite = [v for v in values if math.isfinite(v)]
    n = len(finite)
    if n == 0:
        return Summary(None, None, 0)
    mean = math.fsum(finite) / n
    if n == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / (n - 1) / n), n)


def ratio(parts: Sequence[tuple[float, float]]) -> Summary:
    r"""Ratio of totals :math:`r = \sum_u e_u / \sum_u n_u` over U independent units, with its standard error
    :math:`\sqrt{U / (U - 1) \sum_u (e_u - r n_u)^2} / \sum_u n_u` (linearised).

    Args:
        parts: (count e_u, size n_u) of each unit.

    Example:
        >>> ratio([(0, 2), (1, 2)])
        Summary(mean=0.25, stderr=0.25, n=2)
    """
    total = math.fsum(size for _, size in parts)
    mean = math.fsum(count for count, _ in parts) / total
    if len(parts) < 2:
        return Summary(mean, None, len(parts))
    spread = math.fsum((count - mean * size) ** 2 for count, size in parts)
    return Summary(mean, math.sqrt(spread * len(parts) / (len(parts) - 1)) / total, len(parts))


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write strict JSON (no NaN) atomically."""
    write_atomically(path, (json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, str | int | float]]) -> None:
    """Write rows under these columns atomically; undefined figures are ``nan``."""
    write_atomically(path, csv_text(columns, rows).encode())


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows under these columns as CSV."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """Read a report.

    Args:
        path: the file.
        remedy: how to make it, for the message when it is missing or broken.

    Raises:
        UserError: the file is missing, or is not a JSON object.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist. {remedy}")
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}). {remedy}") from error
    if not isinstance(report, dict):
        raise UserError(f"{path} is not a report: expected a JSON object, got a {type(report).__name__}. {remedy}")
    return report


def model_text(report: Mapping[str, Any]) -> str:
    """Model, guide, number of parameters and checkpoint of a report, in one line."""
    return (
        f"{report['model']} (guide {report['guide']}, {report['parameters']:,} parameters), "
        f"{report['checkpoint']} at step {report['step']}"
    )


def mode_text(report: Mapping[str, Any]) -> str:
    """ ", mode gt" or ", mode gen" for an autoregressive model; the decoders of others are given no past frames.

    Example:
        >>> mode_text({"mode": "gt", "autoregressive": True}), mode_text({"mode": "gt", "autoregressive": False})
        (', mode gt', '')
    """
    return f", mode {report['mode']}" if report.get("autoregressive") else ""


def data_text(report: Mapping[str, Any]) -> str:
    """Corpus, its folder and the split of a report."""
    return " ".join(str(report[key]) for key in ("corpus", "root") if report[key]) + f", split {report['split']}"


def text_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table for the terminal: the first column aligned to the left, the others to the right.

    Example:
        >>> print(text_table(["run", "STOI"], [["runs/a", "0.9"], ["b", "0.95"]]))
        run     STOI
        ------  ----
        runs/a   0.9
        b       0.95
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    cells = [
        [line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)]] for line in lines
    ]
    return "\n".join("  ".join(line).rstrip() for line in cells)
