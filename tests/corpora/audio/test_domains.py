"""Conditions made from clean speech: what is added and filtered, measured against what is promised."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corpora.audio.conditions import CHANNELS, NOISES, apply_channel, coloured_noise, in_conditions
from corpora.registry import check_data
from corpora.types import Corpus, Sound, Utterance
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings

RATE = 8000
SPEAKERS = {"ann": 500.0, "bob": 900.0, "cid": 1300.0}


def _tone(frequency: float, samples: int) -> Sound:
    return Sound(0.3 * np.sin(2 * np.pi * frequency * np.arange(samples) / RATE)[:, None], RATE)


def corpus(each: int = 20, **labels: object) -> Corpus:
    """Speakers who each say one tone."""
    made = [
        Utterance(f"{name}/{n}.wav", name, functools.partial(_tone, hertz, 4000 + 10 * n), labels)
        for name, hertz in SPEAKERS.items()
        for n in range(each)
    ]
    return Corpus("made", "", {"test": made}, {"test": ["a note"]})


def samples(utterance: Utterance) -> NDArray[np.float64]:
    return utterance.sound().samples[:, 0]


def by_name(found: Corpus) -> dict[str, dict[str, Utterance]]:
    """Utterances by their name, then by condition."""
    named: dict[str, dict[str, Utterance]] = {}
    for u in found.splits["test"]:
        named.setdefault(u.file[2:], {})[u.file[0]] = u
    return named


def test_conditions_are_what_they_say() -> None:
    clean = {u.file: u for u in corpus().splits["test"]}
    found = in_conditions(corpus(), "ABCD", 3)
    assert found.notes["test"] == ["a note", "240 utterances in conditions clean, noisy, channel, noisy+channel"]
    ratios, noises, channels = [], set(), set()
    for name, heard in by_name(found).items():
        assert set(heard) == set("ABCD") and {u.speaker for u in heard.values()} == {clean[name].speaker}
        a, b, c, d = (samples(heard[letter]) for letter in "ABCD")
        np.testing.assert_array_equal(a, samples(clean[name]))
        channel, noise = str(heard["D"].labels["channel"]), str(heard["D"].labels["noise"])
        np.testing.assert_allclose(c, apply_channel(channel, a, RATE))
        ratio = 10 * np.log10(np.mean(a**2) / np.mean((b - a) ** 2))
        assert 10 * np.log10(np.mean(c**2) / np.mean((d - c) ** 2)) == pytest.approx(ratio)
        added = (b - a) / np.sqrt(np.mean((b - a) ** 2))
        np.testing.assert_allclose((d - c) / np.sqrt(np.mean((d - c) ** 2)), added, atol=1e-9)
        assert {
            letter: (u.labels["domain"], u.labels["noise"], u.labels["channel"]) for letter, u in heard.items()
        } == {
            "A": ("clean", "clean", "clean"),
            "B": ("noisy", noise, "clean"),
            "C": ("channel", "clean", channel),
            "D": ("noisy+channel", noise, channel),
        }
        ratios.append(ratio)
        noises.add(noise)
        channels.add(channel)
        if noise == "babble":  # others' tones, and not one's own
            spectrum = np.abs(np.fft.rfft(added * np.hanning(len(added)))) ** 2
            hertz = np.fft.rfftfreq(len(added), 1 / RATE)
            near = {who: spectrum[np.abs(hertz - tone) < 100].sum() for who, tone in SPEAKERS.items()}
            own = near.pop(clean[name].speaker)
            assert sum(near.values()) > 0.9 * spectrum.sum() and own < 0.01 * spectrum.sum()
    assert min(ratios) >= 5.0 and max(ratios) <= 15.0 and max(ratios) - min(ratios) > 7.0
    assert noises == set(NOISES) and channels == set(CHANNELS)


def test_the_seed_decides_and_nothing_else_does() -> None:
    one, same, other = (by_name(in_conditions(corpus(), "BD", seed)) for seed in (0, 0, 1))
    few = by_name(in_conditions(corpus(), "D", 0))
    state = torch.get_rng_state()
    changed = 0
    for name, heard in one.items():
        np.testing.assert_array_equal(samples(heard["D"]), samples(same[name]["D"]))
        np.testing.assert_array_equal(samples(heard["D"]), samples(few[name]["D"]))
        changed += not np.allclose(samples(heard["D"]), samples(other[name]["D"]))
    assert changed > 55 and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("channel", "gains"),
    [
        ("telephone", {300.0: -3.0, 1000.0: 0.0, 3400.0: -3.0, 100.0: -35.0}),
        ("dull", {800.0: -3.0, 50.0: 0.0}),
        ("thin", {1500.0: -3.0, 4000.0: 0.0, 150.0: -21.1}),
        ("boxy", {700.0: 12.0, 10.0: 0.0, 4000.0: 0.0}),
    ],
)
def test_channels_have_their_response(channel: str, gains: dict[float, float]) -> None:
    impulse = np.zeros(16000)
    impulse[0] = 1.0
    response = np.abs(np.fft.rfft(apply_channel(channel, impulse, RATE)))
    for hertz, gain in gains.items():
        found = 20 * np.log10(response[round(2 * hertz)])
        assert found < gain if gain < -30 else found == pytest.approx(gain, abs=0.3)


@pytest.mark.parametrize("slope", [0.0, -3.0, -6.0])
def test_noise_falls_by_so_much_per_octave(slope: float) -> None:
    found = coloured_noise(200_000, RATE, slope, torch.Generator().manual_seed(0))
    power = np.abs(np.fft.rfft(found)) ** 2
    hertz = np.fft.rfftfreq(len(found), 1 / RATE)
    octaves = [10 * np.log10(power[(hertz > 0.9 * f) & (hertz < 1.1 * f)].mean()) for f in (100, 200, 400, 800, 1600)]
    np.testing.assert_allclose(
        np.diff(octaves), slope, atol=0.5
    )  # 1000 bins and more each: 5 sigma is 0.7 dB, 0.1 of f


def test_a_corpus_with_conditions_is_reduced_to_those_asked_for() -> None:
    parts = [corpus(2, condition=letter).splits["test"] for letter in "ABD"]
    found = in_conditions(Corpus("own", "", {"test": sum(parts, [])}), "BC", 0)
    assert found.splits["test"] == parts[1]
    with pytest.raises(UserError, match=r"data\.conditions=C\b.* test .*'own'"):
        in_conditions(Corpus("own", "", {"test": sum(parts, [])}), "C", 0)
    mixed = Corpus("own", "", {"test": [*parts[0], *corpus(1).splits["test"]]})
    with pytest.raises(UserError, match=r"data\.conditions=A\b.* test .*'own'"):
        in_conditions(mixed, "A", 0)


@pytest.mark.parametrize("letters", ["", "E", "AA", "ab"])
def test_letters_that_name_nothing_are_refused(letters: str) -> None:
    with pytest.raises(UserError, match=r"data\.conditions=.*A \(clean\)"):
        check_data(DataSettings(conditions=letters))
    with pytest.raises(UserError, match=rf"data\.conditions={letters}(:| )"):
        in_conditions(corpus(1), letters, 0)


def test_frames_have_no_domains() -> None:
    settings: Any = DataSettings(corpus="polyphonic", conditions="AB", frontend="frames", trim_db=None)
    with pytest.raises(UserError, match=r"data\.conditions=AB\b.*'polyphonic'"):
        check_data(settings)
