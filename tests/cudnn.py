"""What a GPU minds, seen on a CPU: recurrent networks as cuDNN has them, values that are waited for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

T = TypeVar("T")

NETWORKS = ("lstm", "gru", "rnn_tanh")


class Calls(TorchFunctionMode):
    """Sees every call of a function of torch and its result."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen(func, args, result)
        return result

    def seen(self, func: Callable[..., Any], args: Sequence[Any], result: Any) -> None:
        raise NotImplementedError


class CuDNN(Calls):
    """Refuses the backward pass of a recurrent network that was run in eval mode, as cuDNN does.

    Attributes:
        precisions: of each call, the type of its input, or that of autocast where that is on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.precisions: list[torch.dtype] = []

    def seen(self, func: Callable[..., Any], args: Sequence[Any], result: Any) -> None:
        if getattr(func, "__name__", "") in NETWORKS:
            u, keeps = args[0], args[-3]
            half = torch.is_autocast_enabled(u.device.type)
            self.precisions.append(torch.get_autocast_dtype(u.device.type) if half else u.dtype)
            if result[0].requires_grad and not keeps:
                result[0].register_hook(_refuse)


def _refuse(_: Tensor) -> None:
    raise RuntimeError("cudnn RNN backward can only be called in training mode")


class Asked(TorchDispatchMode):
    """Counts what a GPU would be waited for: values of tensors that are asked for, and sizes that depend on them.

    Args:
        refuse: whether to raise CUDA's error while a graph is captured instead.
    """

    values = 0

    def __init__(self, *, refuse: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's class has no annotations
        self.refuse = refuse

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        self.values += func in (aten._local_scalar_dense.default, aten.nonzero.default, aten._unique2.default)
        if self.refuse and self.values:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        return func(*args, **(kwargs or {}))


class Read(Calls):
    """Counts what moves numbers to the host: of tensors of floating point, as what is counted is there anyway."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors = 0

    def seen(self, func: Callable[..., Any], args: Sequence[Any], result: Any) -> None:
        moves = func in (Tensor.tolist, Tensor.cpu, Tensor.numpy)
        self.tensors += moves and args[0].is_floating_point()


def as_cuda_graphs(step: Callable[[], T], /) -> Callable[[], T]:
    """A recorder with the rules of CUDA graphs: no value may be asked for while a step is recorded, and what it returns
    stays where it is, overwritten by each replay. The operations are computed anew.
    """
    with torch.random.fork_rng(), Asked(refuse=True):
        kept = step()

    def replay() -> T:
        for there, value in zip(tree_leaves(kept), tree_leaves(step()), strict=True):
            if isinstance(there, Tensor):
                there.copy_(value)
        return kept

    return replay
