"""From utterances to their resynthesis: encode, decode, take the phase of the input, transform back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.frontends.base import FrontEnd
from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import Prepared, by_length, collate
from corpora.registry import holds_frames
from corpora.types import AudioFault, Utterance
from dvae_pyro.errors import UserError
from evaluation.resynthesis.metrics import itakura_saito
from inference.prediction.reconstruction import reconstruct
from inference.runs import Run, pick_dtype

__all__ = ["Faults", "Invertible", "Resynthesis", "Spoken", "frontend_of", "read_spoken", "resynthesise"]

FRAMES_AT_ONCE = 12000  # padded frames that go through the model together
READ_AHEAD = 8  # batches' worth of utterances that are read and sorted by length


@runtime_checkable
class Invertible(FrontEnd, Protocol):
    """A front end whose features lead back to a waveform."""

    def power(self, features: NDArray[np.floating]) -> NDArray[np.float64]: ...

    def spectrum(self, waveform: NDArray[np.float64]) -> NDArray[np.complex128]: ...

    def waveform(self, spectrum: NDArray[np.complex128], length: int | None = None) -> NDArray[np.float64]: ...


class Spoken(NamedTuple):
    """An utterance ready to be encoded: its place in the list, samples (num_samples,) and spectrum (T, F)."""

    place: int
    file: str
    speaker: str
    samples: NDArray[np.float64]
    spectrum: NDArray[np.complex128]
    x: torch.Tensor


class Resynthesis(NamedTuple):
    """What a run made of one utterance.

    Attributes:
        place: of the utterance in the list.
        file: its name.
        speaker: who speaks.
        frames: T.
        reference: the input (n,): trimmed, divided by its largest absolute value.
        estimate: the resynthesis (n,), on the same scale.
        rate: of both, in Hz.
        is_per_frame: Itakura-Saito divergence of input and model, mean over frames of the sum over bins.
        kl_per_frame: KL of posterior and prior in nats, summed over latents, divided by T.
    """

    place: int
    file: str
    speaker: str
    frames: int
    reference: NDArray[np.float64]
    estimate: NDArray[np.float64]
    rate: int
    is_per_frame: float
    kl_per_frame: float


@dataclass
class Faults:
    """What happened to the files that were read, told afterwards."""

    broken: dict[str, str] = field(default_factory=dict)
    rates: Counter[int] = field(default_factory=Counter)
    mixed: int = 0

    def lines(self, rate: int) -> list[str]:
        """One line for each kind of thing that happened."""
        found = [f"resampled {n} files from {r} Hz to {rate} Hz" for r, n in sorted(self.rates.items()) if r != rate]
        if self.mixed:
            found.append(f"mixed {self.mixed} files from several channels to mono")
        if self.broken:
            names = ", ".join(f"{file} ({fault})" for file, fault in self.broken.items())
            found.append(f"skipped {len(self.broken)} broken files: {names}")
        return found


def frontend_of(run: Run) -> Invertible:
    """The front end of a run, which must lead back to a waveform."""
    frontend = open_frontend(run.settings.data, run.settings.model.bins)
    if not isinstance(frontend, Invertible):
        data = run.settings.data
        if holds_frames(data):
            raise UserError(
                f"{run.path} is of corpus '{data.corpus}', which holds no sound: nothing can be resynthesised.\n"
                f"How likely its held-out data is: python -m evaluation.likelihood {run.path}"
            )
        raise UserError(
            f"{run.path} uses front end '{data.frontend}', which leads back to no waveform.\n"
            "Resynthesis needs a run with data.frontend=stft."
        )
    return frontend


def read_spoken(
    utterances: Iterable[Utterance], frontend: Invertible, on_error: str, faults: Faults
) -> Iterator[Spoken]:
    """Read utterances whole.

    Args:
        utterances: what to read.
        frontend: makes features and spectrum.
        on_error: ``"error"`` stops at a broken file, ``"skip"`` notes it in `faults`.
        faults: is told what happened.
    """
    for index, utterance in enumerate(utterances):
        try:
            sound = utterance.sound()
            samples = frontend.prepare(sound)
        except AudioFault as fault:
            if on_error == "error":
                raise UserError(
                    f"cannot use {utterance.file}: it {fault.fault}.\n"
                    "Mend or remove the file, or leave out all broken files with data.on_error=skip."
                ) from None
            faults.broken[utterance.file] = fault.fault
            continue
        faults.rates[sound.rate] += 1
        faults.mixed += sound.samples.shape[1] > 1
        x = torch.from_numpy(frontend.features(samples))
        yield Spoken(index, utterance.file, utterance.speaker, samples, frontend.spectrum(samples), x)


def resynthesise(
    run: Run,
    utterances: Iterable[Utterance],
    *,
    mode: str | None = None,
    latents: str | None = None,
    faults: Faults | None = None,
    frames_at_once: int = FRAMES_AT_ONCE,
) -> Iterator[Resynthesis]:
    r"""Encode and decode whole utterances; the estimate has the model's amplitude :math:`\sigma` and the
    input's phase.

    Utterances of similar length go through the model together, so results come out of order
    (`Resynthesis.place` is the order); what comes out for one does not depend on the others, but for the
    noise of `latents` = "sample".

    Args:
        run: the run.
        utterances: what to resynthesise.
        mode: "gt", the decoder sees the true past, or "gen", its own output; None is the run's
            `evaluation.mode`.
        latents: "mean" or "sample" of the posterior; None is the run's `evaluation.latents`. Noise is that of
            the run's seed.
        faults: is told what happened to the files.
        frames_at_once: bound on the padded frames that go through the model together; one utterance may have
            more.

    Yields:
        The resyntheses.
    """
    frontend = frontend_of(run)
    spoken = read_spoken(utterances, frontend, run.settings.data.on_error, Faults() if faults is None else faults)
    for number, batch in enumerate(_by_length(spoken, frames_at_once)):
        with torch.random.fork_rng():
            torch.manual_seed(run.settings.seed + 1_000_003 * number)
            made = _decode(
                run,
                frontend,
                batch,
                mode or run.settings.evaluation.mode,
                latents or run.settings.evaluation.latents,
            )
        yield from made


def _by_length(spoken: Iterator[Spoken], frames_at_once: int) -> Iterator[list[Spoken]]:
    """Batches of similar length, reading no more than some batches ahead."""
    waiting: list[Spoken] = []
    for item in spoken:
        waiting.append(item)
        if sum(len(s.x) for s in waiting) >= READ_AHEAD * frames_at_once:
            yield from by_length(waiting, frames_at_once)
            waiting = []
    yield from by_length(waiting, frames_at_once)


def _decode(run: Run, frontend: Invertible, spoken: list[Spoken], mode: str, latents: str) -> list[Resynthesis]:
    batch = collate([Prepared(s.x, s.file, s.speaker, 0) for s in spoken])
    x = batch.x.to(device=run.settings.device, dtype=pick_dtype(run.settings.dtype))
    hop = run.settings.evaluation.segment_hop
    out = reconstruct(run.model, run.guide, x, batch.lengths, latents=latents, mode=mode, hop=hop)
    variances = out.mean.to(device="cpu", dtype=torch.float64).numpy()
    kl = torch.stack(list(out.terms.kl.values())).sum(0).tolist()
    made = []
    for n, item in enumerate(spoken):
        frames = len(item.x)
        variance = frontend.power(np.ascontiguousarray(variances[:frames, n]))
        # The phase of a bin that is exactly zero is that of +0: no phase is better, and none is heard.
        estimate = frontend.waveform(np.sqrt(variance) * np.exp(1j * np.angle(item.spectrum)), len(item.samples))
        divergence = itakura_saito(frontend.power(item.x.numpy()), variance)
        made.append(
            Resynthesis(
                place=item.place,
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
    return made
