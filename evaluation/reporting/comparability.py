"""Which runs and which reports are of the same data, so that their figures can be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    from inference.settings.tree import Settings

__all__ = [
    "DATA_KEYS",
    "DATA_WARNINGS",
    "SEQUENCE_SETTINGS",
    "check_same_data",
    "different_data",
    "different_keys",
    "run_names",
]

SOUND_SETTINGS = ("corpus", "root", "subset", "seed", "frontend", "rate", "window", "hop", "trim_db")
SEQUENCE_SETTINGS = ("conditions", "sequence_frames", "short_utterances")
"""Settings of the data that decide which frames, and which sequences, a model is evaluated on."""

DATA_WARNINGS = {
    "corpus": "corpora, so no figure can be compared",
    "root": "roots: figures can be compared only if both contain the same files",
    "split": "splits, so no figure can be compared",
    "data_seed": "seeds of the data, so the utterances may differ",
    "num_sequences": "numbers of utterances, so no figure can be compared",
}
"""Keys of a report that say which data its figures are of, with the end of the warning where two reports differ."""
DATA_KEYS = tuple(DATA_WARNINGS)


def different_keys(report: Mapping[str, Any], other: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Those of these keys in which two reports differ.

    Example:
        >>> different_keys({"split": "test", "seed": 0}, {"split": "valid", "seed": 0}, ["split", "seed"])
        ['split']
    """
    return [key for key in keys if report.get(key) != other.get(key)]


def different_data(settings: Settings, other: Settings, ignored: Collection[str] = ()) -> list[str]:
    """Settings, by dotted key, in which the data of two runs differ.

    Args:
        settings: Settings of a run.
        other: Settings of another run.
        ignored: Settings of the data that may differ.
    """
    keys = [key for key in (*SOUND_SETTINGS, *SEQUENCE_SETTINGS) if key not in ignored]
    found = [f"data.{key}" for key in keys if getattr(settings.data, key) != getattr(other.data, key)]
    return [*found, *(["model.bins"] if settings.model.bins != other.model.bins else [])]


def check_same_data(runs: Mapping[Path, Settings], ignored: Collection[str] = ()) -> None:
    """Refuse runs whose data differ.

    Args:
        runs: Settings of the runs, by run folder.
        ignored: Settings of the data that may differ.

    Raises:
        UserError: Two runs differ in a setting of the data or in ``model.bins``.
    """
    (first, settings), *others = runs.items()
    for path, other in others:
        if different := different_data(settings, other, ignored):
            raise UserError(
                f"{path} and {first} differ in {', '.join(different)}, so they are not evaluated on the same data.\n"
                "Give --corpus and --root, or data.KEY=VALUE, for all runs, or evaluate the runs one by one."
            )


def run_names(runs: Sequence[Path]) -> list[str]:
    """Distinct names of runs: the name of each folder, with as many parent folders as are needed to distinguish them.

    A report in a run folder is named with the folder, such as "vrnn/resynthesis.test.gen".

    Raises:
        UserError: A run is given twice.
    """
    paths = [(run.resolve().with_suffix("") if run.is_file() else run.resolve()).parts for run in runs]
    least = [2 if (run.parent / "config.yaml").is_file() and run.is_file() else 1 for run in runs]
    for length in range(1, max(len(p) for p in paths) + 1):
        names = ["/".join(p[-max(length, few) :]) for p, few in zip(paths, least, strict=True)]
        if len(set(names)) == len(names):
            return names
    twice = next(run for i, run in enumerate(runs) if run.resolve() in [other.resolve() for other in runs[:i]])
    raise UserError(f"{twice} is given twice. Give each run once.")
