"""Speaker embeddings against the published code, and what is said where its weights are missing."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from dvae_pyro.errors import UserError
from evaluation.frechet.features import open_extractor


def test_embeddings_equal_those_of_the_published_code(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("needs the weights of resemblyzer: pip install --no-deps resemblyzer")
    import soundfile

    monkeypatch.setitem(sys.modules, "webrtcvad", types.ModuleType("webrtcvad"))  # of trimming, which is not used
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audio, published = map(importlib.import_module, ("resemblyzer.audio", "resemblyzer.voice_encoder"))
        encoder = published.VoiceEncoder("cpu", verbose=False)
    sounds = []
    for name in ("p232_002", "p232_003", "p232_005"):
        samples, _ = soundfile.read(shared / f"corpora/noisy-speech-mini/voicebank-demand/clean/{name}.flac")
        sounds.append(samples[2000 : 2000 + 25440].astype(np.float32))
    sounds.append(np.clip(40.0 * sounds[0], -1.0, 1.0))  # louder than -30 dBFS: its level stays
    own = open_extractor("speaker", 16000, "cpu").features(torch.from_numpy(np.stack(sounds)))
    for row, samples in zip(own, sounds, strict=True):
        mel = audio.wav_to_mel_spectrogram(audio.normalize_volume(samples, -30, increase_only=True).astype(np.float32))
        with torch.no_grad():
            torch.testing.assert_close(row, encoder(torch.from_numpy(mel)[None])[0], rtol=1e-4, atol=1e-6)


def test_the_package_of_the_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--no-deps resemblyzer"):
        open_extractor("speaker", 16000, "cpu")
