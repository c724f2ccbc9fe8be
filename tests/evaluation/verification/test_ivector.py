"""i-vectors: which frames hold speech, statistics by hand, speakers that are there to be found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corpora.types import AudioFault, Corpus, Sound, Utterance
from dvae_pyro.errors import UserError
from evaluation.verification.ivector.pipeline import (
    IVectorOptions,
    IVectors,
    ivectors,
    mfcc,
    speech_frames,
    statistics,
    train,
)
from evaluation.verification.trials import all_pairs, cosine_scores, equal_error_rate, error_rates
from inference.settings.tree import DataSettings as Data
from tests.sounds import RATE, noise, voice


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def sound(samples: np.ndarray, rate: int = RATE) -> Sound:
    return Sound(samples[:, None], rate)


def test_frames_of_speech_are_the_loud_ones() -> None:
    quiet = noise(RATE // 2, 1e-3)
    samples = np.concatenate([quiet, 0.5 * np.sin(np.arange(RATE // 2) / 5), quiet])
    keep = speech_frames(samples, 400, 160)
    assert len(keep) == 1 + (len(samples) - 400) // 160
    starts = np.flatnonzero(keep) * 160
    assert starts.min() > RATE // 2 - 400 and starts.max() < RATE and keep.sum() in (50, 51, 52)
    assert np.array_equal(speech_frames(1e-3 * samples, 400, 160), keep)  # whatever the level


def test_features_are_the_mfcc_of_these_frames_with_differences() -> None:
    import librosa

    samples = voice(0.6) + noise(round(0.6 * RATE))
    frames = mfcc(sound(samples), RATE)
    keep = speech_frames(samples, 400, 160)
    assert frames.shape == (keep.sum(), 60)
    t = int(np.flatnonzero(keep)[3])
    window = np.zeros(512)
    window[56:456] = samples[t * 160 : t * 160 + 400] * np.hanning(401)[:-1]
    power = np.abs(np.fft.rfft(window)) ** 2
    mel = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=40, fmin=20) @ power
    levels = 10 * np.log10(mel)
    bands = np.arange(40)
    cosines = [np.sqrt((1 + (k > 0)) / 40) * np.cos(np.pi * k * (2 * bands + 1) / 80) @ levels for k in range(20)]
    np.testing.assert_allclose(frames[3, :20], cosines, rtol=1e-6, atol=1e-6)
    static = {int(k): row for k, row in zip(np.flatnonzero(keep), frames, strict=True)}
    t = next(k for k in static if all(k + d in static for d in (-2, -1, 1, 2)))
    slope = sum(d * static[t + d][:20] for d in (-2, -1, 1, 2)) / 10
    np.testing.assert_allclose(static[t][20:40], slope, rtol=1e-5, atol=1e-5)
    assert np.abs(mfcc(sound(samples), RATE, cmn=True).mean(0)).max() < 1e-9


def test_what_holds_no_speech_is_refused() -> None:
    for samples in (np.zeros(RATE), voice(0.02), np.zeros(10)):
        with pytest.raises(AudioFault, match=r"\d frames.* 10$"):
            mfcc(sound(samples), RATE)


@pytest.mark.parametrize("covariance", ["diag", "full"])
def test_statistics_are_sums_over_frames(covariance: str) -> None:
    frames = [random(n, 3, seed=n) @ random(3, 3, seed=1) + 5 for n in (50, 30)]
    extractor = train(frames, IVectorOptions(components=2, dim=2, covariance=covariance, iterations=1))
    counts = statistics(extractor, frames)
    m = extractor.mixture
    for u, one in enumerate(frames):
        x = (one - extractor.mean) / extractor.scale
        gamma = m.predict_proba(x)
        for c in range(2):
            cov = m.covariances_[c] if covariance == "full" else np.diag(m.covariances_[c])
            assert counts.zeroth[u, c] == pytest.approx(gamma[:, c].sum())
            summed = sum(gamma[t, c] * (x[t] - m.means_[c]) for t in range(len(x)))
            norm = summed @ np.linalg.solve(cov, summed)  # whitening by any root of the covariance keeps this
            assert counts.first[u, c] @ counts.first[u, c] == pytest.approx(norm)


def test_speakers_of_a_made_world_are_told_apart_and_the_seed_decides_all() -> None:
    """Four sounds, whose place each speaker shifts: the place in an utterance tells the speaker, its sound does not."""
    sounds, shifts = 4 * random(4, 3), 0.7 * random(8, 3, seed=1)

    def utterance(speaker: int, seed: int) -> np.ndarray:
        said = torch.randint(4, (120,), generator=torch.Generator().manual_seed(seed)).numpy()
        return np.asarray(sounds[said] + shifts[speaker] + 0.5 * random(120, 3, seed=seed))

    frames = [utterance(s, 10 * s + i) for s in range(8) for i in range(4)]
    options = IVectorOptions(components=4, dim=3, iterations=10, seed=3)
    extractor = train(frames, options)
    assert (np.diff(extractor.log_likelihood) > -1e-9).all()
    fresh = [utterance(s, 1000 + 10 * s + i) for s in range(8) for i in range(4)]
    trials = all_pairs([str(s) for s in range(8) for _ in range(4)])
    vectors = ivectors(extractor, fresh)
    rate = equal_error_rate(error_rates(cosine_scores(vectors, trials), trials.target))
    plain = np.stack([one[:30].mean(0) for one in fresh])
    baseline = equal_error_rate(error_rates(cosine_scores(plain, trials), trials.target))
    assert rate < 0.1 < baseline
    assert np.array_equal(vectors, ivectors(train(frames, options), fresh))


def test_a_corpus_is_read_cut_and_trained_on_once() -> None:
    loaded: list[str] = []

    def said(name: str, pitch: float) -> Utterance:
        def load() -> Sound:
            loaded.append(name)
            if name == "bad":
                raise AudioFault("is empty (0 bytes)")
            return sound(np.interp(np.arange(12000) * pitch % 9000, np.arange(9600), voice(0.6)) + noise(12000))

        return Utterance(name, name[0], load)

    corpus = Corpus("made-up", "", {"train": [said(f"a{i}", 1 + i / 10) for i in range(4)], "test": [said("b0", 1.2)]})
    options = IVectorOptions(components=2, dim=2, iterations=2)
    source = IVectors(corpus, Data(), options)
    whole, halves = source("train"), source("train", 2)
    assert list(halves.files) == ["a0", "a0", "a1", "a1", "a2", "a2", "a3", "a3"] and set(halves.speakers) == {"a"}
    assert whole.vectors["ivector"].shape == (4, 2) and halves.vectors["ivector"].shape == (8, 2)
    assert len(source("test").files) == 1 and loaded == ["a0", "a1", "a2", "a3", "b0"]
    corpus.splits["test"].append(said("bad", 1.0))
    with pytest.raises(UserError, match=r"(?s)bad.*data.on_error=skip"):
        IVectors(corpus, Data(), options)("test")
    told: list[str] = []
    assert len(IVectors(corpus, Data(on_error="skip"), options, told.append)("test").files) == 1
    assert told[-1] == "test: skipped 1 broken files: bad (is empty (0 bytes))"
    with pytest.raises(UserError, match=r"64.*--components \d+"):
        IVectors(corpus, Data(), IVectorOptions())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (IVectorOptions(components=0), "--components.*0"),
        (IVectorOptions(covariance="tied"), "--covariance.*'tied'"),
    ],
)
def test_sizes_that_cannot_be(options: IVectorOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train([random(100, 2)], options)
