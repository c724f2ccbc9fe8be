"""Latents of utterances, as the guide of a run infers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError, nearest
from evaluation.loading.splits import batches
from inference.prediction.reconstruction import infer
from inference.prediction.segments import cut
from inference.runs import Run, pick_dtype

__all__ = ["Latents", "infer_latents"]


@dataclass(frozen=True)
class Latents:
    """The latents of one utterance; ``latents["z"]`` are the values of site ``z``.

    Attributes:
        file: name of the utterance in its corpus.
        speaker: its speaker, empty if unknown.
        frames: T.
        values: by site name, on the CPU: (T, L) for a latent of each frame (fewer rows at a coarser time scale), (L,)
            for a latent of the whole sequence, (K, L) for a latent of each of K segments; with draws (S, ...).
    """

    file: str
    speaker: str
    frames: int
    values: Mapping[str, Tensor]

    def __getitem__(self, site: str) -> Tensor:
        """The values of a site.

        Raises:
            UserError: the model has no such latent.
        """
        if site not in self.values:
            raise UserError(f"no latent '{site}': this model has {', '.join(self.values)}.{nearest(site, self.values)}")
        return self.values[site]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{site} {tuple(value.shape)}" for site, value in self.values.items())
        return f"Latents({self.file!r}, {self.frames} frames: {shapes})"


def infer_latents(run: Run, sequences: Sequence[Prepared], draws: int | None = None) -> list[Latents]:
    """Infer the latents of utterances with the guide of a run.

    Args:
        run: the run.
        sequences: frames of whole utterances.
        draws: S samples of the guide; None takes the mean of each conditional of the guide, given the means of those
            before it. The noise follows the run's seed.

    Returns:
        The latents of each utterance, in the order of `sequences`.

    Raises:
        UserError: `draws` is below 1.
    """
    if draws is not None and draws < 1:
        raise UserError(f"draws={draws}: expected 1 or more, or None for means.")
    results: dict[int, Latents] = {}
    with torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        for indices, batch in batches(sequences):
            x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
            values = _inferred(run, x, batch.lengths, draws)
            rows = None if run.model.segment is None else cut(batch.x, batch.lengths, run.model.segment).row
            for n, (index, frames) in enumerate(zip(indices, batch.lengths.tolist(), strict=True)):
                item = sequences[index]
                own = {name: _of_one(run, name, value, n, frames, rows, draws) for name, value in values.items()}
                results[index] = Latents(item.file, item.speaker, frames, own)
    return [results[index] for index in range(len(sequences))]


def _inferred(run: Run, x: Tensor, lengths: Tensor, draws: int | None) -> dict[str, Tensor]:
    """Values by site name, on the CPU; with draws (S, ...)."""
    if draws is None:
        return {name: value.cpu() for name, value in infer(run.model, run.guide, x, lengths).items()}
    drawn = [infer(run.model, run.guide, x, lengths, latents="sample") for _ in range(draws)]
    return {name: torch.stack([each[name].cpu() for each in drawn]) for name in drawn[0]}


def _of_one(run: Run, name: str, value: Tensor, n: int, frames: int, rows: Tensor | None, draws: int | None) -> Tensor:
    """The values of sequence n of a batch: without padded frames, or those of its segments."""
    if rows is not None and not (run.model.hierarchical and name == "mu2"):  # mu2 is shared by a sequence's segments
        return value[..., rows == n, :].clone()
    own = value[..., n, :]
    in_time = value.dim() - (draws is not None) == 3
    steps = -(-frames // run.model.strides.get(name, 1))
    return (own[..., :steps, :] if in_time else own).clone()
