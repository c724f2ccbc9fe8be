"""One pass over a batch: what is observed, which frames are real, and the sample statements of all frames."""

from __future__ import annotations

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
    ragged,
    same,
)
from models.core.grouping import SequenceIndex, SharedSiteWeight

__all__ = ["Sites", "masked", "rebuilt", "stacked"]


class Sites:
    """One pass over a batch: its data, mask and plates, and the sites registered so far.

    Args:
        data: the observed sequences by site name, each (T, N, D); None where the site is to be generated.
        lengths: frames per sequence, (N,), on the CPU, where they are looked at.
        sizes: the dimension of every site, which says how large the zeros before the first frame are.
        like: a tensor whose type and device everything has.
        rows: the sequences of a corpus that these are segments of. The plates are then ``segments`` (all of the corpus,
            of which these are a subsample), ``time`` and, for what a sequence's segments share, ``sequences``.
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
        mask = torch.arange(self.frames, device=lengths.device)[:, None] < lengths
        self.mask = mask.to(like.device) if ragged(lengths, self.frames) else None
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
            self.levels = {"sequences": SharedPlate.of("sequences", rows, like)}
        self.registered: dict[str, Tensor] = {}
        self._foreseen: dict[str, Anticipated] = {}
        self.frames_of: dict[str, list[tuple[Tensor, bool]]] = {name: [] for name in data}
        """What single frames of observed sites became, and whether that is what was given."""
        self.stride = 1
        self._coarser: dict[int, Sites] = {}
        self.step: Callable[[Any], None] | None = None
        """The step that is run over it, for handlers that need to run it again."""

    def coarser(self, stride: int) -> Sites:
        """The same batch at a time scale of its own: one frame from every `stride` frames of the data, the last perhaps
        only begun.

        It has a plate of its own, ``time_<stride>``, the same for every call, and no data.
        """
        if stride == self.stride:
            return self
        if stride not in self._coarser:
            scale, steps = copy(self), stride // self.stride
            scale.stride = stride
            scale.lengths = -(-self.lengths // steps)
            scale.frames = -(-self.frames // steps)
            scale.mask = None if self.mask is None else self.mask[::steps]
            scale.plates = (self.plates[0], pyro.plate(f"time_{stride}", scale.frames, dim=-2))
            scale.data = {}
            scale._foreseen = {}
            self._coarser[stride] = scale
        return self._coarser[stride]

    def zeroed(self, u: Tensor) -> Tensor:
        """u (..., T, N, C) with zeros in the frames that are no frames."""
        return u if self.mask is None else u.masked_fill(~self.mask[..., None], 0.0)

    def _checked(self, name: str, x: Tensor) -> Tensor:
        expected = (self.frames, self.sequences, self.sizes[name])
        if x.shape != expected:
            raise ValueError(
                f"{name} has shape {tuple(x.shape)}, expected (frames, sequences, dimension) = {expected}: "
                "pass time-major batches whose lengths (N,) have the longest sequence's frames as maximum"
            )
        return self.zeroed(x)

    def value(self, name: str) -> Tensor | None:
        """All frames of a site, if they are settled already: observed, registered, or going to be set by a handler."""
        if name in self.registered:
            return self.registered[name]
        value: Tensor | None = self.foreseen(name).value
        return value

    def outcome(self, name: str) -> Tensor | None:
        """All frames of an observed site, or of one to be observed; None where they are the data."""
        frames = self.frames_of[name]
        if frames:
            return None if all(given for _, given in frames) else torch.cat([value for value, _ in frames], dim=-3)
        value = self.registered[name]
        return None if value is self.data.get(name) else value

    def foreseen(self, name: str) -> Anticipated:
        """What handlers are going to do at a site of all frames, before it has a distribution."""
        if name not in self._foreseen:
            shape = (*self.leading, self.frames, self.sequences, self.sizes.get(name, 1))
            self._foreseen[name] = foreseen(name, shape, self.like, self.data.get(name))
        return self._foreseen[name]

    def register(
        self, name: str, distribution: dist.TorchDistribution, value: Tensor | None = None, axis: Any = None
    ) -> Tensor:
        """The Pyro sample statement of all frames of a site, in both plates; the value that it returns.

        Args:
            name: the site.
            distribution: of all frames.
            value: the value that other frames have been computed from already, unless `foreseen` has it. None draws
                one, if no handler sets it.
            axis: the frames, for handlers of the effect ``draw``.

        Raises:
            UserError: if the site gets another value than the one that other frames have been computed from, or all its
                values.
        """
        distribution = self.expanded(distribution, self.frames)
        known, data = self._foreseen.get(name), self.data.get(name)
        used, own = value, {} if value is None else {name: value}
        if known is not None:
            data = data if known.observed else None
            used, own = (used, own) if known.value is None else (known.value, {})
        if used is None and data is None:
            own = own_draw(name, distribution, axis)
        if used is not None and distribution.has_enumerate_support and anticipated(name, distribution).enumerated:
            raise UserError(
                f"site '{name}' is to be enumerated, and the frames after each look back at it. All frames at once "
                "cannot be: run model and guide with how='stepwise'."
            )
        sequences, time = self.plates
        with sequences, time, Given(own):
            whole: Any = masked(distribution, self.mask)
            if own and not whole.has_rsample:
                whole.score_parts = partial(_refuse_score, name, whole)
            returned: Tensor = pyro.sample(name, whole, obs=data)
        if used is not None and not same(returned, used):
            raise UserError(
                f"a handler gives site '{name}' another value than it had told beforehand, and other frames have been "
                "computed from that one. Run model and guide with how='stepwise', where each frame follows from the "
                "values of those before it; or let the handler set the value in _pyro_sample, the same one each time."
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

    def level(self, plate: str = "sequences") -> SharedPlate:
        """Which sequences, or sessions of them, are in the batch."""
        if self.rows is None:
            raise ValueError(f"what segments of {plate} share: this batch has no rows")
        if plate not in self.levels:
            self.levels[plate] = SharedPlate.of(plate, self.rows.sessions, self.like)
        return self.levels[plate]

    def shared(self, name: str, distribution: dist.TorchDistribution, plate: str = "sequences", **infer: Any) -> Tensor:
        r"""A site per sequence of the corpus, whose segments share it; each of them gets its value: (N, L).

        The site holds the U sequences that have segments in the batch, (U, L), or (..., 1, U, L) with particles. With
        N^{(i)} segments in the corpus, n_i of them in the batch, the log-density of sequence i has the weight of n_i of
        its N^{(i)} segments: of Hsu et al. (2017), Eq. 2, the sum over the batch. `infer` is the site's. With the plate
        ``"sessions"`` it is one of each session of sequences.
        """
        level = self.level(plate)
        if name not in self.registered:
            shape = (*self.leading, *([1] if self.leading else []), len(level.present))
            distribution = distribution.expand(torch.broadcast_shapes(shape, distribution.batch_shape))
            own = own_draw(name, distribution)
            with level.plate, poutine.scale(scale=level.weight), Given(own):
                value = pyro.sample(name, distribution, infer=cast(Any, {"share": level.share, **infer}))
            self.registered[name] = value
        return self.registered[name][..., level.share.entry, :]

    def expanded(self, distribution: dist.TorchDistribution, frames: int) -> dist.TorchDistribution:
        """The distribution with its batch shape written out: (..., frames, N), or (N,) for `frames` = 0.

        Raises:
            UserError: for a plate around the program in dimensions of its own.
        """
        if self._misplaced is not None:
            raise UserError(
                f"plate '{self._misplaced}' around the program is at dim -1 or -2, which are those of sequences and "
                "frames. Put it at dim=-3 (max_plate_nesting=2). Predictive(parallel=True) takes the first dimension "
                "that no site uses, which is right for models and guides with latents in frames and how='auto'; for "
                "others leave parallel out."
            )
        shape = (*self.leading, frames, self.sequences) if frames else (self.sequences,)
        return distribution.expand(torch.broadcast_shapes(shape, distribution.batch_shape))


def _refuse_score(name: str, distribution: dist.TorchDistribution, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    """`score_parts` of a distribution that is not reparametrised, where all frames are one site."""
    if torch.is_grad_enabled():
        raise UserError(
            f"latent '{name}' is drawn for all frames at once and is not reparametrised. The gradient of its score "
            "would take frames for independent, as plate 'time' says, and leave out what later ones owe to a draw. Run "
            "model and guide with how='stepwise', or enumerate the latent (TraceEnum_ELBO)."
        )
    return type(distribution).score_parts(distribution, value, *args, **kwargs)


class SharedPlate(NamedTuple):
    """The sequences that the segments of a batch are of, or their sessions.

    Attributes:
        present: the U of them that there are, by their rows, sorted.
        first: a segment of each, (U,).
        share: what each segment has of them.
        plate: of all of the corpus, of which these are a subsample.
        weight: of each one's log-density, (U,): n_i / N_i (Hsu et al., 2017, Eq. 2, summed over the n_i segments of
            sequence i in the batch), over what the scales of its plate and of the segments' differ by.
    """

    present: Tensor
    first: Tensor
    share: SharedSiteWeight
    plate: Any
    weight: Tensor

    @classmethod
    def of(cls, plate: str, rows: SequenceIndex, like: Tensor) -> SharedPlate:
        # on the CPU, where the numbers are: how many sequences there are would have to be waited for on a GPU
        present, entry = rows.row.cpu().unique(return_inverse=True)
        counts = rows.counts.to("cpu", like.dtype)
        first = torch.full_like(present, len(entry)).scatter_reduce(0, entry, torch.arange(len(entry)), "amin")
        weight = counts.new_zeros(len(present)).index_add_(0, entry, 1.0 / counts)  # n_i / N_i
        of_plates = (rows.segments / len(entry)) / (rows.sequences / len(present))
        moved = [v.to(like.device, non_blocking=True) for v in (present, entry, first, counts, weight)]
        present, entry, first, counts, weight = moved
        share = SharedSiteWeight(entry, counts)
        whole = pyro.plate(plate, rows.sequences, subsample=present, dim=-1)
        return cls(present, first, share, whole, weight * of_plates)


def masked(distribution: dist.TorchDistribution, mask: Tensor | None) -> dist.TorchDistribution:
    """The distribution with the frames that are no frames left out of its density; the mask is (T, N)."""
    return distribution if mask is None else distribution.mask(mask)


def stacked(parts: Sequence[dist.TorchDistribution]) -> dist.TorchDistribution:
    """One distribution over all frames from one for each, all of a kind: their parameters are joined."""
    return rebuilt(parts, lambda parameters: torch.cat(parameters, dim=-3))


def rebuilt(parts: Sequence[dist.TorchDistribution], join: Callable[[list[Tensor]], Tensor]) -> dist.TorchDistribution:
    """One distribution from several of a kind, each of its parameters made of theirs by `join`."""
    first: Any = parts[0]
    if isinstance(first, dist.Independent):
        bases: list[Any] = [part.base_dist for part in parts]
        return dist.Independent(rebuilt(bases, join), first.reinterpreted_batch_ndims)
    names = [name for name in first.arg_constraints if name in first.__dict__]
    if {"probs", "logits"} <= {*names}:  # one of them was asked for and kept; the class takes one
        names.remove("probs")
    if not names and hasattr(first, "logits"):  # one-hot: they are those of its categorical distribution
        names = ["logits"]
    joined = {name: join([getattr(part, name) for part in parts]) for name in names}
    whole: dist.TorchDistribution = type(first)(**joined, validate_args=False)
    return whole
