"""The evaluations of a run whose reports are missing, with the commands that write them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from dvae_pyro.program_names import own_process
from evaluation.disentanglement.pairs import sequence_latents
from evaluation.report.collect import RunFolder, rows_of
from evaluation.reporting.command_line import say
from models.registry import model_class

__all__ = ["Missing", "missing", "run_all"]


class Missing(NamedTuple):
    """An evaluation that a run has no report of.

    Attributes:
        evaluation: the X of ``python -m evaluation.X``.
        arguments: its command line after the module.
        ready: whether the arguments are complete; otherwise some are placeholders.
    """

    evaluation: str
    arguments: tuple[str, ...]
    ready: bool = True

    @property
    def command(self) -> str:
        """The command line."""
        return f"python -m evaluation.{self.evaluation} {shlex.join(self.arguments)}"


def missing(run: RunFolder) -> list[Missing]:
    """The evaluations that apply to a run and have no report yet."""
    cls, settings = model_class(run.settings.model.name), run.settings.model
    latents = cls.latents_of(settings)
    possible: list[Missing] = []

    def add(evaluation: str, *arguments: str, ready: bool = True) -> None:
        possible.append(Missing(evaluation, (str(run.path), *arguments), ready))

    if run.of_sound:
        add("resynthesis")
    if latents:
        add("likelihood", *(["--cut"] if getattr(settings, "segment", None) is not None else []))
        add("inference_gap")
    add("generate")
    if run.of_sound:
        add("frechet")
        add("predictive_checks")
    if "mu2" in latents:
        for evaluation in ("factor_grid", "traverse", "probes", "verification"):
            add(evaluation)
    if run.of_sound and sequence_latents(cls, settings):
        pair = _two_speakers(run)
        a, b = pair or ("A.wav", "B.wav")
        add("exchange", "--source", a, "--reference", b, ready=pair is not None)
    return [item for item in possible if run.report(item.evaluation) is None]


def run_all(runs: Sequence[RunFolder]) -> list[str]:
    """Run the commands of all missing reports; returns a line for each that failed."""
    failed = []
    for run in runs:
        for item in missing(run):
            if not item.ready:
                continue
            say(f"$ {item.command}")
            command, environment = own_process(f"evaluation.{item.evaluation}")
            done = subprocess.run([*command, *item.arguments], env=environment, stdout=subprocess.DEVNULL, check=False)
            if done.returncode == 130:
                raise KeyboardInterrupt
            if done.returncode != 0:
                failed.append(f"{item.command}: failed with exit status {done.returncode}")
                say(failed[-1])
    return failed


def _two_speakers(run: RunFolder) -> tuple[str, str] | None:
    """Two evaluated utterances, of two speakers where there are two."""
    rows = [row for report in run.of("resynthesis") for row in rows_of(report.file).values()]
    if len(rows) < 2:
        return None
    other = next((row for row in rows if row["speaker"] != rows[0]["speaker"]), rows[1])
    return rows[0]["file"], other["file"]
