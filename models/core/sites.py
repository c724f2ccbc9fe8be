"""One pass over a batch: observed data, mask of real frames, and the sample statements of all frames."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, NamedTuple, cast

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from models.core.effects import (
    Anticipated,
    Given,
    anticipated,
    conditional,
    enclosing_shape,
    foreseen,
    longest,
    misplaced,
    own_draw,
    same,
)
from models.core.grouping import SequenceIndex, SharedSiteWeight
from models.core.tensors import real_frames, zero_padding

__all__ = ["Sites", "masked", "rebuilt", "stacked"]


class Sites:
    """One pass over a batch: its data, mask and plates, and the sites registered so far.

    Args:
        data: the observed sequences by site name, each (T, N, D); None for a site that is generated.
        lengths: frames per sequence, (N,), on the CPU, because their values are read.
        sizes: the dimension of every site, used for the zeros before the first frame.
        like: a tensor with the dtype and device of the pass.
        rows: the corpus' sequences that the batch has segments of. The plates are then ``segments`` (all of the corpus,
            of which the batch is a subsample), ``time`` and, for sites that a sequence's segments share, ``sequences``.
    """

    def __init__(
        self,
        data: Mapping[str, Tensor | None],
        lengths: Tensor,
        sizes: Mapping[str, int],
        like: Tensor,
        rows: SequenceIndex | None = None,
    ) -> None:
        self.lengths = lengths
        self.frames = longest(lengths)
        self.sequences = len(lengths)
        self.sizes = sizes
        self.like = like
        self.mask = real_frames(lengths, self.frames, like.device)
        self.data = {name: self._checked(name, x) for name, x in data.items() if x is not None}
        self.leading, self._misplaced = enclosing_shape(inner=2), misplaced(inner=2)
        self.rows = rows
        batch = ("sequences", self.sequences) if rows is None else ("segments", rows.segments)
        subsample = None if rows is None else rows.numbers
        self.plates = (
            pyro.plate(*batch, subsample=subsample, dim=-1),
            pyro.plate("time", self.frames, dim=-2),
        )
        if rows is not None:
            self.sequence_plate = SharedPlate.of(rows, like)
        self.registered: dict[str, Tensor] = {}
        self._foreseen: dict[str, Anticipated] = {}
        self.frames_of: dict[str, list[tuple[Tensor, bool]]] = {name: [] for name in data}
        """Values of observed sites by frame, and whether each is the given data."""
        self.stride = 1
        self._finest: Callable[[], Sites | None] = lambda: None
        self._coarser: dict[int, Sites] = {}
        self.step: Callable[[Any], None] | None = None
        """The step that is run over these sites, for handlers that run it again."""

    def coarser(self, stride: int) -> Sites:
        """The same batch at a time scale of its own: one frame from every `stride` frames of the data, the last perhaps
        only begun.

        It has a plate of its own, ``time_<stride>``, the same for every call, and no data.
        """
        if stride == self.stride:
            return self
        finest = self._finest() or self
        if stride not in finest._coarser:
            scale, steps = copy(self), stride // self.stride
            scale.stride = stride
            scale.lengths = -(-self.lengths // steps)
            scale.frames = -(-self.frames // steps)
            scale.mask = None if self.mask is None else self.mask[::steps]
            scale.plates = (self.plates[0], pyro.plate(f"time_{stride}", scale.frames, dim=-2))
            scale.data = {}
            scale._foreseen, scale._coarser = {}, {}
            scale._finest = weakref.ref(finest)  # no cycle: tensors are released with the last reference to the pass
            finest._coarser[stride] = scale
        return finest._coarser[stride]

    def zeroed(self, u: Tensor) -> Tensor:
        """u (..., T, N, C) with zeros in padded frames."""
        return u if self.mask is None else zero_padding(u, self.mask)

    def _checked(self, name: str, x: Tensor) -> Tensor:
        expected = (self.frames, self.sequences, self.sizes[name])
        if x.shape != expected:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}, expected (frames, sequences, dimension) = {expected}: "
                "pass time-major batches whose lengths (N,) have the longest sequence's frames as maximum"
            )
        return self.zeroed(x)

    def value(self, name: str) -> Tensor | None:
        """All frames of a site, if their value is known: observed, registered, or to be set by a handler; else None."""
        if name in self.registered:
            return self.registered[name]
        value: Tensor | None = self.foreseen(name).value
        return value

    def outcome(self, name: str) -> Tensor | None:
        """The value of an observed or generated site in all frames; None if it is the given data."""
        frames = self.frames_of[name]
        if frames:
            return None if all(given for _, given in frames) else torch.cat([value for value, _ in frames], dim=-3)
        value = self.registered[name]
        return None if value is self.data.get(name) else value

    def foreseen(self, name: str) -> Anticipated:
        """What handlers will do at a site of all frames whose distribution is not known yet."""
        if name not in self._foreseen:
            shape = (*self.leading, self.frames, self.sequences, self.sizes.get(name, 1))
            self._foreseen[name] = foreseen(name, shape, self.like, self.data.get(name))
        return self._foreseen[name]

    def register(
        self, name: str, distribution: dist.TorchDistribution, value: Tensor | None = None, axis: Any = None
    ) -> Tensor:
        """The Pyro sample statement of all frames of a site, in both plates; returns its value.

        Args:
            name: the site.
            distribution: the distribution of all frames.
            value: the value that other frames were computed from, unless `foreseen` has it. None draws one, if no
                handler sets it.
            axis: the frames, for handlers of the effect ``draw``.

        Raises:
            UserError: if the site gets a value other than the one that other frames were computed from, or is
                enumerated.
        """
        distribution = self.expanded(distribution, self.frames)
        known, data = self._foreseen.get(name), self.data.get(name)
        used, drawn = value, {} if value is None else {name: value}
        if known is not None:
            data = data if known.observed else None
            used, drawn = (used, drawn) if known.value is None else (known.value, {})
        if used is None and data is None:
            drawn = own_draw(name, distribution, axis)
        if used is not None and distribution.has_enumerate_support and anticipated(name, distribution).enumerated:
            raise UserError(
                f"site '{name}' cannot be enumerated in all frames at once, because later frames depend on it: run "
                "model and guide with how='stepwise'."
            )
        sequences, time = self.plates
        with sequences, time, Given(drawn):
            masked_distribution: Any = masked(distribution, self.mask)
            if drawn and not masked_distribution.has_rsample:
                masked_distribution = copy(masked_distribution)
                masked_distribution.score_parts = partial(_refuse_score, name, masked_distribution)
            returned: Tensor = pyro.sample(name, masked_distribution, obs=data)
        if used is not None and not same(returned, used):
            raise UserError(
                f"a handler sets site '{name}' to another value than in the query before, from which other frames were "
                "computed. Run model and guide with how='stepwise', where frames are computed one by one; or make the "
                "handler set the same value in every call of _pyro_sample."
            )
        self.registered[name] = returned
        return returned

    def once(self, name: str, distribution: dist.TorchDistribution) -> Tensor:
        """A site per sequence, outside time, registered once: (N, L), or (..., 1, N, L) with particles."""
        if name not in self.registered:
            distribution = self.expanded(conditional(name, distribution, None), 1 if self.leading else 0)
            with self.plates[0], Given(own_draw(name, distribution)):
                self.registered[name] = pyro.sample(name, distribution)
        return self.registered[name]

    def level(self) -> SharedPlate:
        """The sequences of the batch."""
        if self.rows is None:
            raise ValueError(
                "sites shared by the segments of a sequence need a SequenceIndex: this batch has rows=None"
            )
        return self.sequence_plate

    def shared(self, name: str, distribution: dist.TorchDistribution, **infer: Any) -> Tensor:
        r"""A site per sequence of the corpus, whose segments share it; each of them gets its value: (N, L).

        The site holds the U sequences that have segments in the batch, (U, L), or (..., 1, U, L) with particles. With
        N^{(i)} segments in the corpus, n_i of them in the batch, the log-density of sequence i has the weight of n_i of
        its N^{(i)} segments: of Hsu et al. (2017), Eq. 2, the sum over the batch. `infer` is the site's.
        """
        level = self.level()
        if name not in self.registered:
            shape = (*self.leading, *([1] if self.leading else []), len(level.present))
            distribution = distribution.expand(torch.broadcast_shapes(shape, distribution.batch_shape))
            drawn = own_draw(name, distribution)
            with level.plate, poutine.scale(scale=level.weight), Given(drawn):
                value = pyro.sample(name, distribution, infer=cast(Any, {"share": level.share, **infer}))
            self.registered[name] = value
        return self.registered[name][..., level.share.entry, :]

    def expanded(self, distribution: dist.TorchDistribution, frames: int) -> dist.TorchDistribution:
        """The distribution with its batch shape written out: (..., frames, N), or (N,) for `frames` = 0.

        Raises:
            UserError: for an enclosing plate in a dimension that the program uses.
        """
        if self._misplaced is not None:
            raise UserError(
                f"plate '{self._misplaced}' around the program is at dim -1 or -2, which are used for sequences and "
                "frames. Set dim=-3 (max_plate_nesting=2). Predictive(parallel=True) uses the first dimension that no "
                "site uses, which is correct for models and guides with latents in frames and how='auto'; omit "
                "parallel for others."
            )
        shape = (*self.leading, frames, self.sequences) if frames else (self.sequences,)
        if distribution.batch_shape == shape:
            return distribution
        return distribution.expand(torch.broadcast_shapes(shape, distribution.batch_shape))


def _refuse_score(name: str, distribution: dist.TorchDistribution, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`score_parts` of a distribution that is not reparametrised, where all frames are one site."""
    if torch.is_grad_enabled():
        raise UserError(
            f"latent '{name}' is drawn for all frames at once and is not reparametrised. The score-function gradient "
            "would treat frames as independent, as plate 'time' declares, and omit the effect of a draw on later ones. "
            "Run model and guide with how='stepwise', or enumerate the latent (TraceEnum_ELBO)."
        )
    return type(distribution).score_parts(distribution, value, *args, **kwargs)


class SharedPlate(NamedTuple):
    """The sequences of a batch.

    Attributes:
        present: their rows, sorted, (U,).
        share: the weight of each segment in them.
        plate: the plate of all of the corpus, of which these are a subsample.
        weight: weight of each one's log-density, (U,): n_i / N_i (Hsu et al., 2017, Eq. 2, summed over the n_i segments
            of sequence i in the batch), times the scale of the segments' plate over the scale of this plate.
    """

    present: Tensor
    share: SharedSiteWeight
    plate: Any
    weight: Tensor

    @classmethod
    def of(cls, rows: SequenceIndex, like: Tensor) -> SharedPlate:
        # on the CPU, where the indices are: on a GPU the number of sequences would need a synchronisation
        present, entry = rows.row.cpu().unique(return_inverse=True)
        counts = rows.counts.to("cpu", like.dtype)
        weight = counts.new_zeros(len(present)).index_add_(0, entry, 1.0 / counts)  # n_i / N_i
        of_plates = (rows.segments / len(entry)) / (rows.sequences / len(present))
        moved = [v.to(like.device, non_blocking=True) for v in (present, entry, counts, weight)]
        present, entry, counts, weight = moved
        share = SharedSiteWeight(entry, counts)
        corpus_plate = pyro.plate("sequences", rows.sequences, subsample=present, dim=-1)
        return cls(present, share, corpus_plate, weight * of_plates)


def masked(distribution: dist.TorchDistribution, mask: Tensor | None) -> dist.TorchDistribution:
    """The distribution with padded frames excluded from its density; the mask is (T, N)."""
    return distribution if mask is None else distribution.mask(mask)


def stacked(parts: Sequence[dist.TorchDistribution]) -> dist.TorchDistribution:
    """One distribution over all frames from one per frame, all of the same class: parameters are concatenated."""
    return rebuilt(parts, lambda parameters: torch.cat(parameters, dim=-3))


def rebuilt(parts: Sequence[dist.TorchDistribution], join: Callable[[list[Tensor]], Tensor]) -> dist.TorchDistribution:
    """One distribution from several of the same class: `join` combines each of their parameters."""
    first: Any = parts[0]
    if isinstance(first, dist.Independent):
        bases: list[Any] = [part.base_dist for part in parts]
        return dist.Independent(rebuilt(bases, join), first.reinterpreted_batch_ndims)
    names = [name for name in first.arg_constraints if name in first.__dict__]
    if {"probs", "logits"} <= {*names}:  # one of them was computed lazily and cached; the class accepts only one
        names.remove("probs")
    if not names and hasattr(first, "logits"):  # one-hot: a wrapper of a categorical distribution
        names = ["logits"]
    joined = {name: join([getattr(part, name) for part in parts]) for name in names}
    rebuilt_distribution: dist.TorchDistribution = type(first)(**joined, validate_args=False)
    return rebuilt_distribution
