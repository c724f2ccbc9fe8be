"""Ancestral sampling: the model is run unconditioned, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from torch import Tensor

from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.handlers.noise import NumberedNoise
from models.core.grouping import SequenceIndex
from models.dvae import DVAE

__all__ = ["FEEDS", "Generated", "generate", "generated_batches"]

FEEDS = ("mean", "sample")


class Generated(NamedTuple):
    """Generated sequences.

    Attributes:
        x: data (T, N, D): the mean of each conditional, or a sample of it.
        latents: by site name (T, N, L), or (N, L) for a latent of the sequence. Latents of segments are (N * K, L), the
            K segments of a sequence one after the other.
    """

    x: Tensor
    latents: dict[str, Tensor]


@torch.no_grad()
def generated_batches(
    model: DVAE, num: int, frames: int, *, x: str = "mean", batch: int = 256, seed: int = 0
) -> Iterator[Generated]:
    r"""Sample latents from the prior and data given the latents, batch after batch.

    .. math:: w \sim p(w), \quad z_t \sim p(z_t \mid x_{1:t-1}, z_{1:t-1}, w), \quad
        x_t = E[x_t \mid x_{1:t-1}, z_{1:t}, w] \quad\text{or}\quad x_t \sim p(x_t \mid x_{1:t-1}, z_{1:t}, w)

    where x_t is given to later frames as their past. The mean of a power spectrum is the decoder's variance, which the
    DVAE papers take as the generated spectrum and feed back. A sample of a power spectrum is exponentially distributed
    with that mean: a spectrum of noise.

    A model of segments generates as many consecutive segments as T frames need; the latent that the segments of a
    sequence share, mu2, is drawn once per sequence.

    Args:
        model: the model, on the device where it is to run.
        num: number of sequences.
        frames: T, frames of each sequence.
        x: ``"mean"`` or ``"sample"``.
        batch: sequences per batch.
        seed: the seed. With x = "mean" and Gaussian latents the sequences do not depend on `batch`, up to rounding; a
            sampled x is drawn from torch's generator, batch by batch. The state of that generator is restored.

    Yields:
        The batches, in order. A free-running model can diverge: values may be infinite or NaN.

    Raises:
        ValueError: for another `x`, or numbers below 1.
    """
    if x not in FEEDS or min(num, frames, batch) < 1:
        raise ValueError(f"x='{x}', num={num}, frames={frames}, batch={batch}: expected mean or sample, and 1 or more")
    segment = frames if model.segment is None else min(frames, model.segment)
    count = -(-frames // segment)
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    for first in range(0, num, batch):
        here = min(batch, num - first)
        lengths = torch.full((here * count,), segment)
        rows = (SequenceIndex.whole(torch.arange(here).repeat_interleave(count)),) if model.hierarchical else ()
        # Far from the training data a variance can be exactly 0 in float32, which Pyro's validation would reject.
        with torch.random.fork_rng(devices=devices), pyro.validation_enabled(False), ExitStack() as handlers:
            torch.manual_seed(seed + 1_000_003 * first)
            handlers.enter_context(given_noise(NumberedNoise(seed, first, here)))
            if x == "mean":
                handlers.enter_context(mean_latents(["x"]))
            trace = poutine.trace(model).get_trace(None, lengths, "auto", *rows)
        values: dict[str, Any] = {name: trace.nodes[name]["value"] for name in ("x", *model.latents)}
        x_of_segments = model.scaling.inverse(values.pop("x")).unflatten(1, (here, count))
        yield Generated(x_of_segments.permute(2, 0, 1, 3).flatten(0, 1)[:frames], values)


def generate(
    model: DVAE, num: int, frames: int, *, x: str = "mean", batch: int = 256, seed: int = 0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Sample sequences: x (T, N, D) and the latents by site name; see `generated_batches`."""
    batches = list(generated_batches(model, num, frames, x=x, batch=batch, seed=seed))
    latents = {name: torch.cat([each.latents[name] for each in batches], dim=-2) for name in batches[0].latents}
    return torch.cat([each.x for each in batches], dim=-2), latents
