"""The default prior: a small VAE, trained once on the built-in corpus of synthetic speech."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.errors import UserError
from dvae_pyro.program_names import own_process
from evaluation.reporting.command_line import say

__all__ = ["default_prior", "with_prior"]

SETTINGS = (
    "model.bins=513",
    "model.z_x=[128,256]",
    "data.window=1024",
    "data.hop=256",
    "train.steps=1500",
    "train.tensorboard=false",
)


def with_prior(words: Sequence[str]) -> list[str]:
    """Replace ``--prior default`` in a command line by the run folder of the default prior.

    Raises:
        UserError: Another value than ``default``.
    """
    words = list(words)
    if "--prior" not in words:
        return words
    at = words.index("--prior")
    if words[at + 1 : at + 2] != ["default"]:
        raise UserError(
            f"--prior {' '.join(words[at + 1 : at + 2])}: expected default. Give a run folder as the first argument."
        )
    return [str(default_prior()), *words[:at], *words[at + 2 :]]


def default_prior(settings: Sequence[str] = SETTINGS) -> Path:
    """The run folder of a small VAE in the user's cache, which is trained first if it does not exist.

    Args:
        settings: settings of the training.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    run = cache / "dvae-pyro" / "default-prior"
    say(
        "--prior default is a VAE trained on the built-in synthetic voices, not on real speech. For better results "
        "train a prior on clean speech (python -m inference.svi --model rvae --corpus folder --root DIR --run RUN), or "
        "convert a public checkpoint (python -m models.published)."
    )
    if not (run / "best.pt").is_file():
        say(f"training the default prior in {run}, once; this takes some minutes")
        words = ["--model", "vae", "--run", str(run), *settings]
        command, environment = own_process("inference.svi")
        if subprocess.run([*command, *words], env=environment).returncode != 0:
            raise UserError(f"training the default prior failed. Remove {run} and try again, or give a run folder.")
    return run
