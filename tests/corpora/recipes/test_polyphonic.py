"""Piano rolls: the counts of the shared corpus, every fault by name, and what such a corpus implies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.io import savemat

from corpora.frontends.registry import FRONT_ENDS, open_frontend
from corpora.loading.sequences import load_sequences
from corpora.registry import CORPORA, CORPUS_DEFAULTS, check_data, open_corpus
from corpora.types import Corpus, Utterance
from dvae_pyro.errors import UserError
from evaluation.resynthesis import __main__ as resynthesis
from inference import svi
from inference.settings.resolve import resolve
from inference.settings.tree import DataSettings as Data

README = {
    "JSB_Chorales": ((229, 13807), (76, 4602), (77, 4725)),
    "Nottingham": ((694, 176561), (173, 45513), (170, 44463)),
    "MuseData": ((524, 245202), (135, 82755), (124, 64339)),
    "Piano_midi": ((87, 75911), (12, 8540), (25, 19036)),
}
"""Sequences and steps of train, valid and test, as the shared corpus's README counts them."""


def data(root: Path, set_name: str | None = "Made", **more: Any) -> Data:
    given = {"frontend": "frames", "trim_db": None, "sequence_frames": None, **more}
    return Data(corpus="polyphonic", root=str(root), subset=set_name, **given)


def cells(*rolls: NDArray[Any]) -> NDArray[Any]:
    held = np.empty((1, len(rolls)), dtype=object)
    for k, roll in enumerate(rolls):
        held[0, k] = roll
    return held


def rolls(count: int, keys: int = 88, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Sequences of 5, 6, ... frames, with chords that last."""
    noise = np.random.default_rng(seed)
    return [np.repeat(noise.random((4 + k, keys)) < 0.05, 2, axis=0).astype(np.uint8)[: 5 + k] for k in range(count)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A set of 6, 2 and 2 sequences; the first two of training are one, and the last is for testing too."""
    train = rolls(6)
    train[1] = train[0].copy()
    splits = {
        "traindata": cells(*train),
        "validdata": cells(*rolls(2, seed=1)),
        "testdata": cells(train[5], *rolls(1, seed=2)),
    }
    savemat(tmp_path / "Made.mat", splits)
    return tmp_path


def read(settings: Data, split: str, bins: int = 88) -> tuple[list[torch.Tensor], list[str]]:
    """The sequences of a split, and what is said of them."""
    lines: list[str] = []
    found = load_sequences(
        open_corpus(settings, 0, [split]),
        split,
        open_frontend(settings, bins),
        sequence_frames=settings.sequence_frames,
        on_error=settings.on_error,
        report=lines.append,
    )
    return [item.x for item in found], lines


@pytest.mark.parametrize("set_name", README)
def test_sets_have_the_counts_of_their_readme(shared: Path, set_name: str) -> None:
    settings = data(shared / "corpora/polyphonic-music", set_name)
    corpus = open_corpus(settings, 0)
    for split, (sequences, frames) in zip(("train", "valid", "test"), README[set_name], strict=True):
        loaded = [np.asarray(utterance.load()[0]) for utterance in corpus.splits[split]]
        assert (len(loaded), sum(map(len, loaded))) == (sequences, frames)
        assert loaded[0].dtype == np.float32 and set(np.unique(loaded[0])) == {0.0, 1.0}
    names = [utterance.file for utterance in corpus.splits["train"]]
    assert names[7] == f"{set_name}/train/0007" and len(set(names)) == len(names)


def test_duplicates_of_the_readme_are_said(shared: Path) -> None:
    root = shared / "corpora/polyphonic-music"
    notes = {name: open_corpus(data(root, name), 0).notes for name in README}
    assert [len(notes["JSB_Chorales"][s]) + len(notes["Piano_midi"][s]) for s in ("train", "valid", "test")] == [0] * 3
    assert {split: len(lines) for split, lines in notes["MuseData"].items()} == {"train": 1, "valid": 0, "test": 0}
    assert {split: len(lines) for split, lines in notes["Nottingham"].items()} == {"train": 3, "valid": 1, "test": 1}
    assert notes["Nottingham"]["test"][0] in notes["Nottingham"]["train"]


def test_sequences_are_whole_and_as_they_are_in_the_file(root: Path) -> None:
    found, lines = read(data(root), "train")
    assert [len(x) for x in found] == [5, 5, 7, 8, 9, 10]
    np.testing.assert_array_equal(found[3].numpy(), rolls(6)[3])
    assert lines == [
        "train: the same sequence 2 times in Made.mat: Made/train/0000, Made/train/0001",
        "train: the same sequence 2 times in Made.mat: Made/train/0005, Made/test/0000",
        "train: 6 sequences, 44 frames",
    ]
    cut, lines = read(data(root, sequence_frames=4), "train")
    assert [len(x) for x in cut] == [4] * 9 and "left out" not in "".join(lines)


@pytest.mark.parametrize(
    ("set_name", "message"),
    [
        ("JSB_Choral", r"JSB_Choral\.mat .*JSB_Chorales, Made\..*'JSB_Chorales'"),
        (None, r"data\.subset=NAME.*JSB_Chorales, Made"),
        ("JSB_Chorales", r"JSB_Chorales\.mat .*MATLAB"),
    ],
)
def test_a_set_that_is_not_there_or_no_matlab_file(root: Path, set_name: str | None, message: str) -> None:
    (root / "JSB_Chorales.mat").write_text("no MATLAB file, but text that is long enough to be taken for a header" * 9)
    with pytest.raises(UserError, match=message):
        open_corpus(data(root, set_name), 0)


def test_a_folder_without_sets_and_a_set_without_a_split(root: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty.*JSB_Chorales.mat"):
        open_corpus(data(tmp_path / "empty"), 0)
    savemat(root / "Part.mat", {"traindata": cells(*rolls(2)), "validdata": cells(), "other": np.zeros(3)})
    with pytest.raises(UserError, match="'testdata'.*traindata, validdata"):
        open_corpus(data(root, "Part"), 0, ["test"])
    with pytest.raises(UserError, match="'validdata'"):
        open_corpus(data(root, "Part"), 0, ["valid"])
    assert len(open_corpus(data(root, "Part"), 0, ["train"]).splits["train"]) == 2


@pytest.mark.parametrize(
    ("roll", "message"),
    [
        (np.array([[0, 2, 1]]), " 1 .* 0 and 1.* 2"),
        (np.array([[0.0, np.nan, 0.5]]), " 2 .* 0 and 1.* nan"),
        (np.zeros((2, 3, 4)), r"float64 .*\(2, 3, 4\).*\(frames, keys\)"),
        (np.array(["a tune"]), "<U6"),
        (np.zeros((0, 3)), "no frames"),
    ],
)
def test_what_is_no_piano_roll_is_refused_or_left_out(root: Path, roll: NDArray[Any], message: str) -> None:
    savemat(root / "Odd.mat", {"traindata": cells(np.eye(3), roll)})
    with pytest.raises(UserError, match=f"Odd/train/0001 .*polyphonic .*{message}"):
        read(data(root, "Odd"), "train", bins=3)
    found, lines = read(data(root, "Odd", on_error="skip"), "train", bins=3)
    assert len(found) == 1 and "skipped 1 broken of 2 files: Odd/train/0001" in lines[0]


def test_frames_of_another_size_than_the_model_are_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"\(5, 88\).* 87\).*model\.bins=88"):
        read(data(root), "train", bins=87)


def test_what_the_corpus_implies_lies_between_the_model_and_the_config(tmp_path: Path) -> None:
    settings = resolve("vrnn", overrides=["data.corpus=polyphonic"])
    assert (settings.data.frontend, settings.data.trim_db, settings.data.sequence_frames) == ("frames", None, None)
    assert (settings.model.bins, settings.model.likelihood, settings.model.input) == (88, "bernoulli", "raw")
    assert resolve("vrnn").data.sequence_frames == 150 and resolve("vrnn").model.likelihood == "power_spectrum"
    config = tmp_path / "row.yaml"
    config.write_text("model: {name: dkf, input: standard}\ndata: {corpus: polyphonic, sequence_frames: 30}\n")
    settings = resolve(config_path=config, overrides=["data.sequence_frames=20"])
    assert (settings.model.input, settings.data.sequence_frames, settings.model.bins) == ("standard", 20, 88)


def test_implied_settings_are_of_corpora_and_front_ends_that_there_are() -> None:
    assert set(CORPUS_DEFAULTS) <= set(CORPORA)
    for corpus, implied in CORPUS_DEFAULTS.items():
        assert implied.get("data.frontend", "stft") in FRONT_ENDS
        check_data(resolve("vae", overrides=[f"data.corpus={corpus}"]).data)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.corpus=polyphonic", "data.rate=8000"], r"data\.rate=8000 .*'polyphonic'"),
        (["data.corpus=polyphonic", "data.trim_db=30"], r"data\.trim_db=30\.0 .*'polyphonic'"),
        (["data.corpus=polyphonic", "data.hop=1"], r"data\.hop=1 .*'polyphonic'"),
        (["data.corpus=polyphonic", "data.frontend=stft"], r"data\.frontend=stft\b.*'polyphonic'"),
        (["data.frontend=frames"], r"data\.frontend=frames\b.*'synthetic'"),
        (["data.subset=Nottingham"], r"data\.subset=Nottingham\b.*'synthetic' .*polyphonic"),
    ],
)
def test_settings_that_would_say_nothing_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolve("vae", overrides=overrides)


def test_sound_and_frames_do_not_pass_for_each_other(root: Path) -> None:
    frames = open_corpus(data(root), 0).splits["train"][0]
    sound = open_corpus(Data(), 0).splits["valid"][0]
    with pytest.raises(UserError, match=" frames.* sound"):
        frames.sound()
    for frontend, utterance in (("stft", frames), ("frames", sound)):
        with pytest.raises(UserError, match=r"data\.frontend="):
            open_frontend(Data(frontend=frontend), 257).prepare(utterance.load())
    assert isinstance(frames, Utterance) and isinstance(open_corpus(data(root), 0), Corpus)


def test_a_model_trains_on_it_and_is_not_resynthesised(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    small = ["model.z_dim=2", "model.z_x=[8]", "guide.g_dim=8", "guide.x_g=[8]", "train.batch_size=6"]
    where = ["--corpus", "polyphonic", "--root", str(root), "data.subset=Made"]
    more = ["train.epochs=20", "optim.lr=0.05", "train.tensorboard=false", "train.checkpoint_every=1000"]
    assert svi.main(["--model", "dkf", *where, "--run", str(run), *small, *more]) == 0
    assert f"next: python -m evaluation.likelihood {run}" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    bounds = [line["elbo"] for line in lines if line["split"] == "train"]
    assert -0.5 * 88 * np.log(2) < bounds[0] < bounds[-1], "from better than fair coins on, upward"
    assert resynthesis.main([str(run)]) == 2
    said = capsys.readouterr().err
    assert "contains no sound" in said and "evaluation.likelihood" in said
    assert resynthesis.main([str(run), "--corpus", "synthetic"]) == 2
    assert "data.frontend=frames: corpus 'synthetic'" in capsys.readouterr().err
