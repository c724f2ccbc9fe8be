r"""The four acoustic conditions of Aurora-4, simulated for the clean speech of any corpus: ``data.conditions=ABCD``.

    A clean    B noisy, y = x + n    C channel, y = h * x    D noisy+channel, y = h * x + n

Every utterance is simulated in each of the conditions, under the name ``B/...``. An utterance has one noise n, the same
in B and D, and one channel h, the same in C and D; both are drawn by ``data.seed`` and the utterance's name:

- noise ``white``, ``pink`` (-3 dB per octave), ``rumble`` (-6 dB per octave, as in a car) or ``babble`` (the sum of six
  other utterances of the split, of other speakers if possible), at an SNR of 5 to 15 dB, as in the development and
  test sets of Aurora-4; the SNR is the ratio of mean squares over the whole utterance;
- channel ``telephone`` (300 to 3400 Hz), ``dull`` (first-order low-pass at 800 Hz), ``thin`` (first-order high-pass at
  1500 Hz) or ``boxy`` (a resonance at 700 Hz, 12 dB).

A corpus that has such conditions already (``aurora4``) is reduced to the selected ones.

Labels: ``condition`` (the letter), ``domain`` (its name), ``noise`` and ``channel`` (``clean`` if there is none).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.audio.io import mix_to_mono, resample
from corpora.types import Corpus, Sound, Utterance
from dvae_pyro.errors import UserError

__all__ = [
    "CHANNELS",
    "DOMAINS",
    "NOISES",
    "check_conditions",
    "coloured_noise",
    "degrade",
    "in_conditions",
    "apply_channel",
]

#: Names of the conditions.
DOMAINS = {"A": "clean", "B": "noisy", "C": "channel", "D": "noisy+channel"}
NOISES = ("white", "pink", "rumble", "babble")
CHANNELS = ("telephone", "dull", "thin", "boxy")
LEAST_DB, MOST_DB = 5.0, 15.0
VOICES = 6
LOWEST_HZ = 50.0
"""Coloured noise has a flat spectrum below this frequency."""

Samples = NDArray[np.float64]


def check_conditions(domains: str) -> None:
    """Check letters of conditions.

    Raises:
        UserError: A letter is unknown or occurs twice.
    """
    if not domains or len(set(domains)) < len(domains) or not set(domains) <= set(DOMAINS):
        known = ", ".join(f"{letter} ({name})" for letter, name in DOMAINS.items())
        raise UserError(f"data.conditions={domains}: expected letters, each once, such as ABC, of {known}; or null.")


def in_conditions(corpus: Corpus, domains: str, seed: int) -> Corpus:
    """A corpus in the given conditions.

    Args:
        corpus: The corpus.
        domains: Letters of conditions.
        seed: The seed of noises and channels.

    Raises:
        UserError: A letter is unknown; or only some utterances of a split are labelled with conditions, or none has one
            of the given conditions.
    """
    check_conditions(domains)
    splits, notes = {}, {}
    for split, utterances in corpus.splits.items():
        labelled = ["condition" in utterance.labels for utterance in utterances]
        if not any(labelled):
            others = _Others(utterances)
            splits[split] = [_in_domain(u, letter, seed, others) for letter in domains for u in utterances]
        elif all(labelled):
            splits[split] = [u for u in utterances if str(u.labels["condition"]) in domains]
        if not splits.get(split):
            raise UserError(
                f"data.conditions={domains}: split {split} of corpus '{corpus.name}' has utterances without a label of "
                "their condition, or none in these conditions. Use a labelled subset (aurora4: data.subset=dev), or "
                "data.conditions=null."
            )
        note = f"{len(splits[split])} utterances in conditions {', '.join(DOMAINS[letter] for letter in domains)}"
        notes[split] = [*corpus.notes.get(split, []), note]
    return replace(corpus, splits=splits, notes=notes)


def degrade(sound: Sound, noise: Samples | None, snr_db: float, channel: str | None) -> Sound:
    """A recording filtered by a channel, with added noise.

    Args:
        sound: The recording.
        noise: Noise of the same number of samples and any level; None adds none.
        snr_db: Mean square of the filtered recording divided by that of the noise, in dB.
        channel: One of `CHANNELS`; None for no filter.

    Returns:
        Mono sound.
    """
    samples = mix_to_mono(sound.samples)
    if channel is not None:
        samples = apply_channel(channel, samples, sound.rate)
    if noise is not None:
        power = float(np.mean(noise**2))
        scale = np.sqrt(np.mean(samples**2) / (power * 10.0 ** (snr_db / 10.0))) if power > 0.0 else 0.0
        samples = samples + scale * noise
    return Sound(samples[:, None], sound.rate)


def apply_channel(channel: str, samples: Samples, rate: int) -> Samples:
    """Mono samples filtered by a channel."""
    from scipy.signal import butter, iirpeak, lfilter, sosfilt

    nyquist = rate / 2.0
    if channel == "telephone":
        filtered = sosfilt(butter(4, [300.0, min(3400.0, 0.9 * nyquist)], "bandpass", fs=rate, output="sos"), samples)
    elif channel == "dull":
        filtered = lfilter(*butter(1, 800.0, "lowpass", fs=rate), samples)
    elif channel == "thin":
        filtered = lfilter(*butter(1, 1500.0, "highpass", fs=rate), samples)
    elif channel == "boxy":
        filtered = samples + 3.0 * lfilter(*iirpeak(700.0, 1.5, fs=rate), samples)
    else:
        raise ValueError(f"no channel {channel!r}")
    return np.asarray(filtered, dtype=np.float64)


def coloured_noise(size: int, rate: int, slope_db: float, generator: torch.Generator) -> Samples:
    """Gaussian noise whose power changes by `slope_db` per octave above 50 Hz."""
    white = torch.randn(size, generator=generator, dtype=torch.float64).numpy()
    octaves = np.log2(np.maximum(np.fft.rfftfreq(size, 1.0 / rate), LOWEST_HZ) / LOWEST_HZ)
    return np.asarray(np.fft.irfft(np.fft.rfft(white) * 10.0 ** (slope_db * octaves / 20.0), size))


SLOPES = {"white": 0.0, "pink": -3.0, "rumble": -6.0}


class _Others:
    """The utterances of a split, from which babble noise is drawn."""

    def __init__(self, utterances: Sequence[Utterance]) -> None:
        self.utterances = utterances

    def babble(self, of: Utterance, size: int, rate: int, generator: torch.Generator) -> Samples:
        """`size` samples of the sum of other utterances, each from a random start and repeated if necessary."""
        elsewhere = [u for u in self.utterances if u.speaker != of.speaker]
        elsewhere = elsewhere or [u for u in self.utterances if u.file != of.file] or [of]
        total = np.zeros(size)
        for _ in range(VOICES):
            sound = elsewhere[int(torch.randint(len(elsewhere), (), generator=generator))].sound()
            voice = resample(mix_to_mono(sound.samples), sound.rate, rate)
            start = int(torch.randint(len(voice), (), generator=generator))
            voice = np.resize(np.roll(voice, -start), size)
            total += voice / max(float(np.sqrt(np.mean(voice**2))), 1e-9)
        return total


def _in_domain(utterance: Utterance, letter: str, seed: int, others: _Others) -> Utterance:
    digest = hashlib.sha256(f"{seed}/{utterance.file}/domain".encode("utf-8", "surrogateescape")).digest()
    number = int.from_bytes(digest[:7], "big")
    noise = NOISES[digest[7] % len(NOISES)] if letter in "BD" else None
    channel = CHANNELS[digest[8] % len(CHANNELS)] if letter in "CD" else None
    snr_db = LEAST_DB + (MOST_DB - LEAST_DB) * digest[9] / 255.0
    labels = {**utterance.labels, "condition": letter, "domain": DOMAINS[letter]}
    labels |= {"noise": noise or "clean", "channel": channel or "clean"}
    load = functools.partial(_load, utterance, noise, snr_db, channel, number, others)
    # Babble depends on other utterances of the split; splits are cached as a whole, so their sources are included.
    source = (*utterance.source, letter, number) if utterance.source else ()
    return Utterance(f"{letter}/{utterance.file}", utterance.speaker, load, labels, source)


def _load(
    utterance: Utterance, noise: str | None, snr_db: float, channel: str | None, number: int, others: _Others
) -> Sound:
    sound = utterance.sound()
    generator = torch.Generator().manual_seed(number)
    size = len(sound.samples)
    added = None
    if noise == "babble":
        added = others.babble(utterance, size, sound.rate, generator)
    elif noise is not None:
        added = coloured_noise(size, sound.rate, SLOPES[noise], generator)
    return degrade(sound, added, snr_db, channel)
