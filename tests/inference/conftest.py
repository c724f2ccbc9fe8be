"""A corpus and a model so small that a whole training takes a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise with an envelope: 5 training files of 0.2 s, and 2 for validation, in the layout of `folder`."""
    import soundfile

    root = tmp_path_factory.mktemp("tiny")
    noise = np.random.default_rng(0)
    for split, count in (("train", 5), ("valid", 2), ("test", 1)):
        for k in range(count):
            path = root / split / f"speaker{k}" / f"{split}-{k}.wav"
            path.parent.mkdir(parents=True)
            samples = 0.3 * np.sin(np.linspace(0, 60 + k, 3200)) * noise.standard_normal(3200)
            soundfile.write(path, np.clip(samples, -1, 1), 16000)
    return root


@pytest.fixture
def tiny(tiny_corpus: Path) -> list[str]:
    """Settings for it: 5 files of 200 frames and 17 bins give 20 sequences, 4 batches per epoch."""
    return [
        "data.corpus=folder",
        f"data.root={tiny_corpus}",
        "data.hop=16",
        "data.trim_db=null",
        "data.sequence_frames=50",
        "model.bins=17",
        "model.z_dim=2",
        "train.batch_size=5",
        "train.tensorboard=false",
    ]
