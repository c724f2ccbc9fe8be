"""From utterances to the report: what is measured, counted, named and written."""

from __future__ import annotations

import csv
import functools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from corpora.types import AudioFault, Corpus, Sound, Utterance
from evaluation.loading.waveforms import FileLog, read_sounds, sound_frontend
from evaluation.reporting.command_line import Request
from evaluation.reporting.report import Results
from evaluation.resynthesis import decoding
from evaluation.resynthesis.__main__ import main
from evaluation.resynthesis.command import COLUMNS, evaluate, table
from evaluation.resynthesis.decoding import resynthesise
from inference.objectives.elbo import Terms
from inference.prediction.reconstruction import Reconstruction
from inference.runs import Run
from inference.settings.resolve import resolve
from inference.settings.tree import Settings
from tests.sounds import RATE, Signal, noise, voice
from tests.support.runs import saved_run, write_sounds

SMALL = ["model.bins=65", "model.z_dim=3", "model.z_x=[5]", "data.hop=64"]
SMALL += ["guide.x_g=[6]", "guide.g_dim=4", "guide.z_g=[5]", "guide.g_z=[5]"]
FIGURES = COLUMNS[3:]


def small_settings(*overrides: str) -> Settings:
    return resolve("dkf", overrides=[*SMALL, "dtype=float64", "device=cpu", *overrides])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return saved_run(tmp_path / "run", "dkf", *SMALL, "dtype=float64", fit=torch.rand(20, 65, dtype=torch.float64))


def said(file: str, samples: Signal, rate: int = RATE) -> Utterance:
    return Utterance(file, file.split("/")[0], lambda: Sound(samples[:, None], rate))


def broken(file: str) -> Utterance:
    def load() -> Sound:
        raise AudioFault("is empty (0 bytes)", file)

    return Utterance(file, "nobody", load)


def corpus(*utterances: Utterance) -> Corpus:
    return Corpus("made-up", "", {"test": list(utterances)})


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose variance is the power itself, with two latents of 3 and 4 nats for each frame."""

    def reconstruct(model: object, guide: object, x: Tensor, lengths: Tensor, **how: str) -> Reconstruction:
        frames = lengths.to(x.dtype)
        return Reconstruction(x, Terms(-frames, {"z": 3.0 * frames, "w": 4.0 * frames}), {})

    monkeypatch.setattr(decoding, "reconstruct", reconstruct)


@pytest.mark.usefixtures("perfect")
def test_the_true_power_with_the_phase_of_the_input_is_the_input(run: Run) -> None:
    sounds = [voice(seconds) for seconds in (0.9, 0.6, 1.1)]
    made = list(resynthesise(run, [said(f"s/{i}", s) for i, s in enumerate(sounds)]))
    assert sorted(m.number for m in made) == [0, 1, 2]
    frontend = sound_frontend(run)
    for m in made:
        assert m.file == f"s/{m.number}" and m.speaker == "s" and m.rate == RATE
        assert m.reference.shape == m.estimate.shape == ((m.frames - 1) * 64,)
        whole = frontend.prepare(Sound(sounds[m.number][:, None], RATE))
        np.testing.assert_array_equal(m.reference, whole[: m.reference.size])
        np.testing.assert_allclose(m.estimate, m.reference, atol=1e-6)  # the power is float32
        assert m.is_per_frame == 0.0
        assert m.kl_per_frame == pytest.approx(7.0)


def test_what_comes_out_does_not_depend_on_what_is_decoded_together(run: Run) -> None:
    utterances = [said(f"s/{i}", voice(seconds)) for i, seconds in enumerate((0.5, 1.5, 0.7, 0.9))]
    alone, together = (
        {m.file: m for m in resynthesise(run, utterances, frames_at_once=frames)} for frames in (1, 10**6)
    )
    assert alone.keys() == together.keys() and len(alone) == 4
    for file, one in alone.items():
        np.testing.assert_allclose(one.estimate, together[file].estimate, rtol=0, atol=1e-12)
        assert one.is_per_frame == pytest.approx(together[file].is_per_frame, rel=1e-12)
        assert one.kl_per_frame == pytest.approx(together[file].kl_per_frame, rel=1e-12)


def test_batches_hold_similar_lengths_within_the_bound_and_read_ahead_is_bounded(run: Run) -> None:
    read: list[str] = []

    def utterances() -> Iterator[Utterance]:
        for i in range(30):
            read.append(str(i))
            yield said(f"s/{i}", voice(0.3 + 0.2 * (i % 3)))

    spoken = read_sounds(utterances(), sound_frontend(run), "error", FileLog())
    batches = decoding._by_length(spoken, 400)
    sizes = [[len(item.x) for item in next(batches)]]
    assert len(read) < 30
    sizes += [[len(item.x) for item in batch] for batch in batches]
    assert sum(len(batch) for batch in sizes) == 30
    assert all(len(batch) * max(batch) <= 400 for batch in sizes)


def test_samples_follow_the_seed_and_leave_torchs_generator_alone(run: Run) -> None:
    def sampled(seed: int) -> Signal:
        seeded = run._replace(settings=small_settings(f"seed={seed}"))
        return next(iter(resynthesise(seeded, [said("s/0", voice(0.5))], latents="sample"))).estimate

    state = torch.get_rng_state()
    first = sampled(0)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, sampled(0))
    assert not np.array_equal(first, sampled(1))


@pytest.fixture
def outcome(run: Run) -> Results:
    click = np.r_[np.zeros(8000), noise(400), np.zeros(8000)]
    whole = small_settings("data.trim_db=null", "data.on_error=skip")
    utterances = [
        said("b/loud", voice(1.0)),
        broken("a/empty"),
        said("c/click", click),
        said("a/late", voice(0.8)),
    ]
    return evaluate(run._replace(settings=whole), corpus(*utterances), Request(run.path), audio=4)


def test_report_has_the_agreed_names(outcome: Results, run: Run) -> None:
    report = outcome.report
    assert {"corpus", "split", "num_sequences", "mode", "latents", "checkpoint", "metrics"} <= report.keys()
    what = {key: report[key] for key in ("corpus", "split", "num_sequences", "mode", "latents", "checkpoint")}
    assert list(what.values()) == [run.settings.data.corpus, "test", 3, "gt", "mean", "best.pt"]
    assert tuple(report["metrics"]) == FIGURES
    assert report["parameters"] == sum(p.numel() for m in (run.model, run.guide) for p in m.parameters())
    assert report["autoregressive"] is False
    json.dumps(report, allow_nan=False)


def test_rows_follow_the_corpus_and_give_the_report(outcome: Results) -> None:
    assert [row["file"] for row in outcome.rows] == ["b/loud", "c/click", "a/late"]
    assert all(tuple(row) == COLUMNS for row in outcome.rows)
    for figure in FIGURES:
        values = np.array([float(row[figure]) for row in outcome.rows])
        finite = values[np.isfinite(values)]
        found = outcome.report["metrics"][figure]
        assert found["n"] == finite.size
        assert found["mean"] == pytest.approx(finite.mean(), rel=1e-12)
        assert found["stderr"] == pytest.approx(finite.std(ddof=1) / math.sqrt(finite.size), rel=1e-12)


def test_figures_that_do_not_exist_are_counted_and_named(outcome: Results) -> None:
    assert outcome.report["pesq_unscored"] == {"count": 1, "files": ["c/click"]}
    assert outcome.report["unscored"]["stoi"] == ["c/click"]
    assert math.isnan(float(outcome.rows[1]["pesq_wb"]))
    assert outcome.report["metrics"]["pesq_wb"]["n"] == 2


def test_broken_files_are_skipped_with_their_names_or_refused(outcome: Results, run: Run) -> None:
    assert outcome.report["skipped"] == {"a/empty": "is empty (0 bytes)"}
    assert any("skipped 1 broken files: a/empty" in note for note in outcome.report["notes"])
    with pytest.raises(ValueError, match=r"(?s)a/empty.*data.on_error=skip"):
        evaluate(run, corpus(broken("a/empty")), Request(run.path))


def test_sounds_and_their_picture(outcome: Results, run: Run) -> None:
    import soundfile

    names = {p.name for p in (run.path / "audio").iterdir()}
    pairs = {
        f"{stem}-{kind}.wav"
        for stem in ("000-loud", "002-click", "003-late")
        for kind in ("reference", "resynthesised")
    }
    assert names == {*pairs, "spectrograms.png"}
    reference, rate = soundfile.read(run.path / "audio" / "000-loud-reference.wav")
    estimate, _ = soundfile.read(run.path / "audio" / "000-loud-resynthesised.wav")
    assert rate == RATE and reference.shape == estimate.shape
    assert float(np.abs(reference).max()) <= 1.0


def test_table_names_the_band_of_every_pesq(outcome: Results) -> None:
    text = table(outcome.report)
    lines = [line for line in text.splitlines() if "PESQ" in line]
    assert len(lines) == 2 and "wide" in lines[0] and "narrow" in lines[1]


def test_other_rates_are_resampled_for_pesq_and_said(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "run", "dkf", *SMALL, "dtype=float64", "data.rate=8000")
    made = evaluate(run, corpus(said("s/0", voice(1.0, 8000), 8000)), Request(tmp_path / "run"))
    assert made.report["notes"] == ["PESQ wide band: computed after resampling from 8000 to 16000 Hz"]
    assert made.report["metrics"]["pesq_wb"]["n"] == 1
    assert made.report["metrics"]["pesq_wb"]["stderr"] is None


def write_corpus(root: Path) -> Path:
    seconds = {"test/a/a.wav": 0.7, "test/b/b.wav": 0.9, "valid/c/c.wav": 0.8}
    return write_sounds(root, {name: voice(length) for name, length in seconds.items()})


def evaluated(run: Run, *arguments: object) -> int:
    return main([str(run.path), *map(str, arguments)])


def test_the_command_leaves_json_csv_and_a_table(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_corpus(tmp_path / "a [folder] = odd")
    copy = tmp_path / "copy" / "x.json"
    where = ["--corpus", "folder", "--root", root]
    assert evaluated(run, *where, "--jobs", 0, "--json", copy, "dtype=float64") == 0
    out, err = capsys.readouterr()
    assert "best.pt" in out and "PESQ narrow" in out and "best.pt" in err
    report: dict[str, Any] = json.loads((run.path / "resynthesis.json").read_text())
    assert report == json.loads(copy.read_text())
    assert report["num_sequences"] == 2 and report["root"] == str(root)
    with (run.path / "resynthesis.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["file"], row["speaker"]) for row in rows] == [("test/a/a.wav", "a"), ("test/b/b.wav", "b")]
    (run.path / "best.pt").unlink()
    assert evaluated(run, *where, "--jobs", 1, "--split", "valid", "--latents", "sample") == 0
    again = json.loads((run.path / "resynthesis.valid.gt.sample.json").read_text())
    assert json.loads((run.path / "resynthesis.json").read_text()) == report
    assert (again["checkpoint"], again["num_sequences"], again["latents"]) == ("last.pt", 1, "sample")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--corpus", "nowhere"], "nowhere"),
        (["--corpus", "folder", "--root", "/no/such/folder"], "/no/such/folder"),
        (["--checkpoint", "none.pt"], "none.pt"),
        (["dtype=float128"], "dtype"),
        (["optim.larn=1"], "optim.larn"),
        (["another/run"], "expected key=value"),
        (["--audio", "-1"], "--audio"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_get_one_message(
    run: Run, arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(run, *arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert err.splitlines()[-1].startswith("error: ") or "\nerror: " in f"\n{err}"
    assert not (run.path / "resynthesis.json").exists()


def test_a_folder_without_checkpoint_is_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("best.pt", "last.pt"):
        (run.path / name).unlink()
    assert evaluated(run) == 2
    assert "no checkpoint" in capsys.readouterr().err


def test_a_full_disk_is_one_message(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_corpus(tmp_path / "corpus")
    where = functools.partial(evaluated, run, "--corpus", "folder", "--root", root, "--jobs", 0)
    (run.path / "resynthesis.json").mkdir()
    assert where() == 2
    assert "Cannot write" in capsys.readouterr().err


def test_without_pesq_all_else_is_measured_and_the_report_says_so(
    run: Run, perfect: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)  # its import fails
    spoken = corpus(said("a/1.wav", voice(1.0)), said("b/2.wav", voice(1.0)))
    outcome = evaluate(run, spoken, Request(run.path), with_pesq=False)
    found = outcome.report["metrics"]
    assert found["pesq_wb"]["n"] == found["pesq_nb"]["n"] == 0 and found["si_sdr"]["n"] == found["stoi"]["n"] == 2
    assert any("--without-pesq" in note for note in outcome.report["notes"])
    assert outcome.report["pesq_unscored"]["count"] == 0 and not outcome.report["unscored"]
    assert "PESQ" in table(outcome.report)
    monkeypatch.setattr("evaluation.resynthesis.command.find_spec", lambda name: None)
    assert main([str(run.path)]) == 2
    assert "--without-pesq" in capsys.readouterr().err
