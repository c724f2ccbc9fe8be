"""The optimiser of a training; two optimisers if a table has sparse gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from models.nn.layers import MLP

if TYPE_CHECKING:
    from inference.settings.tree import OptimSettings

__all__ = ["Optimiser", "CombinedOptimizer", "build_optimiser", "forget_rows", "gradients"]


class CombinedOptimizer:
    """Several optimisers of different parameters that step together."""

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of all optimisers."""
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Take one step with each optimiser."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each optimiser."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of each optimiser."""
        for part, of_part in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(of_part)


Optimiser = torch.optim.Optimizer | CombinedOptimizer


def build_optimiser(settings: OptimSettings, module: nn.Module) -> Optimiser:
    """The optimiser that the settings describe, for all parameters that require gradients.

    Weight decay applies to all parameters including biases, or only to the weight matrices of hidden fully connected
    layers (`models.nn.layers.MLP`), of which recurrent networks have none. It never applies to tables (`nn.Embedding`),
    whose prior is part of the objective. Sparse tables are updated by `torch.optim.SparseAdam`, which changes neither
    rows without gradient nor their running moments, so the cost of an update depends on its rows, not on the table.
    """
    tables = [part for part in module.modules() if isinstance(part, nn.Embedding) and part.weight.requires_grad]
    in_tables = {id(table.weight) for table in tables}
    rest = [p for p in module.parameters() if p.requires_grad and id(p) not in in_tables]
    if settings.weight_decay_on == "hidden":
        in_hidden = {id(affine.weight) for part in module.modules() if isinstance(part, MLP) for affine in part.affine}
        free = [p for p in rest if id(p) not in in_hidden]
        rest = [p for p in rest if id(p) in in_hidden]
    else:
        free = []
    groups: list[dict[str, Any]] = [{"params": rest}] if rest else []
    groups += [{"params": free, "weight_decay": 0.0}] if free else []
    dense = [table.weight for table in tables if not table.sparse]
    groups += [{"params": dense, "weight_decay": 0.0}] if dense else []
    shared: dict[str, Any] = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    adam = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
    # all weights in few kernels; on a CPU the other form, whose rounding golden runs and resumed ones have
    fused = {"fused": True} if all(p.is_cuda for group in groups for p in group["params"]) else {}
    first = adam(groups, weight_decay=settings.weight_decay, **fused, **shared)
    sparse = [table.weight for table in tables if table.sparse]
    return CombinedOptimizer([first, torch.optim.SparseAdam(sparse, **shared)]) if sparse else first


def forget_rows(optimiser: Optimiser, table: nn.Embedding, rows: Tensor) -> None:
    """Reset an optimiser's state of rows of a sparse table that have been assigned new values.

    Their running moments refer to the old values. The count of steps, which Adam uses for bias correction, is reset for
    the whole table: this is correct if no other rows have gradients until the next reset, as in hierarchical sampling.
    """
    for part in optimiser.parts if isinstance(optimiser, CombinedOptimizer) else [optimiser]:
        of_table = part.state.get(table.weight)
        if of_table:
            of_table["step"] = 0
            for moment in ("exp_avg", "exp_avg_sq"):
                of_table[moment][rows] = 0.0


def gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradients of those parameters that have one; of a sparse gradient its rows."""
    present = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            present.append(parameter.grad.values())
        elif parameter.grad is not None:
            present.append(parameter.grad)
    return present
