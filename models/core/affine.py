"""Affine maps, with or without a tanh behind them, and several of the same input in one product.

On x86 processors oneDNN computes a large product in single precision faster than MKL, which PyTorch uses, and computes
the tanh of its results at once, where PyTorch's is a pass of its own that takes longer than the product of a narrow
layer. It rounds differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

__all__ = ["Affine", "AffineMaps", "affine"]

ROWS = 400
"""oneDNN computes products whose number of rows (frames times sequences) is a multiple of this.

It compiles code for each number of rows, which takes a millisecond and 0.5 MiB: batches of sequences of all lengths
would make it compile at every step.
"""


def affine(u: Tensor, weight: Tensor, bias: Tensor, *, tanh: bool = False) -> Tensor:
    """W u + b, or tanh(W u + b), of u (..., in), W (out, in) and b (out,)."""
    if _by_onednn(u, weight, bias):
        out: Tensor = _Affine.apply(u, weight, bias, tanh)  # type: ignore[no-untyped-call]  # torch's
        return out
    out = linear(u, weight, bias)
    return out.tanh() if tanh else out


def _by_onednn(u: Tensor, weight: Tensor, bias: Tensor) -> bool:
    rows = u.numel() // max(1, u.shape[-1])
    return (
        rows > 0
        and rows % ROWS == 0
        and u.dtype == weight.dtype == bias.dtype == torch.float32
        and u.device.type == "cpu"
        and _has_onednn()
        and torch._C._get_mkldnn_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )


@cache
def _has_onednn() -> bool:
    """Whether PyTorch has oneDNN, and the processor is one of those for which it was measured."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise") and torch.backends.cpu.get_cpu_capability().startswith("AVX")


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """x W^T + b of x (rows, in), by oneDNN."""
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "")
    return out


class _Affine(torch.autograd.Function):
    """`affine` by oneDNN."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, weight: Tensor, bias: Tensor, tanh: bool) -> Tensor:
        rows = _product(u.reshape(-1, u.shape[-1]), weight, bias, "tanh" if tanh else "none")
        out = rows.view(*u.shape[:-1], len(weight))
        ctx.save_for_backward(u, weight, out if tanh else None)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        u, weight, out = ctx.saved_tensors
        gradient = grads[0] if out is None else torch.ops.aten.tanh_backward(grads[0], out)
        g = gradient.reshape(-1, len(weight))
        needs_u, needs_weight, needs_bias, _ = ctx.needs_input_grad
        of_u = None
        if needs_u:  # under create_graph by an operation that autograd knows
            of_u = (g @ weight if torch.is_grad_enabled() else _product(g, weight.t())).view(u.shape)
        of_weight = g.t() @ u.reshape(-1, u.shape[-1]) if needs_weight else None
        return of_u, of_weight, g.sum(0) if needs_bias else None, None


class Affine(nn.Linear):
    """An affine map, or its tanh.

    Args:
        in_dim: size of the input.
        out_dim: size of the output.
        tanh: whether the output is tanh of the map.
    """

    def __init__(self, in_dim: int, out_dim: int, *, tanh: bool = False) -> None:
        super().__init__(in_dim, out_dim)
        self.tanh = tanh

    def forward(self, u: Tensor) -> Tensor:
        """From u (..., in) to (..., out)."""
        return affine(u, self.weight, self.bias, tanh=self.tanh)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, tanh={self.tanh}"


class AffineMaps(Affine):
    """Several affine maps of the same input in one weight matrix; their outputs are concatenated.

    Args:
        in_dim: size of the input.
        sizes: output size of each map.
    """

    def __init__(self, in_dim: int, sizes: Sequence[int]) -> None:
        super().__init__(in_dim, sum(sizes))
        self.sizes = list(sizes)
