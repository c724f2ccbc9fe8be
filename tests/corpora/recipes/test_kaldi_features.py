"""Kaldi's archives, written byte by byte."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.recipes.kaldi_features import Place, find_place, read_matrix
from corpora.registry import check_data, open_corpus
from corpora.types import AudioFault
from dvae_pyro.errors import UserError
from inference.settings.resolve import resolve
from inference.settings.tree import DataSettings as Data

X = np.random.RandomState(0).randn(7, 3)


def plain(x: NDArray[np.float64], dtype: str = "<f4") -> bytes:
    sizes = struct.pack("<bibi", 4, x.shape[0], 4, x.shape[1])
    return b"\0B" + {"<f4": b"FM ", "<f8": b"DM "}[dtype] + sizes + x.astype(dtype).tobytes()


def archive(path: Path, **matrices: bytes) -> dict[str, str]:
    """An archive, and the lines of its feats.scp."""
    lines, contents = {}, b""
    for name, matrix in matrices.items():
        contents += name.encode() + b" "
        lines[name] = f"{path.name}:{len(contents)}"
        contents += matrix
    path.write_bytes(contents)
    return lines


def read(path: Path, line: str) -> NDArray[np.float32]:
    place = find_place(line, "feats.scp, a")
    return read_matrix(path.parent / place.path, place)


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_plain_matrices_and_their_rows(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "raw.ark"
    lines = archive(path, a=plain(2 * X, dtype), b=plain(X, dtype))
    assert np.array_equal(read(path, lines["b"]), X.astype(np.float32))
    assert np.array_equal(read(path, lines["a"]), (2 * X).astype(np.float32))
    assert np.array_equal(read(path, lines["b"] + "[2:4]"), X[2:5].astype(np.float32))
    with pytest.raises(AudioFault, match=" 7 rows .* 8"):
        read(path, lines["b"] + "[2:7]")


def test_compressed_by_percentiles(tmp_path: Path) -> None:
    """As Kaldi documents the code: 0 to 64 from percentile 0 to 25, to 192 up to 75, to 255 up to 100."""
    low, span = -3.0, 8.0
    marks = np.array([[0, 10_000, 40_000, 65_535], [5, 6, 7, 8]], dtype="<u2")
    codes = np.array([[0, 64, 65, 192, 193, 255], [1, 2, 100, 150, 200, 254]], dtype="u1")
    matrix = b"\0BCM " + struct.pack("<ffii", low, span, 6, 2) + marks.tobytes() + codes.tobytes()
    expected = np.zeros((6, 2))
    for column in range(2):
        p0, p25, p75, p100 = (low + span * mark / 65535 for mark in marks[column].tolist())
        for row, code in enumerate(codes[column].tolist()):
            if code <= 64:
                expected[row, column] = p0 + (p25 - p0) * code / 64
            elif code <= 192:
                expected[row, column] = p25 + (p75 - p25) * (code - 64) / 128
            else:
                expected[row, column] = p75 + (p100 - p75) * (code - 192) / 63
    path = tmp_path / "raw.ark"
    np.testing.assert_allclose(read(path, archive(path, a=matrix)["a"]), expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "dtype", "most"), [(b"CM2 ", "<u2", 65535), (b"CM3 ", "u1", 255)])
def test_compressed_row_by_row(tmp_path: Path, kind: bytes, dtype: str, most: int) -> None:
    codes = np.array([[0, most, 7], [1, 2, most // 2]])
    matrix = b"\0B" + kind + struct.pack("<ffii", 1.0, 4.0, 2, 3) + codes.astype(dtype).tobytes()
    path = tmp_path / "raw.ark"
    np.testing.assert_allclose(read(path, archive(path, a=matrix)["a"]), 1.0 + 4.0 * codes / most, rtol=1e-6)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (plain(X)[:-5], r"cut short.* byte 2 \("),
        (b"\0BFM \4", r"cut short.* byte 2 \("),
        (b"\0BCM " + struct.pack("<ffii", 1.0, 4.0, 2, 3) + b"\0" * 5, r"cut short.* byte 2 \("),
        (b"PKL" + pickle.dumps(X), "byte 2.* b'PKL"),
        (b"NPY" + bytes(99), "byte 2.* b'NPY"),
        (
            b" [\n 1 2 ]\n",
            r"byte 2.* b' \[\\n 1 '",
        ),
        (b"\0BFV \4", r"byte 2.* b'.*BFV "),
        (b"\0BFM " + struct.pack("<bibi", 4, -1, 4, 3), r"cut short.* byte 2 \("),
        (plain(np.array([[1.0, np.nan]])), " 1 NaN.* byte 2$"),
    ],
)
def test_damaged_archives_are_named(tmp_path: Path, matrix: bytes, message: str) -> None:
    path = tmp_path / "raw.ark"
    line = archive(path, a=matrix)["a"]
    with pytest.raises(AudioFault, match=rf"raw.ark: .*{message}"):
        read(path, line)


def test_lines_that_are_no_places(tmp_path: Path) -> None:
    assert find_place("/a b/x.ark", "") == Place("/a b/x.ark", 0, None)
    for line in ("copy-feats ark:a ark:- |", "a.ark:3[4:2]", "a.ark:3[0:2,1:2]", "a.ark:3[:,0:2]"):
        with pytest.raises(UserError, match=r"feats\.scp, a: .*raw_mfcc\.1\.ark:17"):
            find_place(line, "feats.scp, a")
    with pytest.raises(AudioFault, match=r"none\.ark.*No such file"):
        read(tmp_path / "none.ark", "none.ark:0")


def test_a_folder_of_features_is_a_corpus_of_frames(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "train"
    folder.mkdir(parents=True)
    lines = archive(tmp_path / "raw.ark", a=plain(X), b=plain(-X))
    (folder / "feats.scp").write_text("".join(f"{name} {line}\n" for name, line in lines.items()))
    (folder / "utt2spk").write_text("a s1\nb s2\n")
    overrides = ["data.corpus=kaldi", f"data.root={tmp_path / 'data'}", "data.frontend=frames", "data.trim_db=null"]
    settings = resolve("vae", overrides=[*overrides, "model.bins=3", "model.likelihood=gaussian"])
    corpus = open_corpus(settings.data, 0, ["train"])
    a, b = load_sequences(corpus, "train", open_frontend(settings.data, 3), sequence_frames=None)
    assert np.array_equal(a.x, X.astype(np.float32)) and np.array_equal(b.x, -a.x)
    assert (a.file, a.speaker, b.file, b.speaker) == ("train/a", "s1", "train/b", "s2")
    with pytest.raises(UserError, match=r"feats\.scp.*wav\.scp.*\n.*data\.frontend=frames"):
        open_corpus(Data(corpus="kaldi", root=str(tmp_path / "data")), 0, ["train"])
    with pytest.raises(UserError, match=r"data.trim_db=30.0 .*\(data.trim_db=null\)"):
        check_data(Data(corpus="kaldi", frontend="frames"))
    check_data(Data(corpus="kaldi"))
