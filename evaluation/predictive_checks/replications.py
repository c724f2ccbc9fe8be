"""What a fitted model says of data, in draws: latents from the guide, data from the model given them, and data from the
model alone.

Draws are particles: a leading dimension (S, T, N, ...).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pyro
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor, nn

from corpora.frontends.base import FrontEnd
from corpora.loading.sequences import Batch, Batches, Prepared, collate, load_split
from corpora.registry import open_corpus
from evaluation.reporting.command_line import say
from inference.estimation.importance import trace_weights, traces
from inference.handlers.free_running import free_running

if TYPE_CHECKING:
    from inference.runs import Run

__all__ = ["Draws", "batches", "posterior_draws", "prior_draws", "read_sequences", "read_utterances"]

BATCH = 16  # sequences that go through the model together
VALUES_AT_ONCE = 8_000_000  # values of data that are drawn together


class Draws(NamedTuple):
    """Some draws of the latents of a batch, S, and what the model says given each.

    Attributes:
        latents: z ~ q(z | x) by site name, (S, T, N, L), or (S, N, L) outside time; of a latent at a coarser scale T is
            the number of its steps.
        log_weight: log p(x, z) - log q(z | x), the log importance weight of a draw, (S, N).
        log_likelihood: log p(x_t | x_{1:t-1}, z) of each frame, (S, T, N), zero beyond each length.
        replicated: x ~ p(x | z), (S, T, N, D). Where the model looks back at the data, a frame is given the true past,
            or in mode "gen" the model's own output.
    """

    latents: dict[str, Tensor]
    log_weight: Tensor
    log_likelihood: Tensor
    replicated: Tensor


@torch.no_grad()
def posterior_draws(
    model: nn.Module, guide: nn.Module, x: Tensor, lengths: Tensor, draws: int, *, mode: str = "gt"
) -> Iterator[Draws]:
    """Draw latents from the guide, score them and the data, and draw data given them; in parts of the S draws.

    Args:
        model: the generative model.
        guide: the inference model.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.
        draws: S.
        mode: ``"gt"``, the model sees the true past of x, or ``"gen"``, its own output.
    """
    for part in _parts(draws, x.numel()):
        with free_running() if mode == "gen" else ExitStack(), pyro.validation_enabled(False):
            model_trace, guide_trace = traces(model, guide, x, lengths, part)
        observed: Any = model_trace.nodes["x"]
        log_likelihood = observed["log_prob"].expand(part, *x.shape[:2])
        replicated = _inside(observed["fn"].sample(), lengths)
        yield Draws(_latents(guide_trace), trace_weights(model_trace, guide_trace), log_likelihood, replicated)


@torch.no_grad()
def prior_draws(model: nn.Module, lengths: Tensor, draws: int, dim: int) -> Iterator[Tensor]:
    """x ~ p(x), the model run unconditioned, (S, T, N, D) in parts of the S draws; zero beyond each length.

    Args:
        model: the generative model.
        lengths: frames of each sequence (N,), on the CPU.
        draws: S.
        dim: D, from which follows how much is drawn at once.
    """
    for part in _parts(draws, int(lengths.max()) * len(lengths) * dim):
        with pyro.plate("particles", part, dim=-3), pyro.validation_enabled(False):
            trace: Any = poutine.trace(model).get_trace(None, lengths)
        yield _inside(trace.nodes["x"]["value"], lengths)


def read_sequences(run: Run, frontend: FrontEnd, split: str, most: int) -> list[Prepared]:
    """Sequences of a split of the run's corpus, cut as for its training, spread evenly over it.

    Args:
        run: the run.
        frontend: makes the frames.
        split: which part of the corpus.
        most: how many.
    """
    data = run.settings.data
    found = load_split(open_corpus(data, data.seed, needed=[split]), split, frontend, data, say, cut=True)
    count = min(most, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def read_utterances(run: Run, frontend: FrontEnd, split: str, most: int | None) -> list[Prepared]:
    """Whole utterances of a split of the run's corpus, spread evenly over it, as frames.

    Args:
        run: the run.
        frontend: makes the frames.
        split: which part of the corpus.
        most: how many; None reads all.
    """
    data = run.settings.data
    corpus = open_corpus(data, data.seed, needed=[split])
    utterances = corpus.splits[split]
    count = len(utterances) if most is None else min(most, len(utterances))
    chosen = {split: [utterances[i * len(utterances) // count] for i in range(count)]}
    cache = data.cache if count == len(utterances) else None  # features of a few would be one more file for each few
    return load_split(replace(corpus, splits=chosen), split, frontend, replace(data, cache=cache), say)


def batches(sequences: Sequence[Prepared]) -> Iterator[tuple[list[int], Batch]]:
    """Sequences of similar length side by side, with their places in the list."""
    for index in Batches(sequences, BATCH, shuffle=False).epoch(0):
        yield index, collate([sequences[i] for i in index])


def _parts(draws: int, values: int) -> list[int]:
    """How many draws are made together, until there are enough."""
    at_once = max(1, VALUES_AT_ONCE // values)
    return [min(at_once, draws - done) for done in range(0, draws, at_once)]


def _latents(trace: Any) -> dict[str, Tensor]:
    """The values of a guide's sites: (S, T, N, L), or (S, N, L) of those outside time, drawn as (S, 1, N, L)."""
    sites = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and not site_is_subsample(s)}
    in_time = {name: any(plate.dim == -2 for plate in site["cond_indep_stack"]) for name, site in sites.items()}
    return {name: site["value"] if in_time[name] else site["value"].squeeze(-3) for name, site in sites.items()}


def _inside(x: Tensor, lengths: Tensor) -> Tensor:
    """x (..., T, N, D) with zeros beyond each length."""
    beyond = (torch.arange(x.shape[-3])[:, None] >= lengths.cpu())[..., None]
    return x.masked_fill(beyond.to(x.device), 0.0)
