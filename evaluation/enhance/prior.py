"""A prior for those who have none: trained once on the built-in corpus, which is no real speech."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dvae_pyro.errors import UserError
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
    """A command line whose ``--prior default`` is the run folder of the default prior.

    Raises:
        UserError: for a prior of another name.
    """
    words = list(words)
    if "--prior" not in words:
        return words
    at = words.index("--prior")
    if words[at + 1 : at + 2] != ["default"]:
        raise UserError("--prior takes the word default alone. A run folder is given by itself: RUN --noisy PATH.")
    return [str(default_prior()), *words[:at], *words[at + 2 :]]


def default_prior(settings: Sequence[str] = SETTINGS) -> Path:
    """The run folder of a small VAE, trained where there is none yet, in the user's cache.

    Args:
        settings: of its training.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    run = cache / "dvae-pyro" / "default-prior"
    say(
        "--prior default: a VAE of the built-in synthetic voices, which are no real speech: a last resort. Train one "
        "on clean speech (python -m inference.svi --model rvae --corpus folder --root DIR --run RUN), or convert a "
        "public checkpoint (python -m inference.published)."
    )
    if not (run / "best.pt").is_file():
        say(f"training it once, into {run}; some minutes")
        words = ["--model", "vae", "--run", str(run), *settings]
        if subprocess.run([sys.executable, "-m", "inference.svi", *words]).returncode != 0:
            raise UserError(f"the default prior could not be trained. Remove {run} and try again, or give a run.")
    return run
