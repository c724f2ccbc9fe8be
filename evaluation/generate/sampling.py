"""What commands that sample from a model share: their arguments, the length of a sound, batches of samples."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dvae_pyro.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from corpora.frontends.stft import Stft
    from inference.runs import Run

__all__ = ["add_sampling_arguments", "as_power", "num_frames", "sampled", "sound_frontend"]


def add_sampling_arguments(parser: argparse.ArgumentParser, num: int, num_help: str) -> None:
    """The arguments of commands that generate: how many, how long, from what, in which batches."""
    parser.add_argument("--num", type=int, default=num, metavar="N", help=f"{num_help} (default: %(default)s)")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each is (default: 1.6)")
    parser.add_argument(
        "--x",
        choices=["mean", "sample"],
        help="data are the mean of each conditional or a sample of it, and so is the past that the model sees "
        "(default: mean for sounds, sample for other data)",
    )
    parser.add_argument("--batch", type=int, default=256, metavar="B", help="sequences at once (default: %(default)s)")
    parser.add_argument(
        "--iterations", type=int, default=32, metavar="I", help="of Griffin and Lim's algorithm (default: %(default)s)"
    )


def sound_frontend(run: Run) -> Stft | None:
    """The front end of a run whose data lead back to sounds; None for other data."""
    from corpora.frontends.registry import open_frontend
    from corpora.frontends.stft import Stft

    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    return frontend if isinstance(frontend, Stft) else None


def num_frames(frontend: Stft, seconds: float | None) -> int:
    """T, the frames of a sound of so many seconds; its (T - 1) * hop samples are at most one hop shorter."""
    frames = 1 + round((1.6 if seconds is None else seconds) * frontend.rate) // frontend.hop
    if frames < 2:
        raise UserError(f"--seconds {seconds}: expected one hop or more, {frontend.hop / frontend.rate:g} s.")
    return frames


def sampled(run: Run, num: int, frames: int, x: str, batch: int) -> Iterator[Tensor]:
    """Frames (N, T, D) that a run's model makes up, batch after batch, with the run's seed."""
    from inference.prediction.generation import generated_batches

    for made in generated_batches(run.model, num, frames, x=x, batch=batch, seed=run.settings.seed):
        yield made.x.transpose(0, 1)


def as_power(frontend: Stft, data: Tensor) -> Tensor:
    """The power spectra (N, T, F) that data (N, T, D) are features of."""
    import numpy as np
    import torch

    power = np.stack([frontend.power(frames) for frames in data.cpu().numpy()])
    return torch.from_numpy(power).to(data)
