"""Training in several processes: who takes part, and what they add up.

``torchrun --nproc-per-node K -m inference.svi ...`` starts K processes of one training. Each computes its part of every
batch; gradients and figures are summed over all of them, so that every process takes the same step that one would take
alone. What `torch.nn.parallel.DistributedDataParallel` does while it goes backward is done here once after it, in one
sum of one vector: the models are small (a million parameters are 4 MB, which a network of 10 GB/s carries in under a
millisecond, hidden or not), any parameter may be without a gradient, and the rows of a table travel as rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dvae_pyro.errors import ProcessLost, UserError

__all__ = ["ALONE", "World", "joined"]

PATIENCE = timedelta(hours=6)
"""How long a process waits for another one: the first may have a corpus to read. (One that ends is noticed at once.)"""


@dataclass(frozen=True)
class World:
    """The processes of a training. What they do together raises `ProcessLost` where one of them has ended.

    Attributes:
        rank: which one this is.
        size: how many there are.
        local: which one it is on its machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def shard(self, count: int) -> list[int]:
        """Which of so many sequences are this process's: over all processes, each of them once.

        Example:
            >>> [World(rank, 3).shard(5) for rank in range(3)]
            [[0, 3], [1, 4], [2]]
        """
        return list(range(self.rank, count, self.size))

    def total(self, v: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in its place."""
        if self.size > 1:
            with _together():
                dist.all_reduce(v)
        return v

    def any(self, asked: bool) -> bool:
        """Whether it is so in any process: the same answer in all."""
        return asked if self.size == 1 else bool(self.total(torch.tensor([float(asked)])).item())

    def broadcast_object(self, value: Any) -> Any:
        """What the first process has, in all of them."""
        if self.size == 1:
            return value
        held = [value]
        with _together():
            dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def all_gather(self, names: set[str]) -> list[str]:
        """The names that any process has, sorted."""
        held = [names] * self.size
        if self.size > 1:
            with _together():
                dist.all_gather_object(held, names)
        return sorted(set().union(*held))

    def broadcast_module(self, module: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        for v in [*module.parameters(), *module.buffers()] if self.size > 1 else []:
            with _together():
                dist.broadcast(v.data, src=0)

    @contextmanager
    def first_of_machine(self) -> Iterator[None]:
        """Let one process of each machine go before the others."""
        if self.local > 0:
            self.any(False)
        yield
        if self.local == 0:
            self.any(False)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over all processes: the dense ones as one vector, of sparse ones the rows they have.

        Args:
            parameters: those with a gradient, the same ones in every process.
        """
        if self.size == 1:
            return
        dense = [p.grad for p in parameters if p.grad is not None and not p.grad.is_sparse]
        if dense:
            flat = self.total(torch.cat([gradient.flatten() for gradient in dense]))
            for gradient, part in zip(dense, flat.split([g.numel() for g in dense]), strict=True):
                gradient.copy_(part.view_as(gradient))
        for parameter in parameters:
            if parameter.grad is not None and parameter.grad.is_sparse:
                parameter.grad = self._sum_rows(parameter.grad.coalesce())

    def _sum_rows(self, gradient: Tensor) -> Tensor:
        """The sum of a sparse gradient (M, L) of U rows: what is sent grows with U, not with M."""
        rows, values = gradient.indices()[0], gradient.values()
        counts = torch.zeros(self.size, dtype=torch.int64, device=rows.device)
        counts[self.rank] = len(rows)
        most = int(self.total(counts).max())
        every_row = rows.new_zeros(self.size, most)
        every_value = values.new_zeros(self.size, most, *values.shape[1:])
        every_row[self.rank, : len(rows)], every_value[self.rank, : len(rows)] = rows, values
        self.total(every_row)
        self.total(every_value)
        real = torch.arange(most, device=rows.device) < counts[:, None]
        found = every_row[real][None], every_value[real]
        return torch.sparse_coo_tensor(*found, gradient.shape, check_invariants=True).coalesce()


ALONE = World()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost(
            "another process of this training has ended, and this one ends with it. The message of that one says why; "
            f"the last checkpoint is as it was. (Here it was seen as: {str(error).splitlines()[0]})"
        ) from error


@contextmanager
def joined(device: str) -> Iterator[World]:
    """The world that torchrun has started this process in; without torchrun it is alone.

    On CPUs they talk by gloo. With device "cuda" each takes the GPU of its number on its machine, and tensors there go
    by NCCL.

    Raises:
        UserError: for a device that processes cannot share, or fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "LOCAL_RANK" not in os.environ:
        yield ALONE
        return
    if device not in ("cpu", "cuda"):
        raise UserError(
            f"device={device}: several processes train on CPUs, or on one GPU each. Give --device cpu or cuda."
        )
    local = int(os.environ["LOCAL_RANK"])
    if device == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if local >= count:
            raise UserError(
                f"process {local} of this machine has no GPU: PyTorch {torch.__version__} sees {count}. Start one for "
                f"each: torchrun --nproc-per-node {max(1, count)}, or give --device cpu."
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local)
    finally:
        dist.destroy_process_group()
