"""Data-parallel training in several processes.

``torchrun --nproc-per-node K -m inference.svi ...`` starts K processes of one training. Each computes its shard of
every batch; gradients and metrics are summed over all processes, so that each takes the step that a single process
would take. In place of `torch.nn.parallel.DistributedDataParallel`, which all-reduces gradients in buckets during the
backward pass, gradients are all-reduced once after it as one vector: the models are small (a million parameters are
4 MB, under a millisecond at 10 GB/s), any parameter may have no gradient, and sparse gradients are all-reduced
sparsely.
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

__all__ = ["ALONE", "World", "join_processes"]

PATIENCE = timedelta(hours=6)
"""How long a process waits for another one on the CPU, which may be reading the corpus. There the end of a process is
detected at once.
"""
PATIENCE_OF_STEPS = timedelta(minutes=15)
"""How long a process waits for another one's GPU, in steps and validations. NCCL does not detect its end earlier."""


@dataclass(frozen=True)
class World:
    """The processes of a training. Collective operations raise `ProcessLost` if one of the processes has ended.

    Attributes:
        rank: index of this process.
        size: number of processes.
        local: index of this process on its machine.
        on_gpus: process group of tensors on GPUs; None without GPUs.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    on_gpus: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def shard(self, count: int) -> list[int]:
        """Indices of this process's sequences, of `count` in a batch: each belongs to exactly one process.

        Example:
            >>> [World(rank, 3).shard(5) for rank in range(3)]
            [[0, 3], [1, 4], [2]]
        """
        return list(range(self.rank, count, self.size))

    def total(self, v: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            with _together():
                dist.all_reduce(v, group=self.on_gpus if v.is_cuda else None)
        return v

    def any(self, value: bool) -> bool:
        """Whether `value` is true in any process; all processes get the same result."""
        return value if self.size == 1 else bool(self.total(torch.tensor([float(value)])).item())

    def broadcast_object(self, value: Any) -> Any:
        """The value of the first process, in all processes."""
        if self.size == 1:
            return value
        held = [value]
        with _together():
            dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
        return held[0]

    def all_gather(self, names: set[str]) -> list[str]:
        """The union of the processes' names, sorted."""
        held = [names] * self.size
        if self.size > 1:
            with _together():
                dist.all_gather_object(held, names)
        return sorted(set().union(*held))

    def all_gather_objects(self, value: Any) -> list[Any]:
        """What every process has, in the order of the processes."""
        held = [value] * self.size
        if self.size > 1:
            with _together():
                dist.all_gather_object(held, value)
        return held

    def broadcast_module(self, module: nn.Module) -> None:
        """Copy the first process's weights and buffers to all processes."""
        for v in [*module.parameters(), *module.buffers()] if self.size > 1 else []:
            with _together():
                dist.broadcast(v.data, src=0, group=self.on_gpus if v.is_cuda else None)

    @contextmanager
    def first_of_machine(self) -> Iterator[None]:
        """Run the context in the first process of each machine, then in the others."""
        if self.local > 0:
            self.any(False)
        yield
        if self.local == 0:
            self.any(False)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over all processes: dense ones as one vector, of sparse ones only their rows.

        Args:
            parameters: parameters with a gradient, the same ones in every process.
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
        """The sum of a sparse gradient (M, L) with U rows; communication grows with U, not with M."""
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
        indices, summands = every_row[real][None], every_value[real]
        return torch.sparse_coo_tensor(indices, summands, gradient.shape, check_invariants=True).coalesce()


ALONE = World()


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost(
            "another process of this training has ended, so this one ends too. See the message of that process; the "
            f"last checkpoint is unchanged. (Error in this process: {str(error).splitlines()[0]})"
        ) from error


@contextmanager
def join_processes(device: str) -> Iterator[World]:
    """The processes started by torchrun; a single process without torchrun.

    CPU tensors are sent by gloo. With device "cuda" each process uses the GPU of its index on its machine, and CUDA
    tensors are sent by NCCL.

    Raises:
        UserError: for a device that processes cannot share, or fewer GPUs than processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "LOCAL_RANK" not in os.environ:
        yield ALONE
        return
    if device not in ("cpu", "cuda"):
        raise UserError(
            f"device={device}: several processes train on CPUs, or on one GPU each. Set --device cpu or cuda."
        )
    local = int(os.environ["LOCAL_RANK"])
    if device == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if local >= count:
            raise UserError(
                f"process {local} of this machine has no GPU: PyTorch {torch.__version__} finds {count}. Start one "
                f"process per GPU: torchrun --nproc-per-node {max(1, count)}, or set --device cpu."
            )
        torch.cuda.set_device(local)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        on_gpus = dist.new_group(backend="nccl", timeout=PATIENCE_OF_STEPS) if device == "cuda" else None
        yield World(dist.get_rank(), dist.get_world_size(), local, on_gpus)
    finally:
        dist.destroy_process_group()
