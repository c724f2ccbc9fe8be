"""Sources of noise for `inference.handlers.given_noise`: given, by sequence, by number, or of a whole batch.

None depends on how sequences are batched or on the number of processes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dvae_pyro.errors import UserError

__all__ = ["BatchNoise", "Given", "Noise", "NumberedNoise", "Seed", "SequenceNoise"]

Seed = int | str


class Noise:
    """A source of noise; this one has none, so everything is drawn as usual."""

    def begin(self) -> None:
        """Start a run of the program."""

    def normal(self, name: str, distribution: Any, axis: Any) -> Tensor | None:
        """Standard normal noise in the shape of the distribution of site `name`, in the frames of `axis` (None: outside
        time). None: the site is drawn as usual.
        """
        return None

    def uniform(self, frames: int, sequences: int, device: torch.device) -> Tensor | None:
        """Uniform numbers for other random decisions, (T, N, 1). None: they are drawn as usual."""
        return None

    def refuse(self, name: str, distribution: Any) -> None:
        """Called for a latent that is not Gaussian. Without an error it is drawn as usual."""


class AllFrames(Noise):
    """Noise that is made for all frames of a site at its first draw, and cut into frames where these are drawn singly.

    The noise of a sequence then does not depend on the interpreter of the time axis.
    """

    def __init__(self) -> None:
        self._made: dict[str, Tensor | None] = {}

    def begin(self) -> None:
        self._made.clear()

    def normal(self, name: str, distribution: Any, axis: Any) -> Tensor | None:
        if name not in self._made:
            shape = list(distribution.batch_shape + distribution.event_shape)
            if axis is not None:
                shape[-3] = axis.sites.frames
            self._made[name] = self.make(name, shape, distribution.mean, None if axis is None else axis.sites.lengths)
        noise = self._made[name]
        return noise if noise is None or axis is None else noise[..., axis.start : axis.stop, :, :]

    def make(self, name: str, shape: Sequence[int], like: Tensor, lengths: Tensor | None) -> Tensor | None:
        """Noise for all frames of a site.

        Args:
            name: the site.
            shape: (..., T, N, L), or (..., N, L) for a site outside time.
            like: a tensor with the dtype and device of the noise.
            lengths: frames of each sequence, (N,), at the time scale of the site; None for a site outside time.
        """
        raise NotImplementedError


class Given(AllFrames):
    """Noise that exists already, by site name."""

    def __init__(self, noise: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.noise = noise

    def make(self, name: str, shape: Sequence[int], like: Tensor, lengths: Tensor | None) -> Tensor | None:
        return self.noise.get(name)


class SequenceNoise(AllFrames):
    r"""Noise from a generator for each sequence and site, for any number of particles.

    Epsilon is drawn particle after particle, (T, L) each. The draws of a sequence therefore do not depend on the number
    of particles per run or on the other sequences of the batch. The next run continues with the next particles.

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

    def generators(self, name: str) -> list[torch.Generator]:
        """The generator of each sequence for site `name`, always on the CPU, so that all devices get the same draws."""
        if name not in self._generators:
            self._generators[name] = [_generator(f"{seed}/{name}", 4) for seed in self.seeds]
        return self._generators[name]

    def make(self, name: str, shape: Sequence[int], like: Tensor, lengths: Tensor | None) -> Tensor:
        """Zero in padded frames; drawn on the CPU and copied once, as the N K draws would need as many kernel launches
        on a GPU.
        """
        noise = torch.zeros(*shape, dtype=like.dtype)
        by_particle = noise.view(-1, *([1] * (3 - len(shape))), *shape[-3:])
        for n, generator in enumerate(self.generators(name)):
            frames = 1 if lengths is None else int(lengths[n])
            for particle in by_particle:
                particle[:frames, n] = torch.randn(frames, shape[-1], generator=generator, dtype=noise.dtype)
        return noise.to(like.device)


class NumberedNoise(AllFrames):
    """Noise of generated sequences: of sequence i and a site, from a generator seeded by both and `seed`.

    Sequence i therefore depends neither on the number of sequences nor on which ones share a batch with it.

    Args:
        seed: the seed of all sequences.
        first: number of the batch's first sequence.
        sequences: sequences in the batch; a site with more columns is one of their segments.
    """

    def __init__(self, seed: int, first: int, sequences: int) -> None:
        super().__init__()
        self.seed, self.first, self.sequences = seed, first, sequences

    def make(self, name: str, shape: Sequence[int], like: Tensor, lengths: Tensor | None) -> Tensor:
        """Drawn in float64 on the CPU."""
        *leading, columns, size = shape
        first = self.first * columns // self.sequences
        each = [
            torch.randn((*leading, size), generator=_generator(f"{self.seed}/{name}/{number}", 7), dtype=torch.float64)
            for number in range(first, first + columns)
        ]
        return torch.stack(each, dim=-2).to(like)


class BatchNoise(Noise):
    """Noise drawn for a whole batch from torch's generator, of which a process takes that of its sequences.

    Processes that share a batch, and whose generators have the same state, then draw the same numbers as a single
    process with the whole batch. Randomness inside networks, such as dropout, is not synchronised.

    Args:
        places: indices of this process's sequences in the whole batch.
        sequences: sequences of the whole batch.
    """

    def __init__(self, places: Sequence[int], sequences: int) -> None:
        self.places, self.sequences = list(places), sequences

    def normal(self, name: str, distribution: Any, axis: Any) -> Tensor:
        shape = list(distribution.batch_shape + distribution.event_shape)
        shape[-2] = self.sequences
        mean: Tensor = distribution.mean
        return mean.new_empty(shape).normal_()[..., self.places, :]

    def uniform(self, frames: int, sequences: int, device: torch.device) -> Tensor:
        return torch.rand(frames, self.sequences, 1, device=device)[:, self.places]

    def refuse(self, name: str, distribution: Any) -> None:
        raise UserError(
            f"'{name}' is drawn from a {type(distribution).__name__}: several processes synchronise draws of Gaussian "
            "latents only. Train in one process."
        )


def _generator(key: str, size: int) -> torch.Generator:
    """A generator on the CPU, seeded by the first `size` bytes of the key's hash."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:size], "big"))
