r"""Speech synthesis by the source-filter model (Fant, 1960; Klatt, 1980).

The source is the derivative of the glottal flow, pulse by pulse, and aspiration noise. The filter is a cascade of
resonators, the formants of a tube of the speaker's length: formants of shorter vocal tracts are higher by the ratio of
the lengths. Nasals add a pole and a zero. Frication noise has a separate resonator. All parameters change smoothly from
one phone to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.recipes.synthetic.phones import FRAME_S, PHONES, Spoken

__all__ = ["REFERENCE_CM", "Speaker", "formant_tracks", "speak", "step_samples"]

Array = NDArray[np.float64]

#: Length of the vocal tract that the formants of `corpora.recipes.synthetic.phones.PHONES` belong to.
REFERENCE_CM = 17.0

FORMANT_SMOOTHING_S, VOICE_SMOOTHING_S, NOISE_SMOOTHING_S = 0.11, 0.045, 0.025
BURST_S, ASPIRATION_S = 0.012, 0.035
NASAL_POLE_HZ, NASAL_ZERO_HZ = 270.0, 900.0
ROOM_NOISE_DB, ECHO_DB, ECHO_S = -56.0, -17.0, 0.3
OVERSAMPLING = 4


@dataclass(frozen=True)
class Speaker:
    """A speaker.

    Attributes:
        name: Name of the speaker.
        pitch_hz: Fundamental frequency in the middle of a sentence, without stress.
        tract_length: Length of the vocal tract in cm.
        breathiness: From 0, pressed, to 1, breathy: spectral tilt and aspiration noise.
    """

    name: str
    pitch_hz: float
    tract_length: float
    breathiness: float


def step_samples(rate: int) -> int:
    """Samples per step of a sentence."""
    return max(1, round(FRAME_S * rate))


def speak(speaker: Speaker, sentence: Sequence[Spoken], rate: int, generator: torch.Generator) -> Array:
    """Synthesise a sentence.

    Args:
        speaker: The speaker.
        sentence: The phones of the sentence.
        rate: Sampling rate in Hz.
        generator: Random number generator for noise, jitter and variation of pitch.

    Returns:
        Samples with a largest absolute value of 0.5; the times of phones follow from their steps.
    """
    step = step_samples(rate)
    plan = _Plan(sentence)
    count = plan.steps * step
    at_sample = np.arange(count) / step - 0.5

    def per_sample(track: Array) -> Array:
        return np.interp(at_sample, np.arange(plan.steps), track)

    f0 = per_sample(_pitch_track(speaker, plan, generator))
    opened, pulses = _glottis(f0, rate, speaker.breathiness)
    voice = pulses * per_sample(plan.voicing)
    breath_level = plan.aspiration + plan.voicing * 10 ** ((-44 + 18 * speaker.breathiness) / 20)
    breath = _noise(count, generator) * per_sample(breath_level) * (0.4 + 0.6 * opened)
    hiss = _noise(count, generator) * per_sample(plan.noise) * np.where(per_sample(plan.voicing) > 0.01, opened, 1)

    turn = np.exp(-2j * np.pi * np.fft.rfftfreq(_transform_length(rate)))
    tract = _tract(speaker, plan, formant_tracks(sentence, generator), rate, turn)
    speech = _filtered(voice + breath, tract, step) + _filtered(hiss, _mouth(speaker, plan, rate, turn), step)
    return _record(speech, rate, generator)


class _Plan:
    """Tracks over the steps of a sentence: levels of the sources, spectrum of frication noise, nasality."""

    def __init__(self, sentence: Sequence[Spoken]) -> None:
        self.steps = sum(phone.steps for phone in sentence)
        self.voicing, self.noise, self.aspiration = (np.zeros(self.steps) for _ in range(3))
        self.nasal = np.zeros(self.steps)
        self.stress = np.zeros(self.steps)
        self.phrase = np.zeros(self.steps)
        self.noise_hz = np.full(self.steps, 4000.0)
        self.noise_width = np.full(self.steps, 2000.0)
        start = 0
        for spoken in sentence:
            span = slice(start, start + spoken.steps)
            self._place(spoken, span)
            start += spoken.steps
        self.voicing = _smooth(self.voicing, VOICE_SMOOTHING_S)
        self.noise = _smooth(self.noise, NOISE_SMOOTHING_S)
        self.aspiration = _smooth(self.aspiration, NOISE_SMOOTHING_S)
        self.nasal = _smooth(self.nasal, VOICE_SMOOTHING_S)
        self.stress = _smooth(self.stress, 0.2)
        for start, end in self.phrases():
            self.voicing[start:end] *= 10 ** (np.linspace(1.0, -5.0, end - start) / 20)

    def phrases(self) -> list[tuple[int, int]]:
        """First and last (exclusive) step of each phrase between pauses."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0.0], self.phrase, [0.0]]))).tolist()
        return list(zip(edges[::2], edges[1::2], strict=True))

    def _place(self, spoken: Spoken, span: slice) -> None:
        phone = PHONES[spoken.name]
        self.noise_hz[span], self.noise_width[span] = phone.noise_hz, phone.noise_width
        self.stress[span] = spoken.stress
        self.phrase[span] = phone.kind != "pause"
        self.nasal[span] = phone.kind == "nasal"
        self.voicing[span] = _gain(phone.voicing) * _gain(9.0 * spoken.stress - 6.0)
        if phone.kind != "plosive":
            self.noise[span] = _gain(phone.noise)
            self.aspiration[span] = _gain(phone.aspiration)
            return
        # The mouth is closed until the release: a burst, then aspiration for voiceless plosives.
        breath = round(ASPIRATION_S / FRAME_S) if phone.aspiration is not None else 0
        burst = round(BURST_S / FRAME_S)
        release = max(span.start, span.stop - breath - burst)
        self.noise[release : release + burst] = 2.0 * _gain(phone.noise)
        self.aspiration[release + burst : span.stop] = _gain(phone.aspiration)


def _gain(level: float | None) -> float:
    return 0.0 if level is None else float(10 ** (level / 20))


def _smooth(track: Array, seconds: float) -> Array:
    """A Hann-weighted moving average over `seconds`."""
    width = max(1, round(seconds / FRAME_S)) | 1
    weights = np.hanning(width + 2)[1:-1]
    padded = np.pad(track, width // 2, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def _noise(count: int, generator: torch.Generator) -> Array:
    noise: Array = torch.randn(count, generator=generator, dtype=torch.float64).numpy()
    return noise


def formant_tracks(sentence: Sequence[Spoken], generator: torch.Generator | None = None) -> Array:
    """F1, F2, F3 in Hz over the steps of a sentence, for a vocal tract of `REFERENCE_CM`: (steps, 3).

    The targets of the phones are smoothed, which creates transitions, and short vowels do not reach their targets. With
    a generator the targets of every phone vary slightly at random.
    """
    tracks = np.full((sum(phone.steps for phone in sentence), 3), np.nan)
    start = 0
    for spoken in sentence:
        phone = PHONES[spoken.name]
        if phone.kind != "pause":
            ends = np.array([phone.formants, phone.glide or phone.formants])
            if generator is not None:
                ends = ends * np.exp(0.025 * _noise(3, generator))
            ramp = np.linspace(0, 1, spoken.steps)[:, None]
            tracks[start : start + spoken.steps] = ends[0] + (ends[1] - ends[0]) * ramp
        start += spoken.steps
    known = np.flatnonzero(~np.isnan(tracks[:, 0]))
    if not len(known):
        return np.tile(PHONES["pau"].formants, (len(tracks), 1))
    columns = [np.interp(np.arange(len(tracks)), known, tracks[known, column]) for column in range(3)]
    return np.stack([np.exp(_smooth(np.log(column), FORMANT_SMOOTHING_S)) for column in columns], axis=1)


def _pitch_track(speaker: Speaker, plan: _Plan, generator: torch.Generator) -> Array:
    """Fundamental frequency over the steps: falls over each phrase, rises with stress, with random variation."""
    semitones = 3.0 * plan.stress
    for start, end in plan.phrases():
        semitones[start:end] += np.linspace(2.0, -2.0, end - start)
    semitones = _smooth(semitones, 0.06)
    semitones += 3.0 * _smooth(_noise(plan.steps, generator), 0.3)
    semitones += 0.12 * _noise(plan.steps, generator)
    return np.asarray(speaker.pitch_hz * 2 ** (semitones / 12))


def _glottis(f0: Array, rate: int, breathiness: float) -> tuple[Array, Array]:
    """The opening of the glottis (0 to 1) and the derivative of the flow, by sample.

    The glottis closes abruptly, so the spectrum is unlimited: pulses are generated at a higher rate to reduce aliasing.
    The spectral tilt depends on the speaker's breathiness.
    """
    from scipy.signal import lfilter, resample_poly

    finer = np.interp(np.arange(len(f0) * OVERSAMPLING) / OVERSAMPLING, np.arange(len(f0)), f0)
    quotient = 0.55 + 0.25 * breathiness
    cycle = np.minimum((np.cumsum(finer) / (OVERSAMPLING * rate) % 1.0) / quotient, 1.0)
    flow = 6.75 * cycle**2 * (1 - cycle)
    pulses = np.diff(flow, prepend=0.0) * rate * OVERSAMPLING / finer / 6.75
    tilt = np.exp(-2 * np.pi * (4200.0 - 2800.0 * breathiness) / (OVERSAMPLING * rate))
    pulses = lfilter([1 - tilt], [1, -tilt], pulses)
    return flow[::OVERSAMPLING], np.asarray(resample_poly(pulses, 1, OVERSAMPLING))


def _record(speech: Array, rate: int, generator: torch.Generator) -> Array:
    """Speech as recorded by a microphone in a quiet room, with weak reverberation and noise; peak 0.5."""
    from scipy.signal import fftconvolve, lfilter

    length = round(2 * ECHO_S * rate)
    echo = _noise(length, generator) * 10 ** (-3 * np.arange(length) / (ECHO_S * rate))
    echo *= _gain(ECHO_DB) / np.sqrt((echo**2).sum())
    echo[0] = 1.0
    reverberant = fftconvolve(speech, echo)[: len(speech)]
    reverberant *= 0.5 / max(np.abs(reverberant).max(), 1e-12)
    level = ROOM_NOISE_DB + 4.0 * float(_noise(1, generator)[0])
    white = _noise(len(speech), generator)
    return np.asarray(reverberant + 0.5 * _gain(level) * (0.5 * lfilter([0.2], [1, -0.97], white) + 0.3 * white))


def _transform_length(rate: int) -> int:
    """Length of the transform: enough for two steps of sound and the decay of the resonators."""
    return int(2 ** np.ceil(np.log2(0.06 * rate)))


def _filtered(source: Array, responses: NDArray[np.complex128], step: int) -> Array:
    """Filter a source with a filter that changes from step to step: responses (steps, bins).

    Overlapping windows of the source are filtered separately and added: recursive filters with abrupt changes of
    coefficients would produce clicks.
    """
    length = 2 * (responses.shape[1] - 1)
    window = 0.5 - 0.5 * np.cos(np.pi * (np.arange(2 * step) + 0.5) / step)
    padded = np.pad(source, (step // 2, 2 * step))
    blocks = np.lib.stride_tricks.sliding_window_view(padded, 2 * step)[::step][: len(responses)] * window
    filtered = np.fft.irfft(np.fft.rfft(blocks, length) * responses, length)
    out = np.zeros((len(responses) - 1) * step + length)
    for index, block in enumerate(filtered):
        out[index * step : index * step + length] += block
    return out[step // 2 : step // 2 + len(source)]


def _resonance(hertz: Array, width: Array, rate: int, turn: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Response of a two-pole resonator of unit gain at 0 Hz: hertz (steps,) or (), result (steps, bins)."""
    radius = np.exp(-np.pi * width / rate)
    a1, a2 = -2 * radius * np.cos(2 * np.pi * hertz / rate), radius**2
    response: NDArray[np.complex128] = (1 + a1 + a2)[..., None] / (1 + a1[..., None] * turn + a2[..., None] * turn**2)
    return response


def _tract(
    speaker: Speaker, plan: _Plan, tracks: Array, rate: int, turn: NDArray[np.complex128]
) -> NDArray[np.complex128]:
    """Response of the vocal tract, with the nose for nasals, at each step: (steps, bins)."""
    scale = REFERENCE_CM / speaker.tract_length
    # From the fourth formant on: constant, those of a tube closed at one end.
    tube = 1000.0 * np.arange(3.5, 20) * scale
    response = np.ones_like(turn)
    for hertz in tube[tube < 0.47 * rate]:
        response = response * _resonance(hertz, _damping(hertz), rate, turn)
    tract: NDArray[np.complex128] = np.tile(response, (plan.steps, 1))
    for number in range(3):
        hertz = np.minimum(tracks[:, number] * scale, 0.47 * rate)
        # Nasals damp all formants, an open glottis damps the first.
        width = _damping(hertz) * (1.0 + 0.6 * plan.nasal)
        if number == 0:
            width += 60.0 * speaker.breathiness + 300.0 * np.minimum(1.0, 6.0 * plan.aspiration)
        tract *= _resonance(hertz, width, rate, turn)
    nasal = np.flatnonzero(plan.nasal > 1e-3)
    pole = np.full(len(nasal), NASAL_POLE_HZ * scale)
    zero = pole + (NASAL_ZERO_HZ - NASAL_POLE_HZ) * scale * plan.nasal[nasal]
    wide = np.full(len(nasal), 90.0)
    tract[nasal] *= _resonance(pole, wide, rate, turn) / _resonance(zero, wide, rate, turn)
    return tract


def _damping(hertz: Array) -> Array:
    """Bandwidth of a formant in Hz."""
    return np.asarray(45.0 + 0.02 * hertz + 1.2e-5 * hertz**2)


def _mouth(speaker: Speaker, plan: _Plan, rate: int, turn: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Response of the cavity in front of the tongue at each step, scaled to unit power: (steps, bins)."""
    # It varies less between speakers than the vocal tract as a whole.
    hertz = np.minimum(plan.noise_hz * (REFERENCE_CM / speaker.tract_length) ** 0.5, 0.45 * rate)
    response = np.zeros((plan.steps, len(turn)), dtype=np.complex128)
    loud = np.flatnonzero(plan.noise > 1e-5)
    if len(loud):
        shaped = _resonance(hertz[loud], plan.noise_width[loud], rate, turn) * (1 - turn) * (1 - 0.5 * turn**2)
        response[loud] = shaped / np.sqrt((np.abs(shaped) ** 2).mean(axis=1, keepdims=True))
    return response
