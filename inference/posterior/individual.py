"""A separate guide for each sequence: copies of a trained one with independent weights."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import pyro.poutine as poutine
import torch
from torch import Tensor, nn

from guides.core.chain import Chain, MemoryChain
from guides.core.guide import Guide
from inference.particles.log_weights import samples
from models.core.effects import Given, draw
from models.core.sites import Sites, rebuilt
from models.core.tensors import normal
from models.core.time_axis import Parallel
from models.dvae import DVAE, batch_sites

__all__ = ["Individual", "stacked_chain"]


class Individual(Guide):
    r"""q(z | x) = \prod_n q_n(z_n | x_n), with separate weights for every q_n, initially those of one guide.

    The latents of the copies are combined to one site, so that the shared model runs once over the batch. Where the
    copies are chains (`guides.core.chain`), their loops over frames also run once for all, with stacked weights; else
    each copy runs over its sequence only. Networks that the guide shares with the model are not copied.

    Args:
        model: the model whose posterior is approximated.
        guide: the guide that is copied.
        sequences: N.
    """

    stepwise = False

    def __init__(self, model: DVAE, guide: Guide, sequences: int) -> None:
        super().__init__(model)
        of_model = {id(p): p for p in model.parameters()}
        self.guides = nn.ModuleList(deepcopy(guide, dict(of_model)) for _ in range(sequences))
        self.latents = model.latents
        self.trained = [p for copied in self.guides for p in copied.parameters() if id(p) not in of_model]

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        chain = None if sites.leading or self.latents != ("z",) else self._stacked(sites, lengths)
        if chain is None:
            self._one_by_one(sites, lengths)
            return
        standard = normal(*sites.like.new_zeros(2, self.z_dim))
        noise = draw("z", sites.expanded(standard, sites.frames), Parallel(sites))
        z, mean, log_variance = chain.run(noise)
        sites.register("z", normal(mean, log_variance), z)

    def _stacked(self, sites: Sites, lengths: Tensor) -> Chain | MemoryChain | None:
        """The chains of all guides as one, with separate weights for each sequence; None if a guide is no chain."""
        x, chains = self.scaling.inverse(sites.data["x"]), []
        guides: Any = self.guides
        for n, guide in enumerate(guides):
            if not guide.stepwise:
                return None
            length = lengths[n : n + 1]
            with poutine.block(hide_fn=_is_sample):  # hides the plates of a single sequence
                single = batch_sites(guide, x[: int(length), n : n + 1], length)
                chain = guide.chain(guide.encode(single, length))
            if chain is None:
                return None
            chains.append(chain)
        return stacked_chain(chains, sites.frames)

    def _one_by_one(self, sites: Sites, lengths: Tensor) -> None:
        x, drawn = sites.data["x"], []
        for n, guide in enumerate(self.guides):
            length = lengths[n : n + 1]
            with poutine.block(hide_fn=_is_sample), poutine.trace() as tracer:
                guide(self.scaling.inverse(x[: int(length), n : n + 1]), length)
            drawn.append(samples(tracer.trace))
        for name, first in drawn[0].items():
            time = next((f.name for f in first["cond_indep_stack"] if f.name.startswith("time")), None)
            each = [(_unmasked(sample[name]["fn"]), sample[name]["value"]) for sample in drawn]
            if time is None:
                joint = rebuilt([fn for fn, _ in each], lambda parts: torch.cat(parts, dim=-2))
                with Given({name: torch.cat([value for _, value in each], dim=-2)}):
                    sites.once(name, joint)
                continue
            scale = sites.coarser(int(time.partition("_")[2] or 1))

            def join(parts: list[Tensor], frames: int = scale.frames) -> Tensor:
                return torch.cat([_lengthened(part, frames) for part in parts], dim=-2)

            scale.register(name, rebuilt([fn for fn, _ in each], join), join([value for _, value in each]))


class _Stack(NamedTuple):
    """One layer of N guides: weights (N, out, in) and biases (N, out)."""

    weight: Tensor
    bias: Tensor


def stacked_chain(chains: Sequence[Any], frames: int) -> Chain | MemoryChain:
    """One chain over N sequences from N chains over one sequence each, padded to `frames` frames."""

    def each(part: str) -> Any:
        parts = [getattr(chain, part) for chain in chains]
        if part in ("injected", "gates"):
            return torch.cat([_lengthened(p, frames) for p in parts], dim=-2)
        if part in ("before", "after"):
            layers = zip(*parts, strict=True)
            return [_Stack(*(torch.stack([getattr(a, w) for a in maps]) for w in _Stack._fields)) for maps in layers]
        return parts[0] if part == "lag" else torch.stack(parts)

    kind: Any = type(chains[0])
    chain: Chain | MemoryChain = kind(**{part: each(part) for part in kind._fields})
    return chain


def _is_sample(msg: Any) -> bool:
    return bool(msg["type"] == "sample")


def _unmasked(distribution: Any) -> Any:
    return distribution.base_dist if hasattr(distribution, "_mask") else distribution


def _lengthened(part: Tensor, frames: int) -> Tensor:
    """Pad (..., T, 1, L) to `frames` frames by repeating the last one; padding is excluded from densities."""
    missing = frames - part.shape[-3]
    if not missing:
        return part
    last = part[..., -1:, :, :]
    return torch.cat([part, last.expand(*part.shape[:-3], missing, *last.shape[-2:])], dim=-3)
