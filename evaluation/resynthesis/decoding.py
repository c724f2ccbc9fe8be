"""Resynthesis of utterances: encode, decode, combine the model's amplitude with the phase of the input, invert."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.audio.io import mix_to_mono, resample
from corpora.frontends.stft import Stft
from corpora.loading.sequences import Prepared, by_length, collate
from corpora.types import Sound, Utterance
from evaluation.loading.waveforms import FileLog, SoundItem, read_sounds, sound_frontend
from evaluation.resynthesis.metrics import itakura_saito
from inference.prediction.reconstruction import reconstruct
from inference.runs import Run, pick_dtype

__all__ = ["Resynthesis", "resynthesise", "resynthesise_recording"]

FRAMES_AT_ONCE = 12000
"""Padded frames that go through the model together."""
READ_AHEAD = 8
"""Batches' worth of utterances that are read and sorted by length."""


class Resynthesis(NamedTuple):
    """The resynthesis of one utterance.

    Attributes:
        number: position of the utterance in the list.
        file: its name.
        speaker: its speaker.
        frames: T.
        reference: the input (n,), trimmed and divided by its largest absolute value.
        estimate: the resynthesis (n,), on the same scale.
        rate: sampling rate of both in Hz.
        is_per_frame: Itakura-Saito divergence of input and model, mean over frames of the sum over bins.
        kl_per_frame: KL of posterior and prior in nats, summed over latents, divided by T.
    """

    number: int
    file: str
    speaker: str
    frames: int
    reference: NDArray[np.float64]
    estimate: NDArray[np.float64]
    rate: int
    is_per_frame: float
    kl_per_frame: float


def resynthesise(
    run: Run,
    utterances: Iterable[Utterance],
    *,
    mode: str | None = None,
    latents: str | None = None,
    log: FileLog | None = None,
    frames_at_once: int = FRAMES_AT_ONCE,
) -> Iterator[Resynthesis]:
    r"""Encode and decode whole utterances; the estimate has the model's amplitude :math:`\sigma` and the
    input's phase.

    Utterances of similar length go through the model together, so results come out of order (see
    `Resynthesis.number`). The result of an utterance does not depend on the others, except for the noise of
    `latents` = "sample".

    Args:
        run: the run.
        utterances: what to resynthesise.
        mode: "gt", the decoder is given the true past, or "gen", its own output; None is the run's
            `evaluation.mode`.
        latents: "mean" or "sample" of the posterior; None is the run's `evaluation.latents`. The noise follows the
            run's seed.
        log: records what happened to the files.
        frames_at_once: bound on the padded frames that go through the model together; a single utterance may exceed
            it.

    Raises:
        UserError: the features of the run cannot be inverted, or a file is broken.

    Yields:
        The resyntheses.
    """
    frontend, evaluation = sound_frontend(run), run.settings.evaluation
    items = read_sounds(utterances, frontend, run.settings.data.on_error, FileLog() if log is None else log)
    for number, batch in enumerate(_by_length(items, frames_at_once)):
        with torch.random.fork_rng():
            torch.manual_seed(run.settings.seed + 1_000_003 * number)
            results = _decode(run, frontend, batch, mode or evaluation.mode, latents or evaluation.latents)
        yield from results


def resynthesise_recording(
    run: Run, sound: Sound, *, mode: str | None = None, latents: str | None = None
) -> NDArray[np.float64]:
    """Resynthesise a whole recording, without trimming.

    Args:
        run: the run.
        sound: the recording; several channels are mixed.
        mode: as of `resynthesise`.
        latents: as of `resynthesise`.

    Returns:
        Samples (n,), of the number, rate and level of the recording's.

    Raises:
        UserError: the features of the run cannot be inverted, or the recording is silent, too short or not finite.
    """
    rate, length = sound_frontend(run).rate, len(sound.samples)
    mono = resample(mix_to_mono(sound.samples), sound.rate, rate)
    data = replace(run.settings.data, trim_db=None, on_error="error")
    untrimmed = run._replace(settings=replace(run.settings, data=data))
    recording = Utterance("the recording", "", lambda: Sound(mono[:, None], rate))
    (result,) = resynthesise(untrimmed, [recording], mode=mode, latents=latents)
    samples = resample(result.estimate * np.abs(mono).max(), rate, sound.rate)
    return np.pad(samples, (0, max(0, length - len(samples))))[:length]  # resampling rounds the number of samples


def _by_length(items: Iterator[SoundItem], frames_at_once: int) -> Iterator[list[SoundItem]]:
    """Batches of similar length; at most `READ_AHEAD` batches are read ahead."""
    waiting: list[SoundItem] = []
    for item in items:
        waiting.append(item)
        if sum(len(s.x) for s in waiting) >= READ_AHEAD * frames_at_once:
            yield from by_length(waiting, frames_at_once)
            waiting = []
    yield from by_length(waiting, frames_at_once)


def _decode(run: Run, frontend: Stft, items: list[SoundItem], mode: str, latents: str) -> list[Resynthesis]:
    batch = collate([Prepared(item.x, item.file, item.speaker, 0) for item in items])
    x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    hop = run.settings.evaluation.segment_hop
    reconstruction = reconstruct(run.model, run.guide, x, batch.lengths, latents=latents, mode=mode, hop=hop)
    means = reconstruction.mean.to(device="cpu", dtype=torch.float64).numpy()
    kl = torch.stack(list(reconstruction.terms.kl.values())).sum(0).tolist()
    results = []
    for n, item in enumerate(items):
        frames = len(item.x)
        variance = frontend.power(np.ascontiguousarray(means[:frames, n]))
        # np.angle of an exactly zero bin is 0.
        estimate = frontend.waveform(np.sqrt(variance) * np.exp(1j * np.angle(item.spectrum)), len(item.samples))
        divergence = itakura_saito(frontend.power(item.x.numpy()), variance)
        results.append(
            Resynthesis(
                number=item.number,
                file=item.file,
                speaker=item.speaker,
                frames=frames,
                reference=item.samples,
                estimate=estimate,
                rate=frontend.rate,
                is_per_frame=float(divergence.mean()),
                kl_per_frame=kl[n] / frames,
            )
        )
    return results
