"""Drawings: the counts of the shared corpus, offsets there and back, noise of a grid, every fault by name, training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.recipes.strokes import DRAWERS, moves, positions
from corpora.registry import open_corpus
from corpora.types import AudioFault, Frames
from dvae_pyro.errors import UserError
from inference import svi
from inference.settings.resolve import resolve
from inference.settings.tree import DataSettings as Data
from models.likelihoods.pen import PenStrokeHead
from models.nn.inputs import InputTransform
from tests.support.strokes import drawings


def data(root: Path, noise: Any = "all") -> Data:
    return Data(
        corpus="strokes", root=str(root), frontend="frames", trim_db=None, sequence_frames=None, dequantise=noise
    )


HELD = drawings([12, 7, 30, 9, 11], [1, 16, 5, 17, 20])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    np.savez(tmp_path / "made.npz", **HELD)
    return tmp_path


def frames_of(root: Path, split: str, noise: Any = "all", seed: int = 0) -> dict[str, NDArray[np.float32]]:
    found = {}
    for utterance in open_corpus(data(root, noise), seed, [split]).splits[split]:
        recording = utterance.load()
        assert isinstance(recording, Frames)
        found[utterance.file] = recording.x
    return found


def test_the_shared_corpus_is_read_whole_and_nobody_draws_in_two_splits(shared: Path) -> None:
    corpus = open_corpus(data(shared / "corpora" / "omniglot-strokes", None), 0)
    counts = {split: len(utterances) for split, utterances in corpus.splits.items()}
    assert counts == {"train": 136 * 16, "valid": 136 * 2, "test": 136 * 2}
    artists = {split: {u.speaker for u in utterances} for split, utterances in corpus.splits.items()}
    assert [len(artists[split]) for split in DRAWERS] == [80, 10, 10]
    assert len(set.union(*artists.values())) == 100
    files = [u.file for utterances in corpus.splits.values() for u in utterances]
    assert len(set(files)) == 2720
    frames = [u.load() for utterances in corpus.splits.values() for u in utterances]
    lifted = [x.x[:, 2] for x in frames if isinstance(x, Frames)]
    assert sum(map(len, lifted)) == 375709 - 2720, "README: points, less the first of each drawing"
    assert sum(float(x.sum()) for x in lifted) == 6170 - 12, "README: strokes, less 12 dots at the beginning"
    assert all(x[-1] == 1 for x in lifted)
    assert sum("begin with a dot" in note for notes in corpus.notes.values() for note in notes) >= 1


def test_offsets_are_those_of_the_points_and_lead_back(root: Path) -> None:
    points = HELD["points"][:12].astype(np.float64)
    found = frames_of(root, "train", None)["Greek/01/01"]
    assert found.shape == (11, 3)
    assert (found[:, 0] == points[1:, 0] - points[:-1, 0]).all()
    assert (found[:, 1] == points[1:, 1] - points[:-1, 1]).all() and (found[:, 2] == points[1:, 2]).all()
    back = positions(found)
    np.testing.assert_array_equal(back[:, :2], points[:, :2] - points[0, :2])
    assert back[0, 2] == 0 and (back[1:, 2] == points[1:, 2]).all()


def test_noise_is_of_every_position_or_of_the_moves_of_training_alone(root: Path) -> None:
    for split in DRAWERS:
        clean = frames_of(root, split, None)
        for noise, reach in (("all", 1.0), ("train", 0.5 if split == "train" else 0.0)):
            found = frames_of(root, split, noise)
            moved = np.concatenate([np.abs(found[file] - clean[file]) for file in clean])
            assert (moved[:, 2] == 0).all(), "whether the pen is lifted has no noise"
            assert moved[:, :2].max() <= reach and ((moved[:, :2] > 0).all() or reach == 0)
    again, other = frames_of(root, "train"), frames_of(root, "train", seed=1)
    assert all((again[file] == x).all() for file, x in frames_of(root, "train").items())
    assert all((other[file][:, :2] != x[:, :2]).any() for file, x in again.items())


@pytest.mark.parametrize("noise", ["all", "train"])
def test_noise_is_uniform_over_the_grid_and_of_each_drawing(noise: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **drawings([20001, 20001], [1, 1]))
    clean, found = frames_of(tmp_path, "train", None), frames_of(tmp_path, "train", noise)
    u, v = ((found[file] - clean[file])[:, :2].astype(float) for file in clean)
    # in 40,000 draws of mean 0 and variance 1/12, whose square has variance 1/180: five standard errors
    if noise == "all":  # of positions, so that those do not drift; a move's is the difference of two
        assert np.abs(u.cumsum(0)).max() <= 1.0 + 1e-3
        assert abs(u.var() - 1 / 6) < 5 * (7 / 180 * 2 / 40000) ** 0.5
        assert abs(np.mean(u[1:] * u[:-1]) + 1 / 12) < 5 / 6 / 200
    else:
        assert np.abs(u).max() <= 0.5 and abs(u.mean()) < 5 * (1 / 12 / 40000) ** 0.5
        assert abs(u.var() - 1 / 12) < 5 * (1 / 180 / 40000) ** 0.5
        assert abs(np.mean(u[1:] * u[:-1])) < 5 / 12 / 200
    assert abs(np.corrcoef(u.ravel(), v.ravel())[0, 1]) < 7 / 200, "two drawings have noise of their own"


def test_offsets_are_standardised_and_the_pen_is_not(root: Path) -> None:
    settings = resolve("vrnn", overrides=["data.corpus=strokes", f"data.root={root}"])
    assert (settings.model.likelihood, settings.model.bins, settings.model.normalise) == ("pen", 3, True)
    assert (settings.data.dequantise, settings.data.sequence_frames) == ("all", None)
    frontend = open_frontend(settings.data, 3)
    sequences = load_sequences(open_corpus(settings.data, 0), "train", frontend, sequence_frames=None)
    assert sorted(len(item.x) for item in sequences) == [6, 11, 29]
    scaling = InputTransform("standard", 3, bits=1)
    scaling.fit(item.x for item in sequences)
    x = torch.cat([item.x for item in sequences])
    y = scaling(x)
    assert torch.allclose(y[:, :2].mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(y[:, :2].std(0, correction=0), torch.ones(2), atol=1e-5)
    assert torch.equal(y[:, 2], x[:, 2]) and torch.allclose(scaling.inverse(y), x, atol=1e-5)


def test_a_pen_starts_from_the_share_of_strokes_ends() -> None:
    head = PenStrokeHead(4, 3, components=2)
    x = torch.zeros(200, 3)
    x[:3, 2] = 1.0
    head.fit([x[:50], x[50:]])
    share = torch.sigmoid(head(torch.zeros(4)).pen).item()
    assert share == pytest.approx(3.5 / 201.0, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drawer": None}, r"made\.npz .*'drawer'.* points, offsets"),
        ({"offsets": np.array([0, 12, 19, 49, 58, 60])}, "'offsets' .* 0 .* 69"),
        ({"offsets": np.array([0, 19, 12, 49, 58, 69])}, "'offsets' .* 0 .* 69"),
        ({"points": HELD["points"][:, :2]}, r"'points' .*float32 .*\(69, 2\).*\(points, 3\)"),
        ({"drawer": np.ones(3, int)}, r"'drawer' .*int64 .*\(3,\).* 5"),
        ({"alphabet": np.full(5, 1)}, "'alphabet' .* 1 'alphabet_names'"),
        ({"drawer": np.ones(5, int)}, " 17 to 18.* valid"),
    ],
)
def test_faults_of_the_archive_are_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    held = {name: array for name, array in (HELD | change).items() if array is not None}
    np.savez(tmp_path / "made.npz", **held)
    with pytest.raises(UserError, match=message):
        open_corpus(data(tmp_path), 0)


def test_a_folder_without_one_archive_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "sub").mkdir()
    with pytest.raises(UserError, match="--root"):
        open_corpus(data(tmp_path / "sub"), 0)
    (root / "other.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"made\.npz, other\.npz"):
        open_corpus(data(root), 0)
    (root / "made.npz").unlink()
    with pytest.raises(UserError, match="other.npz"):
        open_corpus(data(root), 0)


@pytest.mark.parametrize(
    ("points", "fault"),
    [
        ([[0.0, 0.0, 0.0]], " 1 point"),
        ([[0.0, 0.0, 0.0], [1.0, np.nan, 1.0]], "NaN"),
        ([[0.0, 0.0, 0.0], [1.0, 1.0, 0.5]], " 0.5 .*pen"),
        ([[0.0, 0.0], [1.0, 1.0]], r"\(2, 2\).*\(points, 3\)"),
    ],
)
def test_faults_of_a_drawing_are_named(points: list[list[float]], fault: str) -> None:
    with pytest.raises(AudioFault, match=fault):
        moves(np.array(points))


def test_noise_is_refused_where_nothing_lies_on_a_grid() -> None:
    with pytest.raises(UserError, match="data.dequantise=all .*corpus 'synthetic' .*strokes"):
        resolve("vae", overrides=["data.dequantise=all"])


@pytest.mark.parametrize(
    ("model", "small"),
    [
        ("ms_stcn", ["model.widths=[8,8]", "model.strides=[1,2]", "model.z_dims=[2,2]", "model.dilations=[1]"]),
        ("vrnn", ["model.z_dim=2", "model.x=[8]", "model.z=[4]", "model.h_dim=8", "model.h_z=[4]", "model.hz_x=[8]"]),
    ],
)
def test_models_train_on_drawings_of_any_length(model: str, small: list[str], root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    where = ["--model", model, "--corpus", "strokes", "--root", str(root), "--run", str(run)]
    more = ["train.epochs=25", "optim.lr=0.01", "model.components=2", "train.tensorboard=false"]
    assert svi.main([*where, *small, *more]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bounds = [line["elbo"] for line in lines if line["split"] == "train"]
    assert min(bounds[-3:]) > max(bounds[:3])
