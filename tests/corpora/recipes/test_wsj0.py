"""WSJ0's layout, in small: discs, microphones, SPHERE files written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from corpora.audio.io import read_audio
from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.registry import open_corpus
from corpora.types import SPLITS, AudioFault, Corpus
from dvae_pyro.errors import UserError
from inference.settings.tree import DataSettings as Data
from tests.sounds import RATE
from tests.support.sphere import SAMPLES, sphere


def _tree(root: Path, files: Sequence[str]) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if file.lower().endswith(".wav"):
            soundfile.write(root / file, SAMPLES, RATE)
        else:
            (root / file).write_bytes(sphere())
    return root


def _open(root: Path, needed: Sequence[str] = SPLITS) -> Corpus:
    return open_corpus(Data(corpus="wsj0", root=str(root)), 0, needed)


def test_splits_and_speakers(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        [
            "si_tr_s/01t/01to030c.wv1",
            "si_tr_s/01t/01to030d.wv1",
            "si_dt_05/050/050a0501.wav",
            "si_et_05/440/440c0201.wv1",
        ],
    )
    corpus = _open(root)
    assert all(u.source == (root / u.file,) for found in corpus.splits.values() for u in found)
    assert {split: [(u.file, u.speaker) for u in found] for split, found in corpus.splits.items()} == {
        "train": [("si_tr_s/01t/01to030c.wv1", "01t"), ("si_tr_s/01t/01to030d.wv1", "01t")],
        "valid": [("si_dt_05/050/050a0501.wav", "050")],
        "test": [("si_et_05/440/440c0201.wv1", "440")],
    }
    assert corpus.notes == {"train": [], "valid": [], "test": []}


def test_discs_are_put_together_and_a_sentence_is_taken_once(tmp_path: Path) -> None:
    root = _tree(
        tmp_path,
        [
            "11-1.1/wsj0/si_tr_s/011/011c0201.wv1",
            "11-2.1/wsj0/SI_TR_S/02A/02AC0201.WV1",
            "11-9.1/wsj0/si_tr_s/011/011c0201.wv2",
            "11-1.1/wsj0/si_tr_s/011/011c0202.wv1",
            "11-1.1/wsj0/si_tr_s/011/011c0202.wav",
            "11-1.1/wsj0/si_tr_s/011/011c0203.wv2",
            "11-1.1/wsj0/si_tr_s/011/._011c0204.wv1",
            "11-1.1/wsj0/si_tr_s/03bc0201.wav",
            "11-1.1/wsj0/si_tr_j/46b/46bc0201.wv1",
        ],
    )
    corpus = _open(root, ["train"])
    assert [(u.file, u.speaker) for u in corpus.splits["train"]] == [
        ("11-1.1/wsj0/si_tr_s/011/011c0201.wv1", "011"),
        ("11-1.1/wsj0/si_tr_s/011/011c0202.wav", "011"),
        ("11-1.1/wsj0/si_tr_s/011/011c0203.wv2", "011"),
        ("11-1.1/wsj0/si_tr_s/03bc0201.wav", "03b"),
        ("11-2.1/wsj0/SI_TR_S/02A/02AC0201.WV1", "02a"),
    ]
    assert "left out 2 files" in corpus.notes["train"][0]


@pytest.mark.parametrize("order", ["01", "10"])
def test_sphere_is_read_to_the_sample(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.wv1").write_bytes(sphere(order=order))
    sound = read_audio(tmp_path / "a.wv1")
    assert sound.rate == RATE and np.array_equal(sound.samples[:, 0] * 32768, SAMPLES)


def test_sphere_reaches_the_features(tmp_path: Path) -> None:
    root = _tree(tmp_path, ["si_et_05/440/440c0201.wv1", "si_et_05/441/441c0201.wav"])
    data = Data(corpus="wsj0", root=str(root))
    frontend = open_frontend(data, 257)
    a, b = load_sequences(_open(root, ["test"]), "test", frontend, sequence_frames=None)
    assert np.array_equal(a.x, b.x) and (a.speaker, b.speaker) == ("440", "441")


def test_compressed_and_short_sphere_is_named_with_the_conversion(tmp_path: Path) -> None:
    file = tmp_path / "si_tr_s" / "01t" / "01to030c.wv1"
    file.parent.mkdir(parents=True)
    file.write_bytes(sphere(coding="pcm,embedded-shorten-v1.09")[:2000])
    with pytest.raises(AudioFault, match=r"compressed .*shorten.*sph2pipe -f wav 01to030c.wv1 01to030c.wav"):
        read_audio(file)
    with pytest.raises(UserError, match=r"si_tr_s/01t/01to030c\.wv1 .*wsj0.*sph2pipe"):
        load_sequences(_open(tmp_path, ["train"]), "train", open_frontend(Data(), 257), sequence_frames=None)
    file.write_bytes(sphere()[:-100])
    with pytest.raises(AudioFault, match=r"01to030c\.wv1.* 100 bytes"):
        read_audio(file)


def test_what_is_no_wsj0(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus 'wsj0'.*--root"):
        open_corpus(Data(corpus="wsj0"), 0)
    with pytest.raises(UserError, match=r"si_tr_s .*si_tr_s, si_dt_05, si_et_05"):
        _open(_tree(tmp_path, ["train/01t/01to030c.wv1"]))
    _tree(tmp_path, ["si_et_05/440/440c0201.wv1"])
    assert list(_open(tmp_path, ["test"]).splits) == ["test"]
    with pytest.raises(UserError, match=r"si_dt_05 .* si_et_05"):
        _open(tmp_path, ["valid"])
    with pytest.raises(UserError, match="si_"):
        _open(tmp_path / "si_et_05", ["test"])
    (tmp_path / "si_tr_s").mkdir()
    with pytest.raises(UserError, match=r"si_tr_s.*wav, wv1, wv2"):
        _open(tmp_path, ["train"])
