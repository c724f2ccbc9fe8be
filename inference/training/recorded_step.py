"""Loss and gradients of a batch: computed, or recorded as a CUDA graph for each shape of batch and then replayed.

In a small training step most of the time is Python overhead: Pyro's handlers, distributions, the backward pass. A
recording runs the step once, and keeps its kernels, forward and backward, from weights, data, lengths and KL weights to
loss, terms and gradients; a replay is a single launch. Random numbers are drawn anew from torch's generator in each
replay.

Values cannot be read during recording, so a recording does not depend on the recorded batch: a model, guide or
objective with data-dependent control flow is refused, and decisions that depend on lengths are fixed beforehand
(`inference.handlers.known_shape`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from dvae_pyro.errors import UserError
from inference.handlers.known_shape import known_shape
from inference.objectives.elbo import Bound, Objective
from models.core.grouping import SequenceIndex

__all__ = [
    "CudaGraphs",
    "RecordedStep",
    "Recorder",
    "cuda_graphs",
    "lengthened",
    "loss_and_gradients",
    "run_again",
    "whole_multiple",
]

T = TypeVar("T")

WARMUP = 3
"""Steps before a CUDA graph is captured, in which libraries allocate memory and select algorithms."""


class Recorder(Protocol):
    """Turns a step into its replay: a function that computes the same from what is then in the step's inputs."""

    def __call__(self, step: Callable[[], T], /) -> Callable[[], T]: ...


def run_again(step: Callable[[], T], /) -> Callable[[], T]:
    """A recorder that keeps nothing: the replay is the step itself. For tests and rehearsals without a GPU."""
    return step


class CudaGraphs:
    """A recorder of CUDA graphs. What a step returns stays at fixed addresses, which replays write to.

    Args:
        device: the device of all tensors of a step.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool: Any = None
        """Memory pool shared by all graphs: results of one are not needed after the replay of the next."""

    def __call__(self, step: Callable[[], T], /) -> Callable[[], T]:
        with torch.cuda.device(self.device):
            aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(here)
            with torch.random.fork_rng(devices=[self.device]), torch.cuda.stream(aside):
                for _ in range(WARMUP):
                    step()
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self.pool):
                results = step()

        def replay() -> T:
            graph.replay()
            return results

        return replay


def cuda_graphs(device: torch.device) -> Recorder | None:
    """The recorder of a device; None without CUDA."""
    return CudaGraphs(device) if device.type == "cuda" else None


def whole_multiple(frames: int, multiple: int, most: int | None = None) -> int:
    """The number of frames that a batch is padded to: the next multiple, but at most `most`, and never fewer than
    `frames`.

    Example:
        >>> [whole_multiple(frames, 32, 150) for frames in (1, 32, 33, 140, 150)]
        [32, 32, 64, 150, 150]
    """
    padded = -(-frames // multiple) * multiple
    return padded if most is None else max(frames, min(padded, most))


def lengthened(x: Tensor, frames: int) -> Tensor:
    """Data (T, N, D) padded with zeros to `frames` frames."""
    return x if len(x) == frames else pad(x, (0, 0, 0, 0, 0, frames - len(x)))


def loss_and_gradients(
    objective: Objective, x: Tensor, lengths: Tensor, frames: int, *, weight: float = 1.0, **more: Any
) -> Bound:
    """The bound of a batch; accumulates the gradients of its loss per real frame in the parameters.

    Args:
        objective: the training objective.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU; all may be shorter than T.
        frames: the sum of real frames.
        weight: weight of the loss.
        more: further arguments of `Objective.forward`.
    """
    with known_shape.of(x, lengths):
        bound: Bound = objective(x, lengths, **more)
    (weight * bound.loss / frames).backward()
    return bound


_Result = tuple[Bound, list[Tensor | None]]


class RecordedStep:
    """`loss_and_gradients`, recorded, with equal results. Its result and the gradients are valid until the next call.

    The effects of handlers are part of the recording, so active handlers must not change between calls.

    Args:
        objective: the training objective; its weights may change in place, but must keep their memory.
        record: how steps are recorded.
    """

    def __init__(self, objective: Objective, record: Recorder) -> None:
        self.objective, self.record = objective, record
        self.trained = [p for p in objective.parameters() if p.requires_grad]
        self.recordings: dict[tuple[Any, ...], tuple[Sequence[Tensor], Callable[[], _Result]]] = {}
        """Inputs and replay of each shape of batch."""

    def __call__(
        self,
        x: Tensor,
        lengths: Tensor,
        frames: int,
        *,
        beta: float = 1.0,
        beta_sites: Mapping[str, float] | None = None,
        rows: SequenceIndex | None = None,
    ) -> Bound:
        """Arguments as of `loss_and_gradients`; a model that takes `rows` is not recorded.

        Raises:
            UserError: for data-dependent control flow.
        """
        own, ragged = dict(beta_sites or {}), known_shape.of(x, lengths).ragged
        given = (x, lengths, torch.tensor([frames, beta, *own.values()], dtype=x.dtype))
        key = (x.shape, x.dtype, ragged, self.objective.training, *own)
        if key not in self.recordings:
            kept = [v.to(x.device, copy=True) for v in given]
            self.recordings[key] = kept, self._recorded(kept, [*own], ragged=ragged)
        inputs, replay = self.recordings[key]
        for buffer, value in zip(inputs, given, strict=True):
            buffer.copy_(value, non_blocking=True)
        bound, gradients = replay()
        for parameter, gradient in zip(self.trained, gradients, strict=True):
            parameter.grad = gradient
        return bound

    def step(self, inputs: Sequence[Tensor], own: Sequence[str] = (), *, ragged: bool = True) -> _Result:
        """The bound of a batch and the gradients of its loss per real frame.

        Args:
            inputs: x, lengths and numbers, all on the device: the real frames, the KL weight, and the weights of the
                latents in `own`.
            own: latents with individual weights.
            ragged: whether the recording must be valid for sequences shorter than the batch.
        """
        x, lengths, numbers = inputs
        real, beta, *weights = numbers.unbind()
        with known_shape(len(x), ragged=ragged):
            bound: Bound = self.objective(x, lengths, beta, beta_sites=dict(zip(own, weights, strict=True)))
        gradients = torch.autograd.grad(bound.loss / real, self.trained, allow_unused=True)
        # autograd may return one tensor for two weights, and clipping writes into them
        return bound._replace(loss=bound.loss.detach()), [None if g is None else g.clone() for g in gradients]

    def _recorded(self, inputs: Sequence[Tensor], own: Sequence[str], *, ragged: bool) -> Callable[[], _Result]:
        try:
            return self.record(lambda: self.step(inputs, own, ragged=ragged))
        except RuntimeError as error:
            self._explain(error)
            raise

    def _explain(self, error: BaseException) -> None:
        """Raise the first error of a failed recording; ending the capture raises a second, less specific one.

        Raises:
            UserError: if the first error is an operation that CUDA graphs do not support, such as a synchronisation.
        """
        first = error
        while isinstance(first.__context__, Exception):
            first = first.__context__
        if isinstance(first, RuntimeError) and "captur" in str(first):
            parts = type(self.objective.model).__name__, type(self.objective.guide).__name__
            raise UserError(
                f"train.cuda_graph=true: {parts[0]} with guide {parts[1]} and train.objective={self.objective.name} "
                f"has data-dependent control flow, so its step cannot be recorded (CUDA: {str(first).splitlines()[0]})."
                " Set train.cuda_graph=false."
            ) from first
        if first is not error:
            raise first
