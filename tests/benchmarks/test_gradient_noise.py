"""The benchmark of gradients: its ratio against a known one, its command line."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.gradient_noise import main, moments, signal_to_noise


class Known(nn.Module):
    """A loss whose gradient is N(mean, noise^2 I): the ratio is the norm of the mean over noise sqrt(dimension)."""

    name, estimator = "known", SimpleNamespace(num_particles=1)

    def __init__(self, mean: Tensor, noise: float = 1.0) -> None:
        super().__init__()
        self.noise = noise
        self.mean = mean
        self.guide = nn.ParameterList([nn.Parameter(torch.zeros_like(mean))])

    def forward(self, x: Tensor, lengths: Tensor) -> Any:
        return SimpleNamespace(loss=(self.guide[0] * (self.mean + self.noise * torch.randn_like(self.mean))).sum())


@pytest.mark.parametrize("size", [0.0, 0.05, 2.0])
def test_the_ratio_of_a_known_gradient(size: float) -> None:
    """Five standard errors; without taking away what noise adds a mean of 0 would give 1 / sqrt(draws)."""
    known: Any = Known(torch.full((400,), size, dtype=torch.float64))
    draws = moments(known, (torch.zeros(1), torch.zeros(1)), 500)
    found, error = signal_to_noise(draws, draws)
    assert found == pytest.approx(size, abs=5 * error + 1e-3) and error < 0.02 + 0.02 * size
    assert size > 0 or found < 0.5 / 500**0.5


def test_the_signal_may_be_measured_by_quieter_draws_of_the_same_mean() -> None:
    quiet: Any = Known(torch.full((400,), 3.0, dtype=torch.float64), 0.1)
    loud: Any = Known(torch.full((400,), 3.0, dtype=torch.float64), 30.0)
    drawn = [moments(known, (torch.zeros(1), torch.zeros(1)), 100) for known in (quiet, loud)]
    assert signal_to_noise(*drawn)[0] == pytest.approx(0.1, rel=0.02)


def test_figures_are_written_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--repeats", "20", "--frames", "2", "--sequences", "1", "--steps", "1", "--particles", "1,3"]
    small = ["model.z_x=[4]", "guide.g_dim=4", "guide.x_g=[4]"]
    out = ["--json", str(tmp_path / "n.json"), "--picture", str(tmp_path / "n.png")]
    assert main([*sizes, *out, *small]) == 0
    rows = json.loads((tmp_path / "n.json").read_text())
    assert [(row["estimator"], row["particles"]) for row in rows] == [
        ("iwae", 1),
        ("dreg", 1),
        ("iwae", 3),
        ("dreg", 3),
    ]
    assert (tmp_path / "n.png").stat().st_size > 1000
    assert capsys.readouterr().out.startswith("| K | plain | doubly reparametrised |")
    assert main(["--repeats", "5"]) == 2
    assert "--repeats 5" in capsys.readouterr().err
