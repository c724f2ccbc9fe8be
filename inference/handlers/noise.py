"""Random numbers that do not depend on batching or the number of processes: per sequence, and per whole batch."""

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
    r"""Draw Gaussian latents, z = mean + standard deviation * epsilon, with a generator for each sequence and site.

    Epsilon is drawn particle after particle, (T, L) each. The draws of a sequence therefore do not depend on the number
    of particles per run, the other sequences of the batch or the interpreter of the time axis. Entering the handler
    again continues with the next particles. Latents that are not Gaussian are drawn as usual.

    Args:
        lengths: frames of each sequence (N,).
        seeds: a seed for each sequence; by default drawn from torch's generator.

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
        """The generator of each sequence for site `name`, always on the CPU, so that all devices get the same draws."""
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
        """Noise for all frames of a site, (..., T, N, L), zero in padded ones; for a site outside time, in its shape.

        It is drawn on the CPU and copied once: on a GPU, the N K draws would need as many kernel launches.
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
    """Draw random numbers for a whole batch, and use those of this process's sequences.

    Processes that share a batch, and whose generators have the same state, then draw the same numbers as a single
    process with the whole batch. Randomness inside networks, such as dropout, is not synchronised.

    Args:
        places: indices of this process's sequences in the whole batch.
        sequences: sequences of the whole batch.
        frames: frames of its longest sequence, to which all are padded.

    Raises:
        UserError: for a latent that is not Gaussian.
    """

    def __init__(self, places: Sequence[int], sequences: int, frames: int) -> None:
        super().__init__()
        self.places, self.sequences, self.frames = list(places), sequences, frames

    def _pyro_longest(self, msg: Any) -> None:
        if not msg["done"]:  # an inner handler may have set a value with further padding
            msg["value"], msg["done"] = self.frames, True

    def _pyro_draw(self, msg: Any) -> None:
        name, distribution, _ = msg["args"]
        base = getattr(distribution, "base_dist", distribution)
        if isinstance(base, dist.Delta):
            return
        if not isinstance(base, dist.Normal):
            raise UserError(
                f"'{name}' is drawn from a {type(base).__name__}: several processes synchronise draws of Gaussian "
                "latents only. Train in one process."
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
