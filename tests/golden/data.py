"""Small corpora of seeded random numbers, as files, for the golden runs: no corpus of ours decides what they hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

__all__ = ["FORMS", "make_drawings", "make_frames", "make_music", "make_sounds"]

SPLITS = {"train": 20, "valid": 4, "test": 4}
"""Sequences of each split."""


def make_frames(root: Path) -> None:
    """Power spectra of 6 bins, 4 to 9 frames each, as features in data folders of Kaldi, each speaker with two."""
    random = np.random.RandomState(0)
    for split, count in SPLITS.items():
        folder = root / split
        folder.mkdir(parents=True)
        scp, speakers, contents = "", "", b""
        for k in range(count):
            frames = random.exponential(size=(4 + (5 * k + 2) % 6, 6)).astype("<f4")
            name = f"{split}{k:02d}"
            contents += name.encode() + b" "
            scp += f"{name} feats.ark:{len(contents)}\n"
            speakers += f"{name} {split}-{k // 2}\n"
            contents += b"\0BFM " + struct.pack("<bibi", 4, len(frames), 4, frames.shape[1]) + frames.tobytes()
        (folder / "feats.ark").write_bytes(contents)
        (folder / "feats.scp").write_text(scp)
        (folder / "utt2spk").write_text(speakers)


def make_sounds(root: Path) -> None:
    """Noise under an envelope, 0.2 s at 16 kHz, in the layout of corpus ``folder``."""
    import soundfile

    random = np.random.RandomState(1)
    for split, count in SPLITS.items():
        for k in range(count):
            path = root / split / f"speaker{k // 2}" / f"{split}{k:02d}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = 8000 * np.sin(np.arange(3200) / (60 + k)) * random.uniform(-1, 1, 3200)
            soundfile.write(path, samples.astype(np.int16), 16000)


def make_music(root: Path) -> None:
    """Piano rolls of 88 keys, 5 to 10 frames each, as ``JSB_Chorales.mat`` of corpus ``polyphonic``."""
    from scipy.io import savemat

    random = np.random.RandomState(2)
    contents = {}
    for split, count in SPLITS.items():
        cells = np.empty((1, count), dtype=object)
        for k in range(count):
            cells[0, k] = (random.uniform(size=(5 + k % 6, 88)) < 0.1).astype(np.float64)
        contents[f"{split}data"] = cells
    root.mkdir(parents=True)
    savemat(root / "JSB_Chorales.mat", contents)


def make_drawings(root: Path) -> None:
    """Random walks of a pen, 6 to 11 points each, as the archive of corpus ``strokes``: 20 drawers of one character."""
    random = np.random.RandomState(3)
    lengths = [6 + k % 6 for k in range(20)]
    points = np.zeros((sum(lengths), 3))
    points[:, :2] = random.randint(-5, 6, size=(len(points), 2)).cumsum(0)
    offsets = np.cumsum([0, *lengths])
    points[offsets[1:] - 1, 2] = 1
    points[offsets[1:] - 4, 2] = 1
    root.mkdir(parents=True)
    np.savez(
        root / "drawings.npz",
        points=points,
        offsets=offsets,
        alphabet=np.zeros(20, dtype=np.int64),
        character=np.ones(20, dtype=np.int64),
        drawer=np.arange(1, 21),
        alphabet_names=np.array(["Random"]),
    )


FORMS = {"kaldi": make_frames, "folder": make_sounds, "polyphonic": make_music, "strokes": make_drawings}
"""What makes the data of each corpus."""
