"""Synthetic speech is what its labels say."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corpora.frontends.stft import Stft
from corpora.loading.sequences import load_sequences
from corpora.recipes.folder import open_folder
from corpora.recipes.synthetic.corpus import Placed, Size, draw_speakers, main, make_splits, same_words
from corpora.recipes.synthetic.phones import PHONES, Spoken, random_sentence
from corpora.recipes.synthetic.source_filter import REFERENCE_CM, Speaker, formant_tracks, speak, step_samples
from corpora.registry import open_corpus
from corpora.types import SPLITS
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data

RATE = 16000


def _say(name: str, speaker: Speaker, seconds: float = 0.6) -> NDArray[np.float64]:
    """The middle of a long phone."""
    sentence = [Spoken(name, round(seconds / 0.005), 0.5)]
    samples = speak(speaker, sentence, RATE, torch.Generator().manual_seed(0))
    return samples[len(samples) // 4 : -len(samples) // 4]


def _pitch(samples: NDArray[np.float64]) -> float:
    """Fundamental frequency by autocorrelation."""
    correlation = np.correlate(samples, samples, mode="full")[len(samples) - 1 :]
    correlation /= np.arange(len(samples), 0, -1)
    shortest, longest = RATE // 400, RATE // 60
    return RATE / (shortest + int(np.argmax(correlation[shortest:longest])))


def test_same_seed_same_corpus_and_another_another() -> None:
    first, again, other = (open_corpus(Data(), seed, ["valid"]).splits["valid"] for seed in (0, 0, 1))
    assert [u.file for u in first] == [u.file for u in again]
    assert [u.labels for u in first] == [u.labels for u in again] != [u.labels for u in other]
    sound = first[1].sound()
    np.testing.assert_array_equal(sound.samples, again[1].sound().samples)
    np.testing.assert_array_equal(sound.samples, first[1].sound().samples)
    assert sound.samples.shape != other[1].sound().samples.shape


def test_chance_comes_from_the_seed_alone() -> None:
    before = torch.get_rng_state()
    (utterance, *_) = open_corpus(Data(), 0, ["test"]).splits["test"]
    utterance.load()
    assert torch.equal(before, torch.get_rng_state())


def test_sizes_and_speakers() -> None:
    corpus = open_corpus(Data(), 0)
    seconds = {
        split: [cast("list[Placed]", u.labels["content"])[-1].end / RATE for u in corpus.splits[split]]
        for split in SPLITS
    }
    assert 330 < sum(seconds["train"]) < 420
    assert 30 < sum(seconds["valid"]) < 60 and 30 < sum(seconds["test"]) < 60
    assert all(2.9 < each < 7.5 for split in SPLITS for each in seconds[split])
    speakers = [{u.speaker for u in corpus.splits[split]} for split in SPLITS]
    assert len(set.union(*speakers)) == sum(map(len, speakers)) == 26
    files = [u.file for split in SPLITS for u in corpus.splits[split]]
    assert len(set(files)) == len(files)


def test_voices_are_spread_and_not_tied() -> None:
    voices = draw_speakers(0, {"train": 60})["train"]
    pitch, length, breath = np.array([(v.pitch_hz, v.tract_length, v.breathiness) for v in voices]).T
    assert pitch.min() < 105 and pitch.max() > 200 and length.min() < 14 and length.max() > 18
    assert -0.85 < np.corrcoef(np.log(pitch), length)[0, 1] < -0.5
    assert abs(np.corrcoef(breath, length)[0, 1]) < 0.2


@pytest.mark.parametrize("rate", [8000, 16000, 22050])
def test_labels_lie_where_the_sound_is(rate: int) -> None:
    splits = make_splits(rate, 0, {"train": Size(3, 1)})
    for utterance in splits["train"]:
        sound = utterance.sound()
        content = cast("list[Placed]", utterance.labels["content"])
        assert sound.rate == rate and content[0].start == 0 and content[-1].end == len(sound.samples)
        assert all(a.end == b.start for a, b in zip(content, content[1:], strict=False))
        assert np.isfinite(sound.samples).all() and np.abs(sound.samples).max() < 0.7

        def power(kind: str, content: list[Placed] = content, x: NDArray[np.float64] = sound.samples) -> float:
            # The middle third, away from transitions and echoes.
            parts = [
                x[start + (end - start) // 2 : end - (end - start) // 6]
                for name, start, end in content
                if PHONES[name].kind == kind
            ]
            return float(10 * np.log10(np.mean(np.concatenate(parts) ** 2)))

        assert power("vowel") > power("pause") + 20


@pytest.mark.parametrize("pitch", [95.0, 140.0, 210.0])
@pytest.mark.parametrize("vowel", ["aa", "eh", "uh"])
def test_pitch_of_a_vowel_is_its_label(pitch: float, vowel: str) -> None:
    found = _pitch(_say(vowel, Speaker("a", pitch, 16.0, 0.4), 1.2))
    # Pitch falls from +2 to -2 semitones through the phrase, rises with the stress and wavers a little.
    stress = 2 ** (1.5 / 12)
    assert found == pytest.approx(pitch * stress, rel=0.08)


def test_pitch_of_a_sentence_is_its_label() -> None:
    for utterance in make_splits(RATE, 0, {"valid": Size(4, 1)})["valid"]:
        samples = utterance.sound().samples[:, 0]
        vowels = [
            samples[start:end]
            for name, start, end in cast("list[Placed]", utterance.labels["content"])
            if PHONES[name].kind == "vowel" and end - start > 0.1 * RATE
        ]
        median = float(np.median([_pitch(each) for each in vowels]))
        assert median == pytest.approx(cast("float", utterance.labels["pitch_hz"]), rel=0.15)


def _whisper(vowel: str, length: float) -> NDArray[np.float64]:
    """The spectral envelope (dB, at 10 Hz steps) of a vowel: that of a voice of very low pitch, smoothed."""
    samples = _say(vowel, Speaker("a", 40.0, length, 0.0), 3.0)
    power = np.abs(np.fft.rfft(samples * np.hanning(len(samples)))) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    centres = np.arange(100.0, 4000.0, 10.0)
    return np.array([10 * np.log10(power[np.abs(hertz - centre) < 60].mean()) for centre in centres])


@pytest.mark.parametrize("vowel", ["aa", "ae", "eh"])
def test_formants_lie_where_the_tract_puts_them(vowel: str) -> None:
    def first_formant(length: float) -> float:
        envelope = _whisper(vowel, length)
        expected = PHONES[vowel].formants[0] * REFERENCE_CM / length
        centres = np.arange(100.0, 4000.0, 10.0)
        near = np.flatnonzero(np.abs(centres - expected) < 0.3 * expected)
        return float(centres[near[np.argmax(envelope[near])]])

    long, short = first_formant(18.0), first_formant(14.0)
    assert long == pytest.approx(PHONES[vowel].formants[0] * REFERENCE_CM / 18.0, rel=0.1)
    assert short / long == pytest.approx(18.0 / 14.0, rel=0.08)


def test_formants_move_smoothly_towards_their_targets() -> None:
    sentence = [Spoken("iy", 60, 0.0), Spoken("aa", 60, 0.0), Spoken("pau", 20, 0.0)]
    tracks = formant_tracks(sentence)
    np.testing.assert_allclose(tracks[30], PHONES["iy"].formants, rtol=1e-9)
    np.testing.assert_allclose(tracks[90], PHONES["aa"].formants, rtol=1e-9)
    assert np.abs(np.diff(np.log(tracks), axis=0)).max() < 0.1
    assert (formant_tracks([Spoken("pau", 5, 0.0)]) == PHONES["pau"].formants).all()


def test_fricatives_hiss_above_and_vowels_sound_below() -> None:
    def centroid(name: str) -> float:
        samples = _say(name, Speaker("a", 120.0, 17.0, 0.3))
        power = np.abs(np.fft.rfft(samples)) ** 2
        return float((np.fft.rfftfreq(len(samples), 1 / RATE) * power).sum() / power.sum())

    assert centroid("s") > 4500 > centroid("sh") > 2500 and centroid("aa") < 1000


def test_the_same_words_share_their_content() -> None:
    voices = draw_speakers(0, {"train": 2})["train"]
    first, second = same_words(voices, RATE)
    assert first.labels["content"] == second.labels["content"]
    assert first.sound().samples.shape == second.sound().samples.shape
    assert first.labels["pitch_hz"] != second.labels["pitch_hz"]


def test_sentences_keep_their_length() -> None:
    for seed in range(20):
        sentence = random_sentence(torch.Generator().manual_seed(seed), 1.0, 2.0)
        seconds = 0.005 * sum(phone.steps for phone in sentence)
        assert 1.0 <= seconds < 3.0 and sentence[0].name == sentence[-1].name == "pau"


def test_spectrum_is_speechlike() -> None:
    """The spectrum falls with frequency and the levels spread as in read speech (librispeech-mini)."""
    frontend = Stft(RATE, 512, 256)
    splits = make_splits(RATE, 0, {"train": Size(8, 1)})
    x = np.concatenate([frontend.features(frontend.prepare(u.load())) for u in splits["train"]])
    mean = 10 * np.log10(x.mean(axis=0, dtype=np.float64))
    low, middle, high = mean[8:32].mean(), mean[64:128].mean(), mean[192:].mean()
    assert 8 < low - middle < 30 and 15 < low - high < 40
    levels = np.quantile(10 * np.log10(x), [0.05, 0.5, 0.95])
    np.testing.assert_allclose(levels, [-54.7, -27.2, 4.7], atol=8)
    assert (x > 0).all()


def test_a_written_corpus_reads_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpora.recipes.synthetic.corpus.SIZES", {split: Size(1, 1) for split in SPLITS})
    assert main(["--out", str(tmp_path / "made"), "--rate", "8000"]) == 0
    corpus = open_folder(Data(corpus="folder", root=str(tmp_path / "made")), 0)
    assert all(len(corpus.splits[split]) == 1 for split in SPLITS)
    frontend = Stft(8000, 256, 128)
    assert load_sequences(corpus, "train", frontend, sequence_frames=20)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    assert main(["--picture", str(tmp_path / "deep/picture.png")]) == 0
    assert (tmp_path / "deep/picture.png").stat().st_size > 10000


def test_the_command_refuses_without_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path), "--rate", "100"]) == 2
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err.count("error: ") == 2


def test_a_root_or_a_telephone_worse_than_any_is_refused() -> None:
    with pytest.raises(UserError, match="--corpus folder"):
        open_corpus(Data(root="somewhere"), 0)
    with pytest.raises(UserError, match="data.rate"):
        open_corpus(Data(rate=2000), 0)
    assert step_samples(16000) == 80
