"""Sentences of the synthetic speakers: an inventory of phones, and random sentences.

Formants are those of an adult male voice (vowels after Peterson and Barney, 1952), loci and noise shapes
after Klatt (1980), both rounded. Names are those of the ARPABET, and ``pau`` for a pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

__all__ = ["FRAME_S", "KINDS", "PHONES", "Phone", "Spoken", "random_sentence"]

#: Seconds per step of a sentence; durations of phones are multiples of a step.
FRAME_S = 0.005


@dataclass(frozen=True)
class Phone:
    """Synthesis parameters of a phone.

    Attributes:
        kind: vowel, nasal, approximant, fricative, plosive or pause.
        formants: Targets of F1, F2, F3 in Hz; for consonants the loci of the formant transitions.
        glide: Targets at the end of a diphthong.
        seconds: Shortest and longest duration.
        voicing: Level of the voice in dB; None for voiceless phones.
        noise: Level of frication noise in dB; None for none.
        noise_hz: Centre frequency of that noise.
        noise_width: Bandwidth of that noise in Hz.
        aspiration: Level of aspiration noise (at the glottis) in dB; None for none.
    """

    kind: str
    formants: tuple[float, float, float]
    seconds: tuple[float, float]
    glide: tuple[float, float, float] | None = None
    voicing: float | None = None
    noise: float | None = None
    noise_hz: float = 4000.0
    noise_width: float = 2000.0
    aspiration: float | None = None


def _vowel(f1: float, f2: float, f3: float, glide: tuple[float, float, float] | None = None) -> Phone:
    return Phone("vowel", (f1, f2, f3), (0.07, 0.15) if glide is None else (0.12, 0.2), glide, voicing=0.0)


def _sonorant(kind: str, f1: float, f2: float, f3: float, level: float) -> Phone:
    return Phone(kind, (f1, f2, f3), (0.05, 0.09), voicing=level)


LABIAL, DENTAL, ALVEOLAR = (320.0, 950.0, 2250.0), (330.0, 1300.0, 2500.0), (320.0, 1750.0, 2650.0)
PALATAL, VELAR = (300.0, 1900.0, 2550.0), (300.0, 1950.0, 2200.0)

PHONES: dict[str, Phone] = {
    "iy": _vowel(280, 2250, 2950),
    "ih": _vowel(400, 1920, 2560),
    "eh": _vowel(550, 1770, 2490),
    "ae": _vowel(690, 1660, 2430),
    "aa": _vowel(710, 1100, 2540),
    "ao": _vowel(590, 880, 2540),
    "uh": _vowel(450, 1030, 2380),
    "uw": _vowel(310, 870, 2250),
    "ah": _vowel(620, 1200, 2550),
    "er": _vowel(470, 1270, 1540),
    "ay": _vowel(710, 1150, 2500, (380, 1950, 2600)),
    "ey": _vowel(490, 1880, 2520, (330, 2180, 2750)),
    "ow": _vowel(540, 1000, 2400, (350, 800, 2300)),
    "m": _sonorant("nasal", 270, 1000, 2200, -5),
    "n": _sonorant("nasal", 270, 1550, 2600, -5),
    "ng": _sonorant("nasal", 270, 1950, 2400, -6),
    "l": _sonorant("approximant", 350, 1050, 2750, -4),
    "r": _sonorant("approximant", 340, 1150, 1550, -4),
    "w": _sonorant("approximant", 310, 680, 2200, -5),
    "y": _sonorant("approximant", 280, 2200, 2950, -5),
    "s": Phone("fricative", ALVEOLAR, (0.08, 0.13), noise=-16, noise_hz=5600, noise_width=1800),
    "z": Phone("fricative", ALVEOLAR, (0.06, 0.1), voicing=-15, noise=-21, noise_hz=5600, noise_width=1800),
    "sh": Phone("fricative", PALATAL, (0.08, 0.13), noise=-14, noise_hz=3000, noise_width=1100),
    "f": Phone("fricative", LABIAL, (0.07, 0.11), noise=-27, noise_hz=5500, noise_width=6000),
    "v": Phone("fricative", LABIAL, (0.05, 0.08), voicing=-12, noise=-33, noise_hz=5500, noise_width=6000),
    "th": Phone("fricative", DENTAL, (0.07, 0.11), noise=-29, noise_hz=6500, noise_width=5000),
    "hh": Phone("fricative", (500.0, 1500.0, 2500.0), (0.05, 0.08), aspiration=-16),
    "p": Phone("plosive", LABIAL, (0.08, 0.12), noise=-22, noise_hz=1200, noise_width=2500, aspiration=-18),
    "t": Phone("plosive", ALVEOLAR, (0.08, 0.12), noise=-13, noise_hz=4300, noise_width=2500, aspiration=-18),
    "k": Phone("plosive", VELAR, (0.08, 0.12), noise=-13, noise_hz=2000, noise_width=900, aspiration=-17),
    "b": Phone("plosive", LABIAL, (0.06, 0.09), voicing=-20, noise=-24, noise_hz=1000, noise_width=2500),
    "d": Phone("plosive", ALVEOLAR, (0.06, 0.09), voicing=-20, noise=-17, noise_hz=4000, noise_width=2500),
    "g": Phone("plosive", VELAR, (0.06, 0.09), voicing=-20, noise=-17, noise_hz=1900, noise_width=900),
    "pau": Phone("pause", (500.0, 1500.0, 2500.0), (0.12, 0.4)),
}

#: Names of the phones of each kind.
KINDS: dict[str, list[str]] = {
    kind: [name for name, phone in PHONES.items() if phone.kind == kind]
    for kind in ("vowel", "nasal", "approximant", "fricative", "plosive", "pause")
}

ONSETS = [["m", "n"], KINDS["approximant"], KINDS["fricative"], KINDS["plosive"], KINDS["plosive"]]
CODAS = [KINDS["nasal"], KINDS["nasal"], ["l", "r"], ["s", "z", "sh", "f", "v", "th"], KINDS["plosive"]]


class Spoken(NamedTuple):
    """One phone of a sentence: its name, its duration in steps of `FRAME_S`, and its stress from 0 to 1."""

    name: str
    steps: int
    stress: float


def random_sentence(generator: torch.Generator, shortest: float = 3.0, longest: float = 6.0) -> list[Spoken]:
    """Draw a sentence: phrases of syllables, separated and surrounded by pauses.

    Args:
        generator: The random number generator.
        shortest: Smallest duration in seconds.
        longest: Largest duration in seconds, exceeded by less than a syllable and a pause.
    """

    def chance() -> float:
        return float(torch.rand((), generator=generator, dtype=torch.float64))

    def one_of(names: list[str]) -> str:
        return names[int(chance() * len(names))]

    spoken: list[Spoken] = []

    def say(name: str, stress: float = 0.0) -> None:
        short, long = PHONES[name].seconds
        seconds = (short + (long - short) * chance()) * (1.0 + 0.35 * stress if stress else 1.0)
        spoken.append(Spoken(name, round(seconds / FRAME_S), stress))

    def syllable(stress: float) -> None:
        onset = chance()
        if onset < 0.1:
            say("s")
            say(one_of(["p", "t", "k", "m", "n", "l", "w"]))
        elif onset < 0.22:
            say(one_of(KINDS["plosive"]))
            say(one_of(["l", "r", "w"]))
        elif onset < 0.85:
            say(one_of(ONSETS[int(chance() * len(ONSETS))]))
        say(one_of(KINDS["vowel"]), stress)
        if chance() < 0.4:
            say(one_of(CODAS[int(chance() * len(CODAS))]))

    wanted = (shortest + (longest - shortest) * chance()) / FRAME_S
    say("pau")
    while sum(phone.steps for phone in spoken) < wanted:
        for _ in range(4 + int(chance() * 7)):
            syllable(max(0.0, 2.0 * chance() - 1.0))
            if sum(phone.steps for phone in spoken) >= wanted:
                break
        say("pau")
    return spoken
