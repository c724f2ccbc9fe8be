"""Noise that does not depend on how the work is divided: that of a sequence, and that of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor

from dvae_pyro.errors import UserError

__all__ = ["Seed", "sequence_noise", "whole_batch"]

Seed = int | str


class sequence_noise(Messenger):
    r"""Draw Gaussian latents, z = mean + standard deviation * epsilon, each sequence from random numbers of its own.

    Epsilon comes particle after particle, (T, L) each, from one generator for each sequence and site. So how many
    particles are drawn at once, which sequences share the batch, and which interpreter of the time axis runs, change
    nothing. Entered again, it goes on with the next particles. Other latents than Gaussian ones are drawn as ever.

    Args:
        lengths: frames of each sequence (N,).
        seeds: one for each sequence; by default they are drawn from torch's generator.

    Raises:
        ValueError: unless there is a seed for each sequence.
    """

    def __init__(self, lengths: Tensor, seeds: Sequence[Seed] | None = None) -> None:
        super().__init__()
        if seeds is None:
            seeds = torch.randint(2**62, (len(lengths),)).tolist()
        if len(seeds) != len(lengths):
            raise ValueError(f"{len(seeds)} seeds for {len(lengths)} sequences: expected one for each")
        self.seeds = seeds
        self._generators: dict[str, list[torch.Generator]] = {}
        self._drawn: dict[str, Tensor] = {}

    def __enter__(self) -> Any:
        self._drawn.clear()
        return super().__enter__()

    def generators(self, name: str) -> list[torch.Generator]:
        """The generator of each sequence for site `name`, on the CPU wherever the model is, for the same numbers."""
        if name not in self._generators:
            digests = [hashlib.sha256(f"{seed}/{name}".encode()).digest() for seed in self.seeds]
            self._generators[name] = [
                torch.Generator().manual_seed(int.from_bytes(digest[:4], "big")) for digest in digests
            ]
        return self._generators[name]

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, axis = msg["args"]
        if not isinstance(getattr(distribution, "base_dist", distribution), dist.Normal):
            return
        if name not in self._drawn:
            self._drawn[name] = self._draw(name, distribution, axis)
        noise = self._drawn[name]
        frames = noise if axis is None else noise[..., axis.start : axis.stop, :, :]
        msg["value"] = distribution.mean + distribution.stddev * frames
        msg["done"] = True

    def _draw(self, name: str, distribution: Any, axis: Any) -> Tensor:
        """Noise for all frames of a site, (..., T, N, L), zero in padded ones; outside time as the distribution is.

        It is drawn on the CPU and copied once: N K draws on a GPU would be as many kernels.
        """
        shape = list(distribution.batch_shape + distribution.event_shape)
        if axis is not None:
            shape[-3] = axis.sites.frames
        mean: Tensor = distribution.mean
        noise = torch.zeros(shape, dtype=mean.dtype)
        by_particle = noise.view(-1, *([1] * (3 - len(shape))), *shape[-3:])
        for n, generator in enumerate(self.generators(name)):
            frames = 1 if axis is None else int(axis.sites.lengths[n])  # of a coarser time scale its own
            for particle in by_particle:
                particle[:frames, n] = torch.randn(frames, shape[-1], generator=generator, dtype=noise.dtype)
        return noise.to(mean.device)


class whole_batch(Messenger):
    """Draw random numbers for a whole batch, and use those of the sequences that are here.

    Processes whose generators stand alike, and that share a batch, so draw what one that has all of it would draw.
    Chance inside of networks, such as dropout, is drawn as ever.

    Args:
        places: the places of these sequences in the whole batch.
        sequences: how many that has.
        frames: how many frames its longest one has, which those here are padded to.

    Raises:
        UserError: where a latent is not Gaussian.
    """

    def __init__(self, places: Sequence[int], sequences: int, frames: int) -> None:
        super().__init__()
        self.places, self.sequences, self.frames = list(places), sequences, frames

    def _pyro_longest(self, msg: Any) -> None:
        if not msg["done"]:  # one that is nearer knows of further padding
            msg["value"], msg["done"] = self.frames, True

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, _ = msg["args"]
        of = getattr(distribution, "base_dist", distribution)
        if isinstance(of, dist.Delta):
            return
        if not isinstance(of, dist.Normal):
            raise UserError(
                f"'{name}' is drawn from a {type(of).__name__}, which several processes cannot do as one would: they "
                "share the draws of Gaussian latents. Train in one process."
            )
        mean = distribution.mean
        shape = list(distribution.batch_shape + distribution.event_shape)
        shape[-2] = self.sequences
        noise = mean.new_empty(shape).normal_()
        msg["value"] = mean + distribution.stddev * noise[..., self.places, :]
        msg["done"] = True

    def _pyro_uniform(self, msg: Any) -> None:
        frames, _, device = msg["args"]
        msg["value"] = torch.rand(frames, self.sequences, 1, device=device)[:, self.places]
        msg["done"] = True
