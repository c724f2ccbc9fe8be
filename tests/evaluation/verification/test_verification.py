"""From embeddings to the report: what is scored, what cannot be, what is written and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from scipy.stats import norm

from corpora.registry import open_corpus
from corpora.types import Corpus, Sound, Utterance
from evaluation.disentanglement.embeddings import Embeddings
from evaluation.verification.__main__ import main
from evaluation.verification.command import SystemResult, evaluate, merged
from evaluation.verification.det import det_curves, deviates
from evaluation.verification.lda import project
from evaluation.verification.systems import s_vectors
from evaluation.verification.trials import Rates, all_pairs, cosine_scores, equal_error_rate, error_rates
from inference.runs import create, load_run, write_run
from inference.settings.resolve import resolve
from tests.sounds import RATE, noise, voice


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).numpy()


def corpus(train: Sequence[str], test: Sequence[str]) -> Corpus:
    def said(split: str, number: int, speaker: str) -> Utterance:
        return Utterance(f"{split}/{number}", speaker, lambda: Sound(np.zeros((1, 1)), RATE))

    lists = {"train": train, "test": test}
    return Corpus("made-up", "", {k: [said(k, n, s) for n, s in enumerate(v)] for k, v in lists.items()})


def _figures(found: SystemResult, kind: str) -> tuple[list[float | None], list[float | None]]:
    return list(found.stderr[kind].values()), list(found.eer[kind].values())


class Made:
    """Embeddings whose first values hold the speaker, the others the utterance; remembers what is asked for."""

    def __init__(self, of: Corpus, width: int = 30) -> None:
        self.corpus, self.width = of, width
        self.asked: list[tuple[str, int]] = []

    def __call__(self, split: str, parts: int) -> Embeddings:
        self.asked.append((split, parts))
        files, speakers, rows = [], [], []
        for n, utterance in enumerate(self.corpus.splits[split]):
            for part in range(parts):
                files.append(utterance.file)
                speakers.append(utterance.speaker)
                who = random(self.width // 2, seed=int(utterance.speaker))
                what = 3 * random(self.width - self.width // 2, seed=5000 + 100 * n + part + 50 * (split == "test"))
                rows.append(np.concatenate([who + 0.3 * random(self.width // 2, seed=9000 + 7 * n + part), what]))
        vectors = np.stack(rows)
        return Embeddings(
            {"mu2": vectors, "mu1": random(*vectors.shape, seed=4 if split == "test" else 3)}, files, speakers
        )


def test_rates_are_those_of_scores_and_lda_leaves_out_what_is_not_the_speaker() -> None:
    made = corpus([str(i // 4) for i in range(160)], [str(100 + i // 5) for i in range(60)])
    source = Made(made)
    found = evaluate(source, made, "test")
    assert source.asked == [("test", 1), ("train", 1)] and found.notes == []
    assert found.trials == {"trials": 60 * 59 // 2, "targets": 12 * 10, "utterances": 60, "speakers": 12}
    train, test = source("train", 1), source("test", 1)
    trials = all_pairs(test.speakers)
    for name, vectors in (
        ("raw", test.vectors["mu2"]),
        ("lda12", project(train.vectors["mu2"], train.speakers, test.vectors["mu2"], 12)),
    ):
        assert vectors is not None
        expected = equal_error_rate(error_rates(cosine_scores(vectors, trials), trials.target))
        assert found.eer["mu2"][name] == expected
    mu2 = {name: rate for name, rate in found.eer["mu2"].items() if rate is not None}
    assert mu2["lda12"] < 0.05 < mu2["raw"] and set(mu2) == {"raw", "lda12", "lda24"}
    assert all(rate is not None and 0.4 < rate < 0.6 for rate in found.eer["mu1"].values())
    assert all((error is None) == (rate == 0) for error, rate in zip(*_figures(found, "mu2"), strict=True))


def test_speakers_with_one_utterance_are_cut_in_parts_and_it_is_said() -> None:
    made = corpus([str(i) for i in range(40)], [str(100 + i // 5) for i in range(20)])
    source = Made(made, width=20)
    found = evaluate(source, made, "test")
    assert source.asked == [("test", 1), ("train", 2)]
    assert any("40 of 40 training speakers have one utterance" in n and "on 2 parts of these" in n for n in found.notes)
    assert any("4 speakers in the trials" in note for note in found.notes)
    assert found.eer["mu2"]["lda24"] is None and found.eer["mu2"]["lda12"] is not None
    assert found.missing["mu2"] == {"lda24": "LDA to 24 dimensions of embeddings that have 20"}


def test_utterances_of_speakers_who_have_others_stay_whole() -> None:
    made = corpus([*[str(i // 2) for i in range(40)], "77", "78"], [str(100 + i // 5) for i in range(20)])
    source = Made(made)
    found = evaluate(source, made, "test")
    whole, halves, test = source("train", 1), source("train", 2), source("test", 1)
    train = np.concatenate([whole.vectors["mu2"][:40], halves.vectors["mu2"][80:]])
    projected = project(train, [*whole.speakers[:40], "77", "77", "78", "78"], test.vectors["mu2"], 12)
    assert projected is not None
    trials = all_pairs(test.speakers)
    expected = equal_error_rate(error_rates(cosine_scores(projected, trials), trials.target))
    assert found.eer["mu2"]["lda12"] == pytest.approx(expected)
    assert any("2 of 22 training speakers have one utterance" in note for note in found.notes)


def test_too_few_training_speakers_leave_no_lda() -> None:
    made = corpus(["1", "1", "2", "2"], [str(100 + i // 5) for i in range(20)])
    found = evaluate(Made(made), made, "test")
    assert found.eer["mu1"]["lda12"] is None and found.stderr["mu1"]["lda12"] is None
    assert found.missing["mu1"]["lda12"] == "LDA to 12 dimensions needs more than 12 training speakers, got 2"


def test_a_report_keeps_other_embeddings_of_the_same_trials_only() -> None:
    same: dict[str, Any] = {"corpus": "c", "root": None, "split": "test", "data_seed": 0, "num_sequences": 9}
    same |= {"trials": 36, "targets": 9, "speakers": 3}
    old: dict[str, Any] = {
        **same,
        "eer": {"mu2": {"raw": 0.1}, "ivector": {"raw": 0.3}},
        "stderr": {"mu2": {}, "ivector": {}},
    }
    old |= {"systems": {"mu2": 1, "ivector": 2}, "missing": {"mu2": {"lda24": "a"}, "ivector": {"raw": "b"}}}
    old |= {"notes": ["old"]}
    new: dict[str, Any] = {
        **same,
        "eer": {"ivector": {"raw": 0.2}},
        "stderr": {"ivector": {}},
        "systems": {"ivector": 3},
    }
    new |= {"missing": {}, "notes": []}
    both = merged(new, old)
    assert both["eer"] == {"mu2": {"raw": 0.1}, "ivector": {"raw": 0.2}} and both["systems"] == {"mu2": 1, "ivector": 3}
    assert both["missing"] == {"mu2": {"lda24": "a"}} and both["notes"] == ["old"]
    assert merged(new, {**old, "trials": 37}) == new and merged(new, None) == new


def test_the_curve_of_two_gaussians_is_a_straight_line_and_is_drawn() -> None:
    thresholds = np.linspace(-3, 5, 200)
    rates = Rates(norm.sf(thresholds), norm.cdf(thresholds, loc=2))
    x, y = deviates(rates.false_acceptance), deviates(rates.false_rejection)
    inside = (np.abs(x) < 3) & (np.abs(y) < 3)
    np.testing.assert_allclose(y[inside], -x[inside] - 2, atol=1e-9)
    figure = det_curves({"mu2": {"raw": rates, "lda12": rates}}, {"mu2": {"raw": 0.159, "lda12": None}}, "heading")
    curves = [line for line in figure.axes[0].lines if np.size(line.get_xdata()) == 200]
    assert len(curves) == 2 and np.array_equal(curves[0].get_ydata(), y)
    legend = figure.legends[0] if figure.legends else None
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["mu2: 15.90 %", "mu2, LDA 12"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Sounds of three speakers a split, whose rate of speaking tells them apart; and a run on them."""
    for split, each in (("train", 2), ("test", 3)):
        for s in range(3):
            for i in range(each):
                path = tmp_path / "data" / split / f"{split}{s}" / f"{i}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                samples = voice(0.7 + 0.1 * i, rate=RATE + 4000 * s) + noise(round((0.7 + 0.1 * i) * (RATE + 4000 * s)))
                soundfile.write(path, samples / np.abs(samples).max(), RATE)
    settings = resolve("vae", overrides=["data.corpus=folder", f"data.root={tmp_path / 'data'}"])
    model, guide = create(settings)
    write_run(tmp_path / "run", settings, model, guide)
    return tmp_path


SIZES = ["--components", "4", "--ivector-dim", "3", "--em-iterations", "3"]


def test_ivectors_from_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "run" / "last.pt").unlink()
    (folder / "run" / "best.pt").unlink()  # the baseline reads the settings of a run alone
    arguments = [str(folder / "run"), "--system", "ivector", *SIZES, "--json", str(folder / "copy.json")]
    assert main(arguments) == 0, capsys.readouterr().err
    report = json.loads((folder / "run" / "verification.json").read_text())
    assert report == json.loads((folder / "copy.json").read_text())
    assert (report["trials"], report["targets"], report["speakers"], report["split"]) == (36, 9, 3, "test")
    assert report["eer"]["ivector"]["lda12"] is None and 0 <= report["eer"]["ivector"]["raw"] <= 0.5
    assert report["systems"]["ivector"] == {
        "system": "ivector",
        "components": 4,
        "covariance": "diag",
        "iterations": 3,
        "cmn": False,
        "seed": 0,
        "dim": 3,
    }
    assert (folder / "run" / "verification_ivector.png").stat().st_size > 1000
    out, err = capsys.readouterr()
    assert "36 trials, 9 of them targets: all pairs of 9 utterances of 3 speakers" in out and "none" in out
    assert "ivector: none for LDA to 12 dimensions of embeddings that have 3" in err


def test_s_vectors_from_the_command_line_beside_ivectors(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overrides = ["data.corpus=folder", f"data.root={folder / 'data'}", "data.frontend=stft", "model.bins=65"]
    overrides += ["data.hop=64", "model.z_dim=3", "model.h_dim=4"]
    settings = resolve("fhvae", overrides=overrides)
    model, guide = create(settings)
    model.fit_input([torch.rand(20, 65)])
    run = folder / "fhvae"
    write_run(run, settings, model, guide)
    assert main([str(run), "--system", "ivector", *SIZES]) == 0, capsys.readouterr().err
    baseline = json.loads((run / "verification.json").read_text())["eer"]["ivector"]
    assert main([str(run)]) == 0, capsys.readouterr().err
    report = json.loads((run / "verification.json").read_text())
    assert set(report["eer"]) == {"mu2", "mu1", "ivector"} and report["eer"]["ivector"] == baseline
    assert report["systems"]["mu2"] == {"system": "fhvae", "checkpoint": "best.pt", "step": 0, "dim": 3}
    assert (run / "verification.png").is_file() and report["trials"] == 36
    loaded = load_run(run)
    source = s_vectors(loaded, open_corpus(loaded.settings.data, 0, ["test"]))
    whole, halves = source("test", 1), source("test", 2)
    trials = all_pairs(whole.speakers)
    raw = equal_error_rate(error_rates(cosine_scores(whole.vectors["mu2"], trials), trials.target))
    assert report["eer"]["mu2"]["raw"] == pytest.approx(raw)
    assert list(halves.files) == [file for file in whole.files for _ in range(2)]
    assert halves.vectors["mu1"].shape == (18, 3)


def test_runs_and_arguments_that_do_not_go_together(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(folder / "run")
    assert main([run]) == 2
    assert "is a run of model 'vae', which has no s-vectors" in capsys.readouterr().err
    assert main([run, "--ivector-dim", "3"]) == 2
    assert "--ivector-dim has no effect with --system fhvae" in capsys.readouterr().err
