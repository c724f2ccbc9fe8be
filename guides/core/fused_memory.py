"""All frames of a chain with an LSTM in one kernel on CUDA (`guides.core.memory_kernels`), under the conditions of
`guides.core.fused_loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from guides.core.fused_loop import BLOCK, CHUNK, WARPS, applies, give_up, padded
from guides.core.loop_layers import Draws, Layers

__all__ = ["Memory", "adjoint", "forward"]


class Memory(NamedTuple):
    """The inputs and outputs of an LSTM in all frames.

    Attributes:
        joined: its weights of features of z_{t-1} and of h_{t-1} side by side, (4H, E + H).
        inputs: those features and h_{t-1}, (T + 1, B, E + H), initially zero.
        active: the gates i, f, g, o after sigmoid or tanh, (T, B, 4H), initially zero.
        cells: c_{t-1}, (T + 1, B, H), initially zero.
        lag: whether it is not run at the first frame.
    """

    joined: Tensor
    inputs: Tensor
    active: Tensor
    cells: Tensor
    lag: bool


def forward(first: Layers, last: Layers, draws: Draws, gates: Tensor, memory: Memory) -> bool:
    """Compute layers, LSTM and draws of all frames; returns False, without a result, if the loop must be used.

    Args:
        first: the layers before the LSTM.
        last: those after it.
        draws: the draws.
        gates: the contribution of the data to the gates, (T, B, 4H).
        memory: is filled.
    """
    noise, every = draws.noise, [*first.weights, *last.weights]
    if not applies(noise, every):
        return False
    widths = [weight.shape[0] for weight in every]
    outs = noise.new_zeros(*noise.shape[:2], sum(widths))
    z, sigma = torch.empty_like(noise), draws.sigma
    weights = _flat(noise, [*first.run_weights, *last.run_weights])
    biases = _flat(noise, [*first.run_biases, *last.run_biases[1:]])
    changed = (memory.inputs, memory.active, memory.cells, outs, z, sigma)
    try:
        _forward(
            *(noise, gates, last.run_biases[0], memory.joined, weights, biases, *changed),
            *([weight.shape[1] for weight in every], widths, len(first.weights), int(memory.lag)),
        )
    except Exception as error:  # a GPU or a version of triton that does not compile it
        for buffer in changed[:3]:
            buffer.zero_()
        return give_up(error)
    of_layers = outs.split(widths, dim=-1)
    first.outs, last.outs = list(of_layers[: len(first.weights)]), list(of_layers[len(first.weights) :])
    draws.z, last.fused = z, outs
    return True


def adjoint(first: Layers, last: Layers, memory: Memory) -> Tensor | None:
    """Compute the gradients before each layer's tanh, their `deltas`, and return those of the gates before their
    activation, (T, B, 4H); None if the loop must be used.
    """
    outs = last.fused
    if outs is None:
        return None
    every = [*first.weights, *last.weights]
    widths = [weight.shape[0] for weight in every]
    deltas, d_gates = torch.zeros_like(outs), torch.zeros_like(memory.active)
    weights = _flat(outs, every)
    try:
        _adjoint(
            *(last.direct, last.factors, memory.joined, weights, memory.inputs, memory.active, memory.cells, outs),
            *(deltas, d_gates, [weight.shape[1] for weight in every], widths, len(first.weights), int(memory.lag)),
        )
    except Exception as error:
        give_up(error)
        return None
    of_layers = deltas.split(widths, dim=-1)
    first.deltas, last.deltas = list(of_layers[: len(first.weights)]), list(of_layers[len(first.weights) :])
    return d_gates


def _flat(like: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([v.flatten() for v in tensors]) if tensors else like.new_zeros(1)


def _plan(ins: Sequence[int], outs: Sequence[int], at: int) -> dict[str, tuple[int, ...]]:
    """Sizes of layers and offsets into flat tensors, as the kernels name them."""
    numbers = [m * n for m, n in zip(ins, outs, strict=True)]
    biases = [0 if i == at else n for i, n in enumerate(outs)]
    offsets = {"W": numbers, "B": biases, "O": outs}
    sizes = {"N": tuple(ins), "PN": tuple(map(padded, ins)), "M": tuple(outs), "PM": tuple(map(padded, outs))}
    return sizes | {name: tuple(accumulate(counts, initial=0)) for name, counts in offsets.items()}


@torch.library.custom_op(
    "dvae_pyro::memory_forward",
    mutates_args=("inputs", "active", "cells", "outs", "z", "sigma"),
    schema="(Tensor noise, Tensor gates, Tensor injected, Tensor joined, Tensor weights, Tensor biases, "
    "Tensor(a!) inputs, Tensor(b!) active, Tensor(c!) cells, Tensor(d!) outs, Tensor(e!) z, Tensor(f!) sigma, "
    "int[] ins, int[] widths, int at, int lag) -> ()",
)
def _forward(
    noise: Tensor,
    gates: Tensor,
    injected: Tensor,
    joined: Tensor,
    weights: Tensor,
    biases: Tensor,
    inputs: Tensor,
    active: Tensor,
    cells: Tensor,
    outs: Tensor,
    z: Tensor,
    sigma: Tensor,
    ins: Sequence[int],
    widths: Sequence[int],
    at: int,
    lag: int,
) -> None:
    from guides.core import memory_kernels

    (frames, batch, latent), width = noise.shape, cells.shape[-1]
    launch: Any = memory_kernels.forward[(-(-batch // BLOCK),)]
    launch(
        *(noise, gates, injected, joined, weights, biases, inputs, active, cells, outs, z, sigma, frames, batch),
        **_plan(ins, widths, at),
        **{"L": latent, "PL": padded(latent), "AT": at, "DEPTH": len(ins), "E": inputs.shape[-1] - width, "H": width},
        **{"PH": padded(width), "LAG": lag, "BLOCK": BLOCK, "CHUNK": CHUNK, "num_warps": WARPS, "num_stages": 1},
    )


@torch.library.custom_op(
    "dvae_pyro::memory_adjoint",
    mutates_args=("deltas", "d_gates"),
    schema="(Tensor direct, Tensor factors, Tensor joined, Tensor weights, Tensor inputs, Tensor active, Tensor cells, "
    "Tensor outs, Tensor(a!) deltas, Tensor(b!) d_gates, int[] ins, int[] widths, int at, int lag) -> ()",
)
def _adjoint(
    direct: Tensor,
    factors: Tensor,
    joined: Tensor,
    weights: Tensor,
    inputs: Tensor,
    active: Tensor,
    cells: Tensor,
    outs: Tensor,
    deltas: Tensor,
    d_gates: Tensor,
    ins: Sequence[int],
    widths: Sequence[int],
    at: int,
    lag: int,
) -> None:
    from guides.core import memory_kernels

    (frames, batch, double), width = direct.shape, cells.shape[-1]
    latent, given = double // 2, inputs.shape[-1] - width
    plan = {name: value for name, value in _plan(ins, widths, at).items() if name != "B"}
    launch: Any = memory_kernels.adjoint[(-(-batch // BLOCK),)]
    launch(
        *(direct, factors, joined, weights, inputs, active, cells, outs, deltas, d_gates, frames, batch),
        **plan,
        **{"L": latent, "PL": padded(latent), "AT": at, "DEPTH": len(ins), "E": given, "PE": padded(given), "H": width},
        **{"PH": padded(width), "LAG": lag, "BLOCK": BLOCK, "CHUNK": CHUNK, "num_warps": WARPS, "num_stages": 1},
    )


_forward.register_fake(lambda *args: None)
_adjoint.register_fake(lambda *args: None)
