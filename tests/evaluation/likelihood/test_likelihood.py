"""The command: what it asks of the estimators, what it writes, and when it warns."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import kl_divergence

from corpora.loading.sequences import Prepared
from dvae_pyro.errors import UserError
from evaluation.likelihood import estimation
from evaluation.likelihood.__main__ import main
from evaluation.likelihood.arguments import join_estimators
from evaluation.likelihood.by_length import estimate_by_length, length_picture
from evaluation.likelihood.estimation import Plan, estimate_all, pareto_k
from evaluation.likelihood.reliability import warnings_of
from evaluation.likelihood.report import evaluate, metric, table
from evaluation.reporting.command_line import Request
from inference.estimation.importance import log_mean_exp, log_weights, traces
from inference.handlers.free_running import free_running
from inference.handlers.given_noise import given_noise
from inference.handlers.noise import SequenceNoise
from inference.runs import Run, create, load_run, write_run
from inference.settings.resolve import resolve
from tests.support.runs import saved_run

BINS = 17
SMALL = [f"model.bins={BINS}", "model.z_dim=2", "dtype=float64", "data.sequence_frames=30", "data.hop=16"]
LENGTHS = (12, 3, 20, 7)
ALL = ("elbo", "iwae", "smc")


def made(folder: Path, model: str = "storn", *settings: str) -> Run:
    torch.manual_seed(1)
    return saved_run(folder, model, *SMALL, *settings, fit=torch.rand(20, BINS, dtype=torch.float64))


def spectra(lengths: tuple[int, ...] = LENGTHS) -> list[Prepared]:
    generator = torch.Generator().manual_seed(5)
    return [Prepared(torch.rand(t, BINS, generator=generator), f"s/{i}", "s", 0) for i, t in enumerate(lengths)]


@pytest.mark.parametrize("mode", ["gt", "gen"])
def test_each_sequence_is_estimated_as_it_is_alone_with_its_own_seed(tmp_path: Path, mode: str) -> None:
    run, sequences = made(tmp_path / "run"), spectra()
    plan = Plan(ALL, particles=8, repeats=2, mode=mode, seed=4)
    found = estimate_all(run, sequences, plan)
    for n, item in enumerate(sequences):
        x, lengths = item.x[:, None].double(), torch.tensor([len(item.x)])
        for repeat in range(2):
            with torch.no_grad(), free_running(() if mode == "gt" else ("x",)):
                weights = log_weights(run.model, run.guide, x, lengths, 8, seeds=[f"4/{repeat}/{item.file}/0"])
            assert found["iwae"][repeat, n] == pytest.approx(float(log_mean_exp(weights)), rel=1e-11)
            assert found["elbo"][repeat, n] == pytest.approx(float(weights.mean()), rel=1e-11)
    assert not np.allclose(found["smc"][0], found["smc"][1])
    for chunk in (1, 3, 1000):
        other = estimate_all(run, sequences, replace(plan, chunk=chunk))
        for name in ("elbo", "elbo_analytic", "iwae", "smc", "smc_ess"):
            np.testing.assert_allclose(other[name], found[name], rtol=1e-10)


def test_per_frame_figures_in_both_normalisations_with_their_errors() -> None:
    """By hand: two repeats of sequences of 2, 4 and 4 frames."""
    values = np.array([[3.0, 9.0, 6.0], [5.0, 7.0, 10.0]])
    found = metric(values, np.array([2.0, 4.0, 4.0]))
    assert found["mean"] == pytest.approx(20 / 3)  # of 4, 8 and 8
    assert found["per_frame"]["mean"] == pytest.approx(20 / 10)
    assert found["per_frame"]["stderr"] == 0.0  # all are at 2 nats per frame
    assert found["per_frame_by_sequence"] == {"mean": 2.0, "stderr": 0.0, "n": 3}
    assert found["variance_over_repeats"] == {"mean": pytest.approx(4.0), "max": pytest.approx(8.0)}
    assert found["monte_carlo_stderr"] == pytest.approx(math.sqrt((2 + 2 + 8) / 2) / 3)
    ratios = metric(np.array([[1.0, 6.0]]), np.array([1.0, 3.0]))
    assert ratios["per_frame"]["mean"] == 7 / 4 and ratios["per_frame_by_sequence"]["mean"] == 3 / 2
    residual = 6.0 - 7 / 4 * 3  # and its opposite
    assert ratios["per_frame"]["stderr"] == pytest.approx(math.sqrt(2 * residual**2 / 1 / 2) / 2)
    assert "monte_carlo_stderr" not in ratios
    assert metric(np.array([[math.nan, 4.0]]), np.array([1.0, 2.0]))["per_frame"]["mean"] == 2.0


def test_pareto_k_is_the_shape_of_the_weights_tail() -> None:
    """Weights u^-k of uniform u have a Pareto tail of shape k."""
    u = np.random.default_rng(0).uniform(size=(5000, 1))
    shapes = np.array([0.2, 0.5, 0.9, 1.3])
    np.testing.assert_allclose(pareto_k(-shapes * np.log(u)), shapes, atol=0.2)
    assert np.isnan(pareto_k(np.zeros((24, 2)))).all()
    assert np.isnan(pareto_k(np.full((40, 1), -math.inf))).all()


def test_warnings_are_given_where_they_are_due_and_nowhere_else() -> None:
    fine = {
        "iwae": np.array([[1.0, 2.0], [1.1, 2.1]]),
        "smc": np.array([[1.0, 2.0], [1.1, 2.1]]),
        "pareto_k": np.full((2, 2), 0.6),
        "iwae_ess": np.full((2, 2), 30.0),
        "smc_ess": np.full((2, 2), 20.0),
    }
    plan = Plan(ALL, particles=100, repeats=2)

    def said(**changed: np.ndarray) -> dict[str, str]:
        return {name: " ".join(lines) for name, lines in warnings_of({**fine, **changed}, plan).items()}

    assert said() == {"iwae": "", "smc": ""}
    assert "k-hat is above 0.7 in 1 of 2 sequences" in said(pareto_k=np.array([[0.6, 0.8]] * 2))["iwae"]
    assert "in 1 of 2 sequences" in said(pareto_k=np.array([[0.6, math.inf]] * 2))["iwae"]
    assert "below 5 of 100" in said(iwae_ess=np.full((2, 2), 3.0))["iwae"]
    assert "below 5 (least 2.0)" in said(smc_ess=np.array([[9.0, 2.0]] * 2))["smc"]
    spread = said(smc=np.array([[0.0, 2.0], [4.0, 2.0]]))["smc"]
    assert "above 1 in 1 of 2 sequences (mean 4.00)" in spread and "2.00 nats" in spread
    assert "by far" in said(smc=np.array([[0.0, 2.0], [40.0, 2.0]]))["smc"]
    few = warnings_of(fine, replace(plan, particles=10))["iwae"]
    assert "at least 25 particles" in few[0]


@pytest.fixture
def on_made_up_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command reads `spectra` in place of a corpus."""
    monkeypatch.setattr("corpora.loading.sequences.load_sequences", lambda *args, **more: spectra())


@pytest.mark.usefixtures("on_made_up_data")
def test_commands_put_their_estimators_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "run")
    file = tmp_path / "copy.json"
    assert main([str(run.path), "--estimator", "elbo", "iwae", "--particles", "30", "--json", str(file)]) == 0
    first = json.loads(file.read_text())
    assert list(first["metrics"]) == ["elbo", "elbo_analytic", "iwae"]
    assert main(["--estimator", "smc", str(run.path), "--particles", "9", "--repeats", "2"]) == 0
    shown = capsys.readouterr().out
    report = json.loads((run.path / "likelihood.json").read_text())
    assert list(report["metrics"]) == ["elbo", "elbo_analytic", "iwae", "smc"]
    assert report["metrics"]["iwae"] == first["metrics"]["iwae"] and report["pareto_k"] == first["pareto_k"]
    assert report["pareto_k"]["n"] + report["pareto_k"]["infinite"] == 4
    assert (report["num_sequences"], report["num_frames"], report["latents"]) == (4, 42, "sample")
    assert report["sequences"] == "whole utterances"
    assert report["metrics"]["smc"]["scheme"] == "systematic" and report["metrics"]["smc"]["particles"] == 9
    assert "particle filter" in shown and "importance-weighted" in shown

    with (run.path / "likelihood.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["file"] for row in rows] == [f"s/{i}" for i in range(4)]
    for name in ("elbo", "iwae", "smc"):
        mean = sum(float(row[name]) for row in rows) / 4
        assert mean == pytest.approx(report["metrics"][name]["mean"])
    assert rows[0]["iwae_sd"] == "nan" and float(rows[0]["smc_sd"]) > 0
    pooled = sum(float(row["smc"]) for row in rows) / 42
    assert report["metrics"]["smc"]["per_frame"]["mean"] == pytest.approx(pooled)

    assert main([str(run.path), "--estimator", "elbo", "--mode", "gen"]) == 0  # storn feeds x back: other figures
    other = json.loads((run.path / "likelihood.test.gen.json").read_text())
    assert list(other["metrics"]) == ["elbo", "elbo_analytic"] and (run.path / "likelihood.test.gen.csv").is_file()
    assert json.loads((run.path / "likelihood.json").read_text()) == report


@pytest.mark.usefixtures("on_made_up_data")
def test_estimates_are_not_lost_to_another_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "run")
    command = [str(run.path), "--estimator", "iwae", "--particles", "3"]
    assert main(command) == main(command) == 0  # the same command again
    first = (run.path / "likelihood.json").read_text()
    fewer = [*command[:-1], "2"]
    assert main(fewer) == 2
    assert "--particles" in capsys.readouterr().err and (run.path / "likelihood.json").read_text() == first
    assert main([*command, "dtype=float64"]) == 2
    assert "settings differ" in capsys.readouterr().err and (run.path / "likelihood.json").read_text() == first
    assert main([*fewer, "--force"]) == 0
    assert json.loads((run.path / "likelihood.json").read_text())["metrics"]["iwae"]["particles"] == 2


@pytest.mark.usefixtures("on_made_up_data")
def test_one_estimate_of_one_particle_is_the_bound(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "dsae")
    assert main([str(run.path), "--particles", "1"]) == 0
    metrics = json.loads((run.path / "likelihood.json").read_text())["metrics"]
    assert metrics["iwae"]["mean"] == pytest.approx(metrics["elbo"]["mean"], rel=1e-12)
    assert metrics["smc"]["mean"] == pytest.approx(metrics["elbo"]["mean"], rel=1e-12)


@pytest.mark.usefixtures("on_made_up_data")
def test_a_model_without_a_step_is_refused_the_filter_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path / "run", "rvae", "model.causal=false")
    assert main([str(run.path), "--estimator", "smc"]) == 2
    assert "has no step" in capsys.readouterr().err
    assert main([str(run.path), "--estimator", "iwae", "--particles", "3"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimator", "iwea"], "Did you mean 'iwae'"),
        (["--particles", "0"], "--particles 0"),
        (["--chunk", "0"], "--chunk 0"),
        (["--threshold", "2"], "--threshold 2.0"),
        (["--scheme", "stratify"], "Did you mean 'stratified'"),
    ],
)
def test_mistakes_give_one_message(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-run", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_estimators_may_be_followed_by_anything() -> None:
    words = ["RUN", "--estimator", "elbo", "iwae", "seed=3", "--particles", "2", "smc"]
    assert join_estimators(words) == ["RUN", "--estimator", "elbo,iwae", "seed=3", "--particles", "2", "smc"]


def test_over_time_cuts_the_longest_sequences(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "vae")
    sequences = spectra((24, 21, *[30] * 7, 8))
    plan = Plan(("iwae", "smc"), particles=4)
    found = estimate_by_length(run, sequences, plan)
    assert found.frames == [5, 10, 24]  # the shortest of the eight longest
    assert found.estimates["iwae"].shape == (3, 10, 8)
    longest = sorted(sequences, key=lambda item: -len(item.x))[:8]
    cut = estimate_all(run, [item._replace(x=item.x[:10]) for item in longest], replace(plan, repeats=10))
    np.testing.assert_allclose(found.estimates["smc"][1], cut["smc"], rtol=1e-10)
    level, spread = length_picture(found, plan).axes
    lines = {line.get_label(): np.asarray(line.get_ydata(), dtype=float) for line in spread.lines}
    np.testing.assert_allclose(
        lines["importance-weighted"], np.sqrt(found.estimates["iwae"].var(1, ddof=1).mean(1)), rtol=1e-12
    )
    assert level.get_title(loc="left").startswith("log-likelihood estimate above the ELBO")
    with pytest.raises(UserError, match="--picture.*10"):
        estimate_by_length(run, spectra((9, 4)), plan)


def test_kl_of_each_layer_and_units_of_waveforms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A waveform's nats per 8,000 samples are of standardised samples; its bits do not depend on the units of sound."""
    small = ["model.widths=[3,4]", "model.strides=[1,2]", "model.z_dims=[1,2]", "dtype=float64", "data.frame_width=5"]
    settings = resolve("ms_stcn", overrides=[*small, "data.sequence_frames=8"])
    torch.manual_seed(1)
    model, guide = create(settings)
    samples = [0.01 * torch.randn(16, 5, dtype=torch.float64) + 0.02 for _ in range(3)]
    model.fit_input(samples)
    write_run(tmp_path / "run", settings, model, guide)
    run = load_run(tmp_path / "run")
    items = [Prepared(x, f"s/{i}", "s", 0) for i, x in enumerate(samples)]
    plan = Plan(("elbo",), particles=3)
    report = evaluate(run, Request(tmp_path / "run"), plan, items).report
    bound, kl = report["metrics"]["elbo_analytic"], report["kl"]
    assert list(kl) == ["layer1", "layer2"] and all(found["mean"] > 0 for found in kl.values())
    assert bound["per_8000_samples"]["mean"] == pytest.approx(bound["mean"] / (16 * 5) * 8000)
    assert kl["layer1"]["per_8000_samples"]["stderr"] == pytest.approx(kl["layer1"]["stderr"] * 100)
    deviation = float(torch.cat(samples).std(correction=0))
    nats = bound["mean"] / (16 * 5) - math.log(deviation * 2**15)
    assert bound["bits_per_sample"]["mean"] == pytest.approx(-nats / math.log(2))
    shown = table(report)
    assert "bits per sample" in shown and "layer2" in shown and "KL, nats" in shown


def test_kls_are_what_the_bound_lost(tmp_path: Path) -> None:
    run, sequences = made(tmp_path / "run", "dsae"), spectra()
    found = estimate_all(run, sequences, Plan(("elbo",), particles=2, seed=3))
    x, lengths = sequences[0].x[:, None].double(), torch.tensor([len(sequences[0].x)])
    with torch.no_grad(), given_noise(SequenceNoise(lengths, ["3/0/s/0/0"])):
        pair: Any = traces(run.model, run.guide, x, lengths, 2)
    divergence = {
        name: kl_divergence(pair[1].nodes[name]["fn"].base_dist, pair[0].nodes[name]["fn"].base_dist)
        for name in ("v", "z")
    }
    for name, each in divergence.items():
        assert found[f"kl_{name}"][0, 0] == pytest.approx(float(each.reshape(2, -1).sum(1).mean()))


@pytest.mark.parametrize(("free", "times"), [(2**29, 1), (5 * 2**30 + 1, 5), (2**40, 64)])
def test_as_much_goes_through_a_gpu_at_once_as_its_free_memory_holds(
    free: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    assert estimation._size_factor("cuda:1") == times and estimation._size_factor("cpu") == 1
