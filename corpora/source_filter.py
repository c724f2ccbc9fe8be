r"""A voice: speech by the source-filter model (Fant, 1960; Klatt, 1980).

The source is the derivative of the flow through the glottis, pulse by pulse, and the noise of the breath. The
filter is a cascade of resonators, the formants of a tube of the speaker's length: formants of shorter vocal
tracts lie higher by the ratio of the lengths. Nasals add a pole and a zero. Noise made in the mouth has a
resonator of its own. All parameters move smoothly from one phone to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.phones import FRAME_S, PHONES, Spoken

__all__ = ["REFERENCE_CM", "Speaker", "formant_tracks", "speak", "step_samples"]

Array = NDArray[np.float64]

#: Length of the vocal tract that the formants of `corpora.phones.PHONES` belong to.
REFERENCE_CM = 17.0

FORMANT_SMOOTHING_S, VOICE_SMOOTHING_S, NOISE_SMOOTHING_S = 0.08, 0.03, 0.015
BURST_S, ASPIRATION_S = 0.012, 0.035
NASAL_POLE_HZ, NASAL_ZERO_HZ = 270.0, 900.0
ROOM_NOISE = 10 ** (-58 / 20)


@dataclass(frozen=True)
class Speaker:
    """Who speaks.

    Attributes:
        name: Name of the speaker.
        pitch_hz: Fundamental frequency in the middle of a sentence, without stress.
        tract_length: Length of the vocal tract in cm.
        breathiness: From 0, pressed, to 1, breathy: steepness of the spectrum and noise of the breath.
    """

    name: str
    pitch_hz: float
    tract_length: float
    breathiness: float


def step_samples(rate: int) -> int:
    """Samples per step of a sentence's plan."""
    return max(1, round(FRAME_S * rate))


def speak(speaker: Speaker, sentence: Sequence[Spoken], rate: int, generator: torch.Generator) -> Array:
    """Say a sentence.

    Args:
        speaker: Who says it.
        sentence: What is said.
        rate: Sampling rate in Hz.
        generator: Where noise, jitter and small changes of pitch come from.

    Returns:
        Samples with a largest absolute value of 0.5; phones lie where the steps of the sentence put them.
    """
    from scipy.signal import lfilter, sosfilt

    step = step_samples(rate)
    plan = _Plan(sentence)
    count = plan.steps * step
    at_sample = np.arange(count) / step - 0.5

    def per_sample(track: Array) -> Array:
        return np.interp(at_sample, np.arange(plan.steps), track)

    f0 = per_sample(_pitch_track(speaker, plan, generator))
    phase = np.cumsum(f0) / rate
    opened, pulses = _glottis(phase, f0, rate, speaker.breathiness)
    tilt = np.exp(-2 * np.pi * (4500.0 - 3000.0 * speaker.breathiness) / rate)
    voice = lfilter([1 - tilt], [1, -tilt], pulses) * per_sample(plan.voicing)
    breath_level = plan.aspiration + plan.voicing * 10 ** ((-44 + 18 * speaker.breathiness) / 20)
    breath = _noise(count, generator) * per_sample(breath_level) * (0.4 + 0.6 * opened)
    tract = _tract_sections(speaker, plan, sentence, rate, generator)
    mouth = _mouth_sections(speaker, plan, rate)
    hiss = (
        _noise(count, generator)
        * per_sample(plan.noise)
        * np.where(per_sample(plan.voicing) > 0.01, opened, 1)
    )

    out = np.zeros(count)
    tract_state, mouth_state = np.zeros((tract.shape[1], 2)), np.zeros((mouth.shape[1], 2))
    for index in range(plan.steps):
        span = slice(index * step, (index + 1) * step)
        out[span], tract_state = sosfilt(tract[index], voice[span] + breath[span], zi=tract_state)
        if plan.noise[index] > 1e-5:
            noise, mouth_state = sosfilt(mouth[index], hiss[span], zi=mouth_state)
            out[span] += noise
        else:
            mouth_state = np.zeros_like(mouth_state)
    out *= 0.5 / max(np.abs(out).max(), 1e-12)
    room = lfilter([0.3], [1, -0.9], _noise(count, generator)) * 0.5 + 0.3 * _noise(count, generator)
    return np.asarray(out + ROOM_NOISE * 0.5 * room)


class _Plan:
    """The sentence as tracks over its steps: levels of the three sources, shape of the mouth's noise, nasality."""

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

    def _place(self, spoken: Spoken, span: slice) -> None:
        phone = PHONES[spoken.name]
        self.noise_hz[span], self.noise_width[span] = phone.noise_hz, phone.noise_width
        self.stress[span] = spoken.stress
        self.phrase[span] = phone.kind != "pause"
        self.nasal[span] = phone.kind == "nasal"
        self.voicing[span] = _gain(phone.voicing) * 10 ** (3 * spoken.stress / 20)
        if phone.kind != "plosive":
            self.noise[span] = _gain(phone.noise)
            self.aspiration[span] = _gain(phone.aspiration)
            return
        # The mouth is shut until the release: a burst, then the breath of voiceless plosives.
        breath = round(ASPIRATION_S / FRAME_S) if phone.aspiration is not None else 0
        burst = round(BURST_S / FRAME_S)
        release = max(span.start, span.stop - breath - burst)
        self.noise[release : release + burst] = 2.0 * _gain(phone.noise)
        self.aspiration[release + burst : span.stop] = _gain(phone.aspiration)


def _gain(level: float | None) -> float:
    return 0.0 if level is None else float(10 ** (level / 20))


def _smooth(track: Array, seconds: float) -> Array:
    """A running mean, Hann-weighted, over `seconds`."""
    width = max(1, round(seconds / FRAME_S)) | 1
    weights = np.hanning(width + 2)[1:-1]
    padded = np.pad(track, width // 2, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def _noise(count: int, generator: torch.Generator) -> Array:
    noise: Array = torch.randn(count, generator=generator, dtype=torch.float64).numpy()
    return noise


def formant_tracks(sentence: Sequence[Spoken], generator: torch.Generator | None = None) -> Array:
    """F1, F2, F3 in Hz over the steps of a sentence, for a vocal tract of `REFERENCE_CM`: (steps, 3).

    Each phone pulls towards its targets; smoothing makes the transitions, and short vowels miss their targets.
    With a generator every phone varies a little from one time to the next.
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
    """Fundamental frequency over the steps: it falls through each phrase, rises with stress, and wavers."""
    semitones = 3.0 * plan.stress
    edges = np.flatnonzero(np.diff(np.concatenate([[0.0], plan.phrase, [0.0]])))
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        semitones[start:end] += np.linspace(2.0, -2.0, end - start)
    semitones = _smooth(semitones, 0.06)
    semitones += 3.0 * _smooth(_noise(plan.steps, generator), 0.3)
    semitones += 0.12 * _noise(plan.steps, generator)
    return np.asarray(speaker.pitch_hz * 2 ** (semitones / 12))


def _glottis(phase: Array, f0: Array, rate: int, breathiness: float) -> tuple[Array, Array]:
    """How far the glottis is open (0 to 1) and the derivative of the flow, by sample.

    The derivative is taken as a difference of the flow, which averages it over a sample and so damps what would
    alias.
    """
    quotient = 0.55 + 0.25 * breathiness
    cycle = np.minimum((phase % 1.0) / quotient, 1.0)
    flow = 6.75 * cycle**2 * (1 - cycle)
    return flow, np.diff(flow, prepend=0.0) * rate / f0 / 6.75


def _resonators(hertz: Array, width: Array, rate: int) -> Array:
    """Two-pole sections of unit gain at 0 Hz: (..., 6)."""
    radius = np.exp(-np.pi * width / rate)
    a1, a2 = -2 * radius * np.cos(2 * np.pi * hertz / rate), radius**2
    zero, one = np.zeros_like(a1), np.ones_like(a1)
    return np.stack([1 + a1 + a2, zero, zero, one, a1, a2], axis=-1)


def _tract_sections(
    speaker: Speaker, plan: _Plan, sentence: Sequence[Spoken], rate: int, generator: torch.Generator
) -> Array:
    """The cascade for each step: (steps, sections, 6)."""
    scale = REFERENCE_CM / speaker.tract_length
    tube = 250.0 * np.arange(7, 40, 2) * 2.0 * scale
    upper = tube[tube < 0.47 * rate]
    tracks = formant_tracks(sentence, generator) * scale
    hertz = np.concatenate([tracks, np.tile(upper, (plan.steps, 1))], axis=1)
    hertz = np.minimum(hertz, 0.47 * rate)
    width = 50.0 + 0.04 * hertz + 1.2e-5 * hertz**2
    # An open glottis damps the first formant, a nasal all of them.
    width[:, 0] += 60.0 * speaker.breathiness + 300.0 * np.minimum(1.0, 6.0 * plan.aspiration)
    width *= 1.0 + 0.6 * plan.nasal[:, None]
    sections = _resonators(hertz, width, rate)
    pole = np.full(plan.steps, NASAL_POLE_HZ * scale)
    zero = pole + (NASAL_ZERO_HZ - NASAL_POLE_HZ) * scale * plan.nasal
    poles, zeros = (_resonators(each, np.full(plan.steps, 90.0), rate) for each in (pole, zero))
    pair = np.concatenate([zeros[:, 3:] * (poles[:, :1] / zeros[:, :1]), poles[:, 3:]], axis=1)
    return np.concatenate([pair[:, None], sections], axis=1)


def _mouth_sections(speaker: Speaker, plan: _Plan, rate: int) -> Array:
    """The filter of noise made in the mouth for each step, scaled to unit power: (steps, 2, 6)."""
    # The cavity in front of the tongue varies less between speakers than the whole tract.
    hertz = np.minimum(plan.noise_hz * (REFERENCE_CM / speaker.tract_length) ** 0.5, 0.45 * rate)
    sections = np.stack([_resonators(hertz, plan.noise_width, rate)] * 2, axis=1)
    sections[:, 0, :3] = [1.0, -1.0, 0.0]
    sections[:, 1] = [1.0, -0.95, 0.0, 1.0, 0.0, 0.0]
    turn = np.exp(-2j * np.pi * (np.arange(64) + 0.5) / 128)
    powers = np.stack([turn**0, turn, turn**2])
    response = (sections[:, :, :3] @ powers) / (sections[:, :, 3:] @ powers)
    gain = np.sqrt((np.abs(response.prod(axis=1)) ** 2).mean(axis=-1))
    sections[:, 0, :3] /= gain[:, None]
    return sections
