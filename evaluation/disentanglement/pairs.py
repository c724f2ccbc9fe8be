"""Pairs of utterances that are decoded with each other's latent of the sequence: reading, decoding and sounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.audio.io import read_audio
from corpora.frontends.griffin_lim import griffin_lim
from corpora.frontends.stft import Stft
from corpora.loading.sequences import Prepared, collate
from corpora.types import Utterance
from dvae_pyro.errors import UserError
from evaluation.loading.splits import corpus_of, find_utterance
from evaluation.loading.waveforms import FileLog, SoundItem, as_power, read_sounds, sound_frontend
from evaluation.reporting.command_line import Request, read_run, say
from evaluation.reporting.provenance import provenance
from inference.prediction.reconstruction import decode, reconstruct
from inference.prediction.segments import cut
from inference.runs import Run, pick_dtype
from models.dvae import DVAE, ModelSettings
from models.registry import model_class, model_names

__all__ = [
    "UNUSED_DB",
    "decibels",
    "OpenPair",
    "exchangeable_latents",
    "exchanged",
    "open_pair",
    "pair_report",
    "read_pair",
    "sequence_latents",
    "short_names",
    "sounds",
]

ITERATIONS = 100
"""Iterations of the algorithm of Griffin and Lim."""

UNUSED_DB = 0.1
"""Change of the spectra below which the model is said not to use the exchanged latent."""


def sequence_latents(model: type[DVAE], settings: ModelSettings) -> tuple[str, ...]:
    """The latents that a model draws once per sequence: those that are parents without a time index.

    In a model of segments no latent has a time index; there they are the latents that other latents depend on.
    """
    parents = model.parents(settings)
    latents = model.latents_of(settings)
    children = latents if getattr(settings, "segment", None) is not None else parents
    named = {parent for site in children for parent in parents[site]}
    return tuple(name for name in latents if name in named)


def exchangeable_latents(run: Run) -> tuple[str, ...]:
    """The latents of the sequence of a run's model.

    Raises:
        UserError: the model has none.
    """
    names = sequence_latents(type(run.model), run.settings.model)
    if not names:
        classes = {name: model_class(name) for name in model_names()}
        others = ", ".join(name for name, c in classes.items() if sequence_latents(c, c.Settings(name=name)))
        raise UserError(
            f"model {run.settings.model.name} has no latent of the whole sequence to exchange. Models that have one: "
            f"{others}."
        )
    return names


def exchanged(run: Run, pair: Sequence[SoundItem], *, mode: str, latents: str) -> Tensor:
    r"""Two utterances decoded with each other's latent of the sequence.

    .. math:: w_i \sim q(w \mid x^i), \quad z^i \sim q(z \mid x^i, w_i), \quad
        \hat x^{ij}_t = E[x_t \mid z^i_{1:t}, w_j, \hat x^{ij}_{1:t-1}]

    z is inferred given the utterance's own w, as on the poster. In an FHVAE mu_2 influences the data through the z_2 of
    the segments, which are shifted by the difference of the mu_2 (Hsu, Zhang & Glass, 2017, appendix E); mu_2 is that
    of Eq. 5:

    .. math:: \hat x^{ij, (n)} = E[x \mid z_1^{i, (n)}, z_2^{i, (n)} - \mu_2^i + \mu_2^j]

    Args:
        run: a run whose model has such a latent.
        pair: the two utterances.
        mode: ``"gen"``, the model is given its own output, or ``"gt"``, the true past of x.
        latents: ``"mean"`` of each posterior, or a ``"sample"``, with the run's seed.

    Returns:
        (4, T, D), zero beyond the length of i: x^{11}, x^{12}, x^{21}, x^{22}.
    """
    batch = collate([Prepared(item.x, item.file, item.speaker, 0) for item in pair])
    x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    hop = run.settings.evaluation.segment_hop
    with torch.random.fork_rng():
        torch.manual_seed(run.settings.seed)
        own = reconstruct(run.model, run.guide, x, batch.lengths, latents=latents, mode=mode, hop=hop)
    values = _swapped(run, own.latents, x, batch.lengths)
    swapped = decode(run.model, values, x, batch.lengths, mode=mode, hop=hop)
    decoded = torch.stack([own.mean[:, 0], swapped[:, 0], swapped[:, 1], own.mean[:, 1]])
    inside = torch.arange(len(x)) < batch.lengths[torch.tensor([0, 0, 1, 1])][:, None]
    return decoded * inside.to(x.device)[..., None]


def _swapped(run: Run, latents: Mapping[str, Tensor], x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """The latents of two sequences, with the latents of the sequence swapped."""
    names = sequence_latents(type(run.model), run.settings.model)
    values = {name: value.flip(-2) if name in names else value for name, value in latents.items()}
    if run.model.segment is not None:
        row = cut(x, lengths, run.model.segment, hop=run.settings.evaluation.segment_hop).row
        values["z2"] = latents["z2"] + (values["mu2"] - latents["mu2"])[row.to(x.device)]
    return values


def sounds(
    frontend: Stft, pair: Sequence[SoundItem], decoded: Tensor, phase: str
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Power spectra (T, F) and samples of the output of `exchanged`."""
    power, samples = [], []
    for i, frames in enumerate(decoded.double().cpu()):
        item = pair[i // 2]
        power.append(as_power(frontend, frames[None, : len(item.x)])[0].numpy())
        if phase == "input":
            spectrum = np.sqrt(power[-1]) * np.exp(1j * np.angle(item.spectrum))
            samples.append(frontend.waveform(spectrum, len(item.samples)))
        else:
            batch = torch.from_numpy(power[-1])[None]
            samples.append(griffin_lim(batch, frontend, ITERATIONS, length=len(item.samples))[0].numpy())
    return power, samples


def short_names(pair: Sequence[SoundItem]) -> list[str]:
    """The file names of two utterances without suffix, with as many folders as tell them apart."""
    paths = [PurePosixPath(Path(item.file).as_posix()).with_suffix("").parts for item in pair]
    lengths = range(1, max(map(len, paths)) + 1)
    length = next((n for n in lengths if paths[0][-n:] != paths[1][-n:]), 1)
    return ["/".join(path[-length:]) for path in paths]


def decibels(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Root mean square difference of power spectra in dB over all frames and bins."""
    tiny = np.finfo(np.float64).tiny
    return float(np.sqrt(np.square(10.0 * np.log10(np.maximum(one, tiny) / np.maximum(other, tiny))).mean()))


class OpenPair(NamedTuple):
    """A run and two utterances to decode with it.

    Attributes:
        run: the run.
        latents: its latents of the sequence.
        frontend: its front end.
        items: the two utterances.
    """

    run: Run
    latents: tuple[str, ...]
    frontend: Stft
    items: list[SoundItem]


def open_pair(request: Request, names: Mapping[str, str]) -> OpenPair:
    """Open a run, and read the utterances that options, by name, ask for.

    Raises:
        UserError: the model has no latent of the sequence, the features cannot be inverted, or a file is missing.
    """
    run = read_run(request)
    latents, frontend = exchangeable_latents(run), sound_frontend(run)
    return OpenPair(run, latents, frontend, read_pair(run, request.split, names, frontend))


def read_pair(run: Run, split: str, names: Mapping[str, str], frontend: Stft) -> list[SoundItem]:
    """Read utterances, by the option that names each: sound files, or utterances of the run's corpus."""
    log = FileLog()
    utterances = [_utterance(run, split, name, option) for option, name in names.items()]
    items = list(read_sounds(utterances, frontend, "error", log))
    for line in log.lines(frontend.rate):
        say(line)
    return items


def _utterance(run: Run, split: str, name: str, option: str) -> Utterance:
    if Path(name).is_file():
        return Utterance(name, name, lambda: read_audio(name))
    utterances = corpus_of(run.settings, split).splits[split]
    return find_utterance(utterances, name, option, f"split '{split}' of {run.path}'s corpus")


def pair_report(evaluation: str, run: Run, request: Request, phase: str) -> dict[str, Any]:
    """The first keys of a report on two utterances."""
    return {
        **provenance(evaluation, run, request._replace(mode=request.mode or "gen")),
        "num_sequences": 2,
        "segment_hop": run.settings.evaluation.segment_hop,
        "phase": phase,
    }
