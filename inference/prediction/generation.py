"""Ancestral sampling: the model is run unconditioned, in batches."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from models.core.grouping import SequenceIndex
from models.dvae import DVAE

__all__ = ["FEEDS", "Generated", "generate", "generated_batches", "own_noise"]

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


class own_noise(given_noise):
    """Draw the Gaussian latents of each sequence from noise of its own, independent of the batching.

    The noise of a site of sequence i comes from a generator seeded by `seed`, i and the site's name. Sequence i
    therefore depends neither on the number of sequences nor on which ones share a batch with it. Other distributions
    are drawn from torch's generator.

    Args:
        seed: the seed of all sequences.
        first: index of the batch's first sequence.
        sequences: sequences in the batch; a site with more columns is one of their segments.
    """

    def __init__(self, seed: int, first: int, sequences: int) -> None:
        super().__init__({})
        self.noise: dict[str, Tensor] = {}
        self.seed = seed
        self.first = first
        self.sequences = sequences

    def _pyro_draw(self, msg: Any) -> None:
        if msg["done"]:  # another handler has set the value, such as the mean of a Gaussian x
            return
        name, distribution, axis = msg["args"]
        if name not in self.noise and _is_gaussian(distribution):
            *leading, sequences = distribution.batch_shape
            if axis is not None:
                leading = [*leading[:-1], axis.sites.frames]
            drawn = self._draw_noise(name, (*leading, *distribution.event_shape), sequences)
            self.noise[name] = drawn.to(distribution.mean)
        super()._pyro_draw(msg)

    def _draw_noise(self, name: str, shape: tuple[int, ...], sequences: int) -> Tensor:
        """Standard normal noise (..., N, L) for a shape (..., L) of one sequence, in float64 on the CPU."""
        each = []
        first = self.first * sequences // self.sequences
        for number in range(first, first + sequences):
            digest = hashlib.sha256(f"{self.seed}/{name}/{number}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
            each.append(torch.randn(shape, generator=generator, dtype=torch.float64))
        return torch.stack(each, dim=-2)


def _is_gaussian(distribution: dist.TorchDistribution) -> bool:
    base: Any = distribution
    while isinstance(base, dist.Independent):
        base = base.base_dist
    return isinstance(base, dist.Normal)


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
            handlers.enter_context(own_noise(seed, first, here))
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
