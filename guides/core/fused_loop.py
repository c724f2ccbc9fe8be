"""All frames of a chain in one kernel on CUDA (`guides.core.kernels`), instead of several kernels in each frame.

It is used for CUDA tensors in float32 where the package triton is installed, with one set of weights for all sequences
and layers of at most `WIDEST`; otherwise, or if the environment variable DVAE_FUSED_LOOP is 0, `guides.core.chain` runs
its loop. Gradients of weights are products over all frames in either case. It has not run on a GPU yet: tests run it in
Triton's interpreter, which TRITON_INTERPRET=1 selects, and then also for tensors on the CPU.
"""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guides.core.loop_layers import Draws, Layers

__all__ = ["BLOCK", "CHUNK", "WARPS", "adjoint", "applies", "forward", "give_up", "padded"]

WIDEST = 512
"""The largest width of a layer whose outputs for `BLOCK` sequences fit in the registers of a program."""
BLOCK = 16
"""Sequences of a program: the smallest block of a matrix product, so that as many processors as possible work."""
CHUNK = 16
"""Number of inputs of a layer in one block product."""
WARPS = 8

_failed: list[str] = []


class Plan(NamedTuple):
    """Where the flat tensors of a kernel hold what belongs to each layer.

    Attributes:
        sizes: sizes from z (L) to the last layer (2L).
        padded: the same as powers of two.
        weights: offset of each layer's weights.
        biases: offset of each layer's bias.
        outs: offset of each layer's outputs within a frame, and their number.
    """

    sizes: tuple[int, ...]
    padded: tuple[int, ...]
    weights: tuple[int, ...]
    biases: tuple[int, ...]
    outs: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Sequence[int], at: int) -> Plan:
        """The plan of layers of these sizes, of which layer `at` has a bias of its own for each frame."""
        outs = sizes[1:]
        numbers = [m * n for m, n in zip(sizes, outs, strict=False)]
        biases = [0 if i == at else n for i, n in enumerate(outs)]
        offsets = (tuple(accumulate(counts, initial=0)) for counts in (numbers, biases, outs))
        return cls(tuple(sizes), tuple(map(padded, sizes)), *offsets)


def forward(layers: Layers, draws: Draws, at: int) -> bool:
    """Compute the outputs of layers and the draws of all frames; returns False, without a result, if the loop must run.

    Args:
        layers: the chain, from z to mean and log-variance.
        draws: the draws.
        at: the layer whose bias varies over frames.
    """
    noise = draws.noise
    if not applies(noise, layers.weights):
        return False
    sizes = [noise.shape[-1], *(weight.shape[0] for weight in layers.weights)]
    outs = noise.new_empty(*noise.shape[:2], sum(sizes[1:]))
    weights = torch.cat([weight.flatten() for weight in layers.run_weights])
    constant = [bias for i, bias in enumerate(layers.run_biases) if i != at]
    biases = torch.cat(constant) if constant else weights[:0]
    try:
        _forward(noise, layers.run_biases[at], weights, biases, outs, draws.z, draws.sigma, sizes, at)
    except Exception as error:  # a GPU or a version of triton that does not compile it
        return give_up(error)
    layers.outs = list(outs.split(sizes[1:], dim=-1))
    layers.fused = outs
    return True


def adjoint(layers: Layers) -> bool:
    """Compute the gradients before each layer's tanh, `layers.deltas`; returns False if the loop must be used."""
    outs: Tensor | None = layers.fused
    if outs is None:
        return False
    deltas = torch.empty_like(outs)
    sizes = [layers.weights[0].shape[1], *(weight.shape[0] for weight in layers.weights)]
    weights = torch.cat([weight.flatten() for weight in layers.weights])
    try:
        _adjoint(layers.direct, layers.factors, weights, outs, deltas, sizes)
    except Exception as error:
        return give_up(error)
    layers.deltas = list(deltas.split(sizes[1:], dim=-1))
    return True


def applies(noise: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether a chain with this noise and these weights runs as one kernel."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not (noise.is_cuda or interpreted) or noise.dtype != torch.float32 or _failed:
        return False
    if os.environ.get("DVAE_FUSED_LOOP") == "0" or not _installed():
        return False
    return all(weight.dim() == 2 and max(weight.shape) <= WIDEST for weight in weights)


@functools.cache
def _installed() -> bool:
    try:
        import triton  # noqa: F401  # only whether it is installed
    except ImportError as error:
        warnings.warn(f"guides run frame by frame on the GPU, which is slower: {error}", stacklevel=2)
        return False
    return True


def padded(n: int) -> int:
    """The size of a block of a kernel that holds n values."""
    return max(16, 1 << (n - 1).bit_length())


def give_up(error: Exception) -> bool:
    """Warn that a kernel failed, and use the loops from now on; returns False."""
    _failed.append(str(error))
    first = (str(error).splitlines() or [""])[0]
    warnings.warn(f"guides run frame by frame on the GPU: {type(error).__name__}: {first}", stacklevel=2)
    return False


@torch.library.custom_op(
    "dvae_pyro::chain_forward",
    mutates_args=("outs", "z", "sigma"),
    schema="(Tensor noise, Tensor injected, Tensor weights, Tensor biases, Tensor(a!) outs, Tensor(b!) z, "
    "Tensor(c!) sigma, int[] sizes, int at) -> ()",
)
def _forward(
    noise: Tensor,
    injected: Tensor,
    weights: Tensor,
    biases: Tensor,
    outs: Tensor,
    z: Tensor,
    sigma: Tensor,
    sizes: Sequence[int],
    at: int,
) -> None:
    from guides.core import kernels

    plan, (frames, batch) = Plan.of(sizes, at), noise.shape[:2]
    launch: Any = kernels.forward[(-(-batch // BLOCK),)]
    launch(
        *(noise, injected, weights, biases, outs, z, sigma, frames, batch),
        *(*plan, at, len(sizes) - 1, BLOCK, CHUNK),
        num_warps=WARPS,
        num_stages=1,
    )


@torch.library.custom_op(
    "dvae_pyro::chain_adjoint",
    mutates_args=("deltas",),
    schema="(Tensor direct, Tensor factors, Tensor weights, Tensor outs, Tensor(a!) deltas, int[] sizes) -> ()",
)
def _adjoint(
    direct: Tensor, factors: Tensor, weights: Tensor, outs: Tensor, deltas: Tensor, sizes: Sequence[int]
) -> None:
    from guides.core import kernels

    plan, (frames, batch) = Plan.of(sizes, 0), outs.shape[:2]
    launch: Any = kernels.adjoint[(-(-batch // BLOCK),)]
    launch(
        *(direct, factors, weights, outs, deltas, frames, batch),
        *(plan.sizes, plan.padded, plan.weights, plan.outs, len(sizes) - 1, BLOCK, CHUNK),
        num_warps=WARPS,
        num_stages=1,
    )


_forward.register_fake(lambda *args: None)
_adjoint.register_fake(lambda *args: None)
