"""Segments recombined and traversed: what is decoded from what, and which segments are taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from corpora.frontends.registry import open_frontend
from corpora.loading.sequences import load_sequences
from corpora.registry import open_corpus
from dvae_pyro.errors import UserError
from evaluation import factor_grid, traverse
from evaluation.disentanglement.factor_grid import grid, shares
from evaluation.disentanglement.segments import Segment, decoded, inferred, select_segments
from evaluation.disentanglement.traversal import traversed
from inference.runs import Run
from tests.sounds import RATE, noise, voice
from tests.support.latents import made_run
from tests.support.runs import SMALL_FHVAE, write_sounds

SPEAKERS = ("a", "b", "c")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A small FHVAE and a corpus of two utterances of each of three speakers."""
    return on_corpus(tmp_path, "fhvae")


def on_corpus(tmp_path: Path, model: str, *more: str) -> Run:
    sounds = {}
    for i, speaker in enumerate(SPEAKERS):
        for k in range(2):
            seconds = 0.4 + 0.05 * i + 0.1 * k
            sound = voice(seconds) * np.linspace(0.1, 1.0, round(seconds * RATE))
            sounds[f"test/{speaker}/{speaker}{k}.wav"] = sound + noise(len(sound), 0.01)
    root = write_sounds(tmp_path / "corpus", sounds)
    return made_run(tmp_path / "run", model, *SMALL_FHVAE, "data.corpus=folder", f"data.root={root}", *more)


def segments(count: int, seed: int = 1) -> list[Segment]:
    generator = torch.Generator().manual_seed(seed)
    return [Segment(f"f{i}", f"s{i}", 0, torch.randn(20, 64, generator=generator)) for i in range(count)]


def by_hand(run: Run, z1: Any, z2: Any) -> Any:
    """One segment decoded from its latents (L,): (S, D)."""
    model: Any = run.model
    with torch.no_grad():
        h = model.h(torch.cat([z1, z2])[None, None].expand(20, 1, -1))[0]
        return model.scaling.inverse(model.decoder(h).mean)[:, 0]


def test_a_cell_is_z1_of_its_row_with_z2_of_its_column(run: Run) -> None:
    rows, columns = segments(2), segments(3, seed=4)
    cells = grid(run, rows, columns)
    for r, row in enumerate(rows):
        for c, column in enumerate(columns):
            expected = by_hand(run, inferred(run, [row])["z1"][0], inferred(run, [column])["z2"][0])
            np.testing.assert_allclose(cells[r, c], expected.numpy(), rtol=1e-9)
    own = grid(run, rows, rows)
    np.testing.assert_allclose(own[[0, 1], [0, 1]], decoded(run, inferred(run, rows)), rtol=1e-9)


def test_shares_are_those_of_a_two_way_layout() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 1, 2, 2)), rng.standard_normal((1, 4, 2, 2))
    assert shares(a + 0 * b) == pytest.approx({"z1": 1.0, "z2": 0.0, "together": 0.0})
    additive = shares(a + b)
    of_a, of_b = 4 * np.square(a - a.mean(0)).sum(), 3 * np.square(b - b.mean(1)).sum()
    assert additive == pytest.approx({"z1": of_a / (of_a + of_b), "z2": of_b / (of_a + of_b), "together": 0.0})
    jointly = np.array([[1.0, -1.0], [-1.0, 1.0]])[:, :, None, None]
    assert shares(jointly) == pytest.approx({"z1": 0.0, "z2": 0.0, "together": 1.0})


@pytest.mark.parametrize("latent", ["z1", "z2"])
def test_one_dimension_moves_and_the_others_stay(run: Run, latent: str) -> None:
    some = segments(2)
    own = inferred(run, some)
    values = [-3.0, float(own[latent][1, 2]), 3.0]
    found = traversed(run, some, latent, [2, 0], values)
    np.testing.assert_allclose(found[0, 1, 1], decoded(run, own)[1], rtol=1e-9)  # it is set to what it is
    for place, dim in enumerate((2, 0)):
        for k in range(2):
            z = {name: own[name][k].clone() for name in ("z1", "z2")}
            z[latent][dim] = -3.0
            np.testing.assert_allclose(found[place, k, 0], by_hand(run, **z).numpy(), rtol=1e-9)


def test_segments_are_the_loudest_of_one_utterance_of_each_speaker(run: Run) -> None:
    corpus = open_corpus(run.settings.data, 0, needed=["test"])
    frontend = open_frontend(run.settings.data, 64)
    whole = {i.file: i.x.numpy() for i in load_sequences(corpus, "test", frontend, sequence_frames=None)}
    found = select_segments(run, "test", {"--row": ([], 2), "--column": ([], 3), "--other": (["b1"], 9)}, None)
    assert [[s.speaker for s in of_one] for of_one in found.values()] == [["a", "b"], ["c", "a", "b"], ["b"]]
    every = [segment for of_one in found.values() for segment in of_one]
    assert len({segment.file for segment in every}) == 5 and every[-1].file == every[-2].file == "test/b/b1.wav"
    for segment in every:
        x = whole[segment.file]
        loudness = [x[s : s + 20].mean() for s in range(len(x) - 19)]
        assert segment.start == int(np.argmax(loudness)) > 0
        np.testing.assert_array_equal(segment.x.numpy(), x[segment.start : segment.start + 20])
    (at,) = select_segments(run, "test", {"--row": (["a0"], 1)}, 0.2)["--row"]
    assert at.start == round(0.2 * RATE / 64)
    with pytest.raises(UserError, match=r"a0\.wav .* 20 .* 100"):
        select_segments(run, "test", {"--row": (["a0"], 1)}, 0.4)


def test_the_grid_is_drawn_and_reported(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "copy.json"
    arguments = ["--row", "a0", "--row", "b0", "--num-columns", "3", "--json", str(copy)]
    assert factor_grid.main([str(run.path), *arguments]) == 0
    assert "of the variance of 2 x 3 segments" in capsys.readouterr().out
    report = json.loads((run.path / "factor_grid.json").read_text())
    assert report == json.loads(copy.read_text()) and (run.path / "factor_grid.png").stat().st_size > 5000
    assert [row["file"] for row in report["rows"]] == ["test/a/a0.wav", "test/b/b0.wav"]
    assert sum(figure["mean"] for figure in report["metrics"].values()) == pytest.approx(1.0)


def test_traversals_are_drawn_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = on_corpus(tmp_path, "beta_vae")
    assert traverse.main([str(run.path), "--sequences", "2", "--values", "3", "--dim", "1", "--dim", "2"]) == 0
    assert {path.name for path in (run.path / "traverse").iterdir()} == {"z1-01.png", "z1-02.png"}
    report = json.loads((run.path / "traverse.json").read_text())
    assert report["values"] == [-3.0, 0.0, 3.0] and len(report["segments"]) == 2
    assert set(report["metrics"]) == {"z1_1", "z1_2"} and report["metrics"]["z1_1"]["n"] == 2
    assert "z1, dimension 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "command", "arguments", "message"),
    [
        ("fhvae", traverse, ["--latent", "mu2"], "expected one of z2, z1"),
        ("fhvae", traverse, ["--latent", "z1", "--dim", "3"], "dimensions 0 to 2"),
        ("fhvae", traverse, ["--values", "1"], "2 or more"),
        ("fhvae", factor_grid, ["--row", "d"], "--row d: no such file"),
        ("fhvae", factor_grid, ["--num-rows", "0"], "expected 1 or more"),
        ("beta_vae", factor_grid, [], "no z1 and z2 to combine"),
    ],
)
def test_mistakes_get_one_message(
    model: str, command: Any, arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = on_corpus(tmp_path, model)
    assert command.main([str(run.path), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not list(run.path.glob("factor_grid*")) and not list(run.path.glob("traverse*"))
