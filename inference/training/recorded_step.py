"""Loss and gradients of a batch: computed, or recorded once for each shape of batch and then replayed.

In a small training step most of the time is Python overhead: Pyro's handlers, distributions, the backward pass. A
recording runs the step once and keeps the operations, forward and backward, from weights, data, lengths and KL weights
to loss, terms and gradients; random numbers are drawn anew from torch's generator in each replay. On a GPU it is a CUDA
graph, replayed by a single launch. On a CPU it is a list of operations, recorded with fake tensors, which have shapes
but no values.

Values cannot be read during recording, so a recording does not depend on the recorded batch: a model, guide or
objective with data-dependent control flow is refused, and decisions that depend on lengths are fixed beforehand
(`known_shape`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import pad
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

from dvae_pyro.errors import UserError
from inference.handlers.known_shape import known_shape
from inference.objectives.elbo import Bound, Objective
from models.core.grouping import SequenceIndex

__all__ = ["RecordedStep", "loss_and_gradients", "lengthened", "whole_multiple"]

Step = Callable[..., list[Any]]
"""From trained weights, constant ones, x, lengths and numbers (`RecordedStep.step`) to bound and gradients, as
leaves.
"""

WARMUP = 3
"""Steps before a CUDA graph is captured, in which libraries allocate memory and select algorithms."""


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


class RecordedStep:
    """`loss_and_gradients`, recorded, with equal results. Its result and the gradients are valid until the next call.

    The effects of handlers are part of the recording, so active handlers must not change between calls.

    Args:
        objective: the training objective; its weights may change in place, but must keep their memory.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        named = dict(objective.named_parameters())
        self.trained = {name: p for name, p in named.items() if p.requires_grad}
        self.constant = {name: p for name, p in named.items() if not p.requires_grad} | dict(objective.named_buffers())
        self.recordings: dict[tuple[Any, ...], tuple[Callable[..., list[Any]], TreeSpec]] = {}
        self.pool: Any = None
        """Memory pool shared by all CUDA graphs: results of one are not needed after the replay of the next."""

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
        numbers = torch.tensor([frames, beta, *own.values()], dtype=x.dtype)
        inputs = (x, lengths.to(x.device), numbers.to(x.device))
        key = (x.shape, x.dtype, ragged, self.objective.training, *own)
        if key not in self.recordings:
            step, specs = self.step([*own], ragged=ragged)
            replay = self._graph(step, inputs) if x.is_cuda else self._list(step, inputs)
            self.recordings[key] = replay, specs[0]
        replay, spec = self.recordings[key]
        bound, gradients = tree_unflatten(replay(*inputs), spec)
        for parameter, gradient in zip(self.trained.values(), gradients, strict=True):
            parameter.grad = gradient
        return cast(Bound, bound)

    def step(self, own: Sequence[str] = (), *, ragged: bool = True) -> tuple[Step, list[TreeSpec]]:
        """The function that is recorded, and a list that receives the tree spec of (bound, gradients) when it runs.

        Its `numbers` are the real frames, the KL weight, and the weights of the latents in `own`.

        Args:
            own: latents with individual weights.
            ragged: whether the recording must be valid for sequences shorter than the batch.
        """
        names, specs = [*self.trained, *self.constant], list[TreeSpec]()

        def step(
            trained: Sequence[Tensor], constant: Sequence[Tensor], x: Tensor, lengths: Tensor, numbers: Tensor
        ) -> list[Any]:
            real, beta, *weights = numbers.unbind()
            kl_weights = {"beta": beta, "beta_sites": dict(zip(own, weights, strict=True))}
            state = dict(zip(names, [*trained, *constant], strict=True))
            with known_shape(len(x), ragged=ragged):
                # networks that model and guide share are one module: untied, it is restored once
                bound = functional_call(self.objective, state, (x, lengths), kl_weights, tie_weights=False)
            gradients = torch.autograd.grad(bound.loss / real, trained, allow_unused=True)
            detached = bound._replace(loss=bound.loss.detach(), factors=dict(bound.factors))
            # autograd may return one tensor for two weights, and clipping writes into them
            leaves, spec = tree_flatten((detached, [None if g is None else g.clone() for g in gradients]))
            specs[:] = [spec]
            return leaves

        return step, specs

    def _list(self, step: Step, inputs: Sequence[Tensor]) -> Callable[..., list[Any]]:
        """The operations of a step, recorded with fake tensors."""
        from torch._subclasses.fake_tensor import (
            DataDependentOutputException,
            DynamicOutputShapeException,
            FakeTensorMode,
        )
        from torch.fx.experimental.proxy_tensor import make_fx

        weights = [*self.trained.values()], [*self.constant.values()]
        try:
            recorded = make_fx(step, tracing_mode="fake")(*tree_map(FakeTensorMode().from_tensor, (*weights, *inputs)))
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise self._undecided() from error
        detached = tree_map(torch.Tensor.detach, weights)  # shares memory, so updates by optimisers are visible

        def run(*inputs: Tensor) -> list[Any]:
            with torch.enable_grad():  # otherwise oneDNN's LSTM saves nothing for its backward pass
                leaves: list[Any] = recorded(*detached, *inputs)
            return leaves

        return run

    def _graph(self, step: Step, inputs: Sequence[Tensor]) -> Callable[..., list[Any]]:
        """A step as a CUDA graph, with inputs and outputs at fixed addresses."""
        weights = [*self.trained.values()], [*self.constant.values()]
        kept = [v.clone() for v in inputs]
        with torch.cuda.device(kept[0].device):
            aside, here = torch.cuda.Stream(), torch.cuda.current_stream()
            aside.wait_stream(here)
            with torch.random.fork_rng(devices=[kept[0].device]), torch.cuda.stream(aside):
                for _ in range(WARMUP):
                    step(*weights, *kept)
            here.wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            self.pool = self.pool or torch.cuda.graph_pool_handle()
            try:
                with torch.cuda.graph(graph, pool=self.pool):
                    leaves = step(*weights, *kept)
            except RuntimeError as error:
                self._explain(error)
                raise

        def run(*inputs: Tensor) -> list[Any]:
            for buffer, value in zip(kept, inputs, strict=True):
                buffer.copy_(value)
            graph.replay()
            return leaves

        return run

    def _explain(self, error: BaseException) -> None:
        """Raise the first error of a failed recording; ending the capture raises a second, less specific one.

        Raises:
            UserError: if the first error is an operation that CUDA graphs do not support, such as a synchronisation.
        """
        first = error
        while isinstance(first.__context__, Exception):
            first = first.__context__
        if isinstance(first, RuntimeError) and "captur" in str(first):
            raise self._undecided(f" (CUDA: {str(first).splitlines()[0]})") from first
        if first is not error:
            raise first

    def _undecided(self, seen: str = "") -> UserError:
        parts = type(self.objective.model).__name__, type(self.objective.guide).__name__
        return UserError(
            f"train.cuda_graph=true: {parts[0]} with guide {parts[1]} and train.objective={self.objective.name} has "
            f"data-dependent control flow, so its step cannot be recorded{seen}. Set train.cuda_graph=false."
        )
