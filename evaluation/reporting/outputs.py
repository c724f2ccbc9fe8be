"""The files of a report: their names, what may replace them, and their writing.

The evaluation of a run with its own defaults (its corpus, split test, its mode and latents, best.pt or else last.pt)
writes ``X.json`` and ``X.csv``. Any other one has what it is of in its names, ``X[.CORPUS].SPLIT[.MODE][.LATENTS]
[.CHECKPOINT].json``, such as ``resynthesis.test.gen.json``: corpus, latents and checkpoint where they are not the
run's. A report is replaced by the same command only, or with ``--force``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dvae_pyro.errors import UserError
from evaluation.reporting.command_line import Request
from evaluation.reporting.report import read_json, write_csv, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from inference.settings.tree import DataSettings, Settings

__all__ = ["Outputs", "find_reports", "outputs_of"]


class Outputs(NamedTuple):
    """Where an evaluation writes, and what its report is of.

    Attributes:
        folder: the folder of the report.
        stem: the name of the report without suffix.
        request: the command line.
        key: corpus, root, split, mode, latents and checkpoint, those that the evaluation depends on.
    """

    folder: Path
    stem: str
    request: Request
    key: Mapping[str, str | None] = {}

    @property
    def json(self) -> Path:
        """The report."""
        return self.folder / f"{self.stem}.json"

    @property
    def csv(self) -> Path:
        """Its rows."""
        return self.folder / f"{self.stem}.csv"

    @property
    def picture(self) -> Path:
        """Its picture."""
        return self.folder / f"{self.stem}.png"

    def beside(self, name: str) -> Path:
        """A folder or file with a name of its own beside the report, such as ``audio``, or ``audio.test.gen``."""
        first, dot, suffix = name.partition(".")
        _, _, key = self.stem.partition(".")
        return self.folder / (first + (f".{key}" if key else "") + dot + suffix)

    def refuse_overwriting(self) -> None:
        """Refuse to replace the report of another command.

        Raises:
            UserError: with what differs, unless ``--force`` is given.
        """
        earlier = self.earlier()
        if earlier is not None and not self.request.force and (differ := self.differences(earlier)):
            raise UserError(
                f"{self.json} is the report of another command: {', '.join(differ)} differ. Nothing was computed.\n"
                "Add --force to replace it, or move it first."
            )

    def earlier(self) -> dict[str, Any] | None:
        """The report that is there; None where there is none that can be read."""
        try:
            return read_json(self.json, "")
        except UserError:
            return None

    def differences(self, earlier: Mapping[str, Any]) -> list[str]:
        """What an earlier report is of that this one is not, and the options of its command that differ.

        A report of an earlier version, which has no options, differs in what it is of and in its settings alone.
        """
        differ = [name for name, value in self.key.items() if name in earlier and not _same(earlier[name], value)]
        before, now = earlier.get("arguments"), self.request.arguments
        if before is None or now is None:
            settings = list(self.request.overrides)
            return differ + (["settings"] if earlier.get("overrides", settings) != settings else [])
        options = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        return differ + ["settings" if name == "overrides" else f"--{name.replace('_', '-')}" for name in options]

    def write(
        self,
        report: Mapping[str, Any],
        columns: Sequence[str] = (),
        rows: Iterable[Mapping[str, str | int | float]] | None = None,
    ) -> None:
        """Write the report and its rows, and copies of them where ``--json`` and ``--csv`` name files."""
        command = {"command": self.request.command, "arguments": self.request.arguments}
        known = {} if self.request.arguments is None else command
        for path in (self.json, self.request.json):
            if path is not None:
                write_json(path, {**report, **known})
        if rows is not None:
            kept = list(rows)
            for path in (self.csv, self.request.csv):
                if path is not None:
                    write_csv(path, columns, kept)

    def draw(self, figure: Figure) -> None:
        """Save the picture of the report, and a copy of it where ``--picture`` names a file."""
        from evaluation.reporting.plots import save_picture  # imports matplotlib

        for path in (self.picture, self.request.picture):
            if path is not None:
                save_picture(figure, path)

    def names(self, *suffixes: str) -> str:
        """The files, for the message at the end: ``runs/a/X.json and X.csv``."""
        others = [f"{self.stem}.{suffix}" for suffix in suffixes]
        return " and ".join([", ".join([str(self.json), *others[:-1]]), *others[-1:]]) if others else str(self.json)


def outputs_of(
    evaluation: str, request: Request, settings: Settings, *, folder: Path | None = None, merges: bool = False
) -> Outputs:
    """Where the evaluation of a run writes its report.

    Args:
        evaluation: its name.
        request: the command line.
        settings: the settings of the run with the overrides of the request.
        folder: the folder of the report; None is that of the run.
        merges: the evaluation adds to an earlier report, and checks itself what it would replace.

    Raises:
        UserError: there is the report of another command, and no ``--force``.
    """
    stem, key = _named(evaluation, request, settings)
    outputs = Outputs(folder or request.run, stem, request, key)
    if not merges:
        outputs.refuse_overwriting()
    return outputs


def find_reports(run: Path, evaluation: str) -> list[Path]:
    """The reports of an evaluation in a run folder, that with the run's own defaults first."""
    return sorted(
        [*run.glob(f"{evaluation}.json"), *run.glob(f"{evaluation}.*.json")],
        key=lambda path: (len(path.name), path.name),
    )


def _named(evaluation: str, request: Request, settings: Settings) -> tuple[str, dict[str, str | None]]:
    """The name of a report without suffix, and what the report is of."""
    from inference.runs import find_checkpoint  # imports torch
    from inference.settings.resolve import load_run_settings

    own = load_run_settings(request.run)
    chosen = {
        name: (getattr(request, name) or getattr(settings.evaluation, name), getattr(own.evaluation, name))
        for name in ("mode", "latents")
        if name not in request.without
    }
    key: dict[str, str | None] = {name: now for name, (now, _) in chosen.items()}
    corpus = split = ""
    if "corpus" not in request.without:
        key |= {"corpus": settings.data.corpus, "root": settings.data.root}
        corpus = _other_corpus(request.run / f"{evaluation}.json", settings.data, own.data)
    if "split" not in request.without:
        key["split"] = split = request.split
    checkpoint = ""
    if request.checkpoint is not None:
        path, usual = (find_checkpoint(request.run, file) for file in (request.checkpoint, None))
        checkpoint = "" if path.resolve() == usual.resolve() else path.stem
        key["checkpoint"] = path.name if path.parent == request.run else str(path)
    usual_mode = all(now == trained for now, trained in chosen.values())
    if not (corpus or checkpoint) and split in ("", "test") and usual_mode:
        return evaluation, key
    parts = [evaluation, corpus, split, *(now for name, (now, _) in chosen.items() if name == "mode")]
    parts += [now for name, (now, trained) in chosen.items() if name == "latents" and now != trained]
    return ".".join(part for part in [*parts, checkpoint] if part), key


def _other_corpus(report: Path, data: DataSettings, own: DataSettings) -> str:
    """A name of the corpus, its folder and its subset; empty where they are the run's own.

    A run that was never trained here (a published checkpoint, a shared run) has no corpus of its own: the first one
    that it is evaluated on gets the plain names.
    """
    same = data.corpus == own.corpus and _same(data.root, own.root) and data.subset == own.subset
    log = report.parent / "metrics.jsonl"
    if not same and (not log.is_file() or log.stat().st_size == 0):
        try:
            earlier = read_json(report, "")
        except UserError:
            return ""
        same = earlier.get("corpus") == data.corpus and _same(earlier.get("root"), data.root)
    if same:
        return ""
    root = "" if data.root is None or _same(data.root, own.root) else Path(data.root).resolve().name
    subset = "" if data.subset == own.subset else data.subset or ""
    return re.sub(r"[^\w-]+", "-", "-".join(part for part in (data.corpus, root, subset) if part))


def _same(path: str | None, other: str | None) -> bool:
    """Whether two values are equal, or two names of one folder."""
    if path is None or other is None or path == other:
        return path == other
    return Path(path).resolve() == Path(other).resolve()
