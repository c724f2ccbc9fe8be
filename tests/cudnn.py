"""What cuDNN asks of recurrent networks, held on a CPU: a mode that fails where a GPU would, and tells what it saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NETWORKS = ("lstm", "gru", "rnn_tanh")


class CuDNN(TorchFunctionMode):
    """Refuses the backward pass of a recurrent network that was run in eval mode, as cuDNN does.

    Attributes:
        precisions: of each call, the type of its input, or that of autocast where that is on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.precisions: list[torch.dtype] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in NETWORKS:
            u, keeps = args[0], args[-3]
            half = torch.is_autocast_enabled(u.device.type)
            self.precisions.append(torch.get_autocast_dtype(u.device.type) if half else u.dtype)
            if result[0].requires_grad and not keeps:
                result[0].register_hook(_refuse)
        return result


def _refuse(_: Tensor) -> None:
    raise RuntimeError("cudnn RNN backward can only be called in training mode")
