"""Frames of a waveform: the samples themselves, the settings that go with them, one mean and deviation for all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from corpora.frontends.registry import open_frontend
from corpora.frontends.waveform import Waveform
from corpora.loading.sequences import load_sequences
from corpora.registry import open_corpus
from corpora.types import AudioFault, Frames, Sound
from dvae_pyro.errors import UserError
from inference.runs import create
from inference.settings.resolve import resolve
from inference.settings.tree import Settings

WAVEFORM = "data.frontend=waveform"


def recordings(root: Path, *lengths: int) -> list[NDArray[np.int16]]:
    """16-bit recordings of noise, of different loudness, as files below root/train."""
    random = np.random.RandomState(0)
    found = []
    for i, length in enumerate(lengths):
        samples = random.randint(-(300 * (i + 1)), 200 * (i + 1), size=length).astype(np.int16)
        (root / f"train/s{i}").mkdir(parents=True)
        soundfile.write(root / f"train/s{i}/a.wav", samples, 16000, subtype="PCM_16")
        found.append(samples)
    return found


@pytest.mark.parametrize(("width", "frames"), [(200, 40), (25, 320), (2, 4000), (7, 1142)])
def test_sequences_are_the_samples_of_the_file(tmp_path: Path, width: int, frames: int) -> None:
    whole = recordings(tmp_path, 17_003, 9_999)
    settings = resolve(
        "ms_stcn", overrides=[f"data.frame_width={width}", f"data.root={tmp_path}", "data.corpus=folder"]
    )
    assert settings.data.sequence_frames == frames
    frontend = open_frontend(settings.data, settings.model.bins)
    corpus = open_corpus(settings.data, 0, ["train"])
    sequences = load_sequences(corpus, "train", frontend, sequence_frames=frames)
    assert [item.start for item in sequences] == [0, frames, 0]
    for item in sequences:
        samples = whole[int(item.speaker[1:])][item.start * width : (item.start + frames) * width]
        assert item.x.shape == (frames, width)
        np.testing.assert_array_equal(item.x.reshape(-1).numpy() * 2**15, samples)


def test_frames_lead_back_to_their_samples() -> None:
    frontend = Waveform(16000, 25)
    waveform = np.random.RandomState(0).standard_normal(1010).astype(np.float32).astype(np.float64)
    frames = frontend.features(waveform)
    assert frames.shape == (40, 25) and frames.dtype == np.float32
    np.testing.assert_array_equal(frames[3], waveform[75:100])
    np.testing.assert_array_equal(frontend.samples(frames), waveform[:1000])
    np.testing.assert_array_equal(frontend.samples(np.stack([frames, -frames])), [waveform[:1000], -waveform[:1000]])


def test_loudness_and_pauses_stay() -> None:
    tone = np.concatenate([np.zeros(4096), 0.1 * np.sin(np.arange(4096.0)), np.zeros(4096)])
    sound = Sound(tone[:, None], 16000)
    np.testing.assert_array_equal(Waveform(16000, 2).prepare(sound), tone)
    trimmed = Waveform(16000, 2, trim_db=30.0).prepare(sound)
    assert len(trimmed) < 9000 and np.abs(trimmed).max() == np.abs(tone).max()


def test_what_is_no_waveform_is_a_fault() -> None:
    frontend = Waveform(16000, 200)
    with pytest.raises(AudioFault, match="silent"):
        frontend.prepare(Sound(np.zeros((4000, 1)), 16000))
    with pytest.raises(AudioFault, match=" 199 .* 200"):
        frontend.prepare(Sound(np.ones((199, 1)), 16000))
    with pytest.raises(UserError, match=r"data\.frontend=frames"):
        frontend.prepare(Frames(np.ones((4, 200), dtype=np.float32)))


def test_a_frame_width_implies_what_goes_with_it() -> None:
    given = resolve("vrnn", overrides=[WAVEFORM])
    assert (given.data.frame_width, given.model.bins, given.data.sequence_frames) == (200, 200, 40)
    assert (given.model.likelihood, given.model.input, given.model.normalise) == ("gaussian", "raw", "global")
    assert given.data.trim_db is None and given.train.batch_size == 32
    given = resolve("vrnn", overrides=[WAVEFORM, "data.frame_width=25", "model.likelihood=mixture"])
    assert (given.model.bins, given.data.sequence_frames, given.model.likelihood) == (25, 320, "mixture")
    given = resolve("vrnn", overrides=[WAVEFORM, "data.frame_width=25", "data.sequence_frames=10"])
    assert given.data.sequence_frames == 10
    given = resolve("vrnn")
    assert (given.data.frame_width, given.model.bins, given.model.normalise) == (None, 257, False)


def test_ms_stcn_is_of_waveforms_and_is_trained_as_in_its_paper() -> None:
    def training(settings: Settings) -> tuple[object, ...]:
        train = settings.train
        return settings.optim.schedule, train.batch_size, train.kl_warmup_steps, train.free_bits.threshold

    given = resolve("ms_stcn")
    assert (given.data.frontend, given.model.bins, given.model.likelihood) == ("waveform", 200, "channel_mixture")
    assert training(given) == ("exponential", 128, 0, 0.5)
    assert len(given.model.widths) == len(given.model.strides) == 5
    given = resolve("ms_stcn", overrides=["data.frame_width=2"])
    assert given.model.strides == [1, 5, 5, 4, 1] and given.model.z_dims == [1, 5, 25, 64, 64]
    given = resolve("ms_stcn", overrides=["data.frontend=stft"])
    assert (given.data.frame_width, given.model.bins, given.model.likelihood) == (None, 257, "power_spectrum")
    assert training(given) == ("plateau", 32, None, None)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.frame_width=3"], r"data\.frame_width=3 .*data\.frontend=stft"),
        ([WAVEFORM, "data.hop=3"], r"data\.hop=3 .*data\.frontend=waveform"),
        ([WAVEFORM, "data.window=3"], r"data\.window=3 .*data\.frontend=waveform"),
        ([WAVEFORM, "data.frame_width=0"], r"data\.frame_width=0\b.* 1\b"),
        ([WAVEFORM, "data.frame_width=much"], r"data\.frame_width.*'much'"),
        ([WAVEFORM, "model.normalise=all"], r"model\.normalise.*'all'"),
        ([WAVEFORM, "data.corpus=polyphonic"], r"data\.frontend=waveform\b.*'polyphonic'"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("vrnn", overrides=overrides)


def test_bins_are_the_frame_width() -> None:
    settings = resolve("vrnn", overrides=[WAVEFORM, "model.bins=25"])
    with pytest.raises(UserError, match="data.frame_width.* 200 .*model.bins.* 25"):
        open_frontend(settings.data, settings.model.bins)


def test_standardised_by_one_mean_and_deviation() -> None:
    settings = resolve("ms_stcn", overrides=["data.frame_width=4", "model.widths=[3,3]", "model.strides=[1,2]"])
    model, _ = create(settings)
    frames = [3.0 + 0.2 * torch.randn(50, 4), 3.0 + 0.4 * torch.randn(20, 4) * torch.tensor([1.0, 0.1, 2.0, 1.0])]
    model.fit_input(frames)
    values = torch.cat([x.reshape(-1) for x in frames]).double()
    expected = (frames[0] - values.mean()) / values.std(correction=0)
    torch.testing.assert_close(model.scaling(frames[0]), expected.float())
    torch.testing.assert_close(model.scaling.inverse(expected.float()), frames[0])
    again, _ = create(settings)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.scaling(frames[1]), model.scaling(frames[1]))
