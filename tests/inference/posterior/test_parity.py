"""Variational EM is that of the public code: its figures of twenty iterations, in double precision, without noise.

Rounding grows from iteration to iteration, and most where a model is fed its own output through an exponential: of SRNN
a change of the input by 1e-15 moves the figures of the fourth iteration by a thousandth, in any implementation. So
where rounding grows, every utterance is enhanced a second time, its powers changed by that much, and figures are
compared to 1e-6 as long as the two agree to 1e-8. How many iterations that is at least is part of the test.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from corpora.frontends.stft import Stft
from evaluation.resynthesis.metrics import si_sdr
from inference.handlers.free_running import free_running
from inference.observation.noise import Noise, NoiseParameters
from inference.posterior.gradient import vem
from inference.posterior.problem import InferenceSettings, Posterior, Problem
from inference.published import convert
from inference.runs import load_run

STEADY = {"vae": (20, 20, 20), "dkf": (20, 20, 20), "rvae-causal": (20, 8, 20), "srnn": (0, 2, 2)}
"""Iterations, by utterance, in which rounding stays below 1e-8."""
RELATIVE = 1e-6


@pytest.mark.parametrize("model", STEADY)
def test_variational_em_of_the_public_code(shared: Path, tmp_path: Path, model: str) -> None:
    tag, folder = f"dvae-speech_{model}", shared / "corpora" / "noisy-speech-mini"
    weights = shared / "published-weights"
    convert(weights / f"{tag}.npz", weights / f"{tag}.ini", tmp_path / "run")
    run = load_run(tmp_path / "run", overrides=["dtype=float64"])
    expected = json.loads((folder / "enhancement-expected.json").read_text())
    results = [result for result in expected["results"] if result["tag"] == tag]
    frontend = Stft(16000, 512, 256, None)

    def read(side: str, result: dict[str, Any]) -> np.ndarray[Any, Any]:
        samples: np.ndarray[Any, Any] = soundfile.read(folder / f"mixtures/{side}/{result['utterance']}.flac")[0]
        return samples

    noisy, clean = [read("noisy", r) for r in results], [read("clean", r) for r in results]
    spectra = [frontend.spectrum(y / r["scale"]) for y, r in zip(noisy, results, strict=True)]
    powers = [torch.from_numpy(np.abs(spectrum) ** 2) for spectrum in spectra]
    lengths = torch.tensor([len(power) for power in powers])
    assert lengths.tolist() == [r["frames"] for r in results]
    if STEADY[model] != (20, 20, 20):
        powers, lengths = [*powers, *(_nudged(power) for power in powers)], lengths.repeat(2)
    y = torch.nn.utils.rnn.pad_sequence(powers)
    steps = expected["iterations"] if max(STEADY[model]) > 3 else 4
    observation = Noise(_start(lengths, y), "whg")
    settings = InferenceSettings(steps=steps, lr=expected["lr"], latents="mean")
    found = vem(Problem(run.model, run.guide, y, lengths, observation, free_running()), settings)
    for n, result in enumerate(results):
        steady = _steady(found, n, n + len(results)) if len(powers) > len(results) else steps
        assert steady >= STEADY[model][n], result["utterance"]
        _compare_iterations(found, n, y.shape[-1] * result["frames"], result["iterations"][:steady])
        if steady == expected["iterations"]:
            _compare_end(found, observation.parameters, n, result)
            gain = found.gain[: result["frames"], n].numpy()
            estimate = frontend.waveform(gain * spectra[n], len(noisy[n])) * result["scale"]
            assert len(estimate) == len(clean[n])
            assert si_sdr(clean[n], estimate) == pytest.approx(result["si_sdr"], abs=1e-3)
        assert si_sdr(clean[n], noisy[n]) == pytest.approx(result["si_sdr_noisy"], abs=1e-3)


def _nudged(power: Tensor) -> Tensor:
    return power * (1.0 + 1e-15 * torch.randn(power.shape, dtype=torch.float64))


def _start(lengths: Tensor, y: Tensor) -> NoiseParameters:
    """W, then H from RandomState(0), each utterance on its own; g = 1."""
    frames, sequences, bins = y.shape
    w, h = torch.zeros(sequences, bins, 8).double(), torch.ones(sequences, 8, frames).double()
    for n, length in enumerate(lengths.tolist()):
        generator = np.random.RandomState(0)
        w[n] = torch.from_numpy(generator.rand(bins, 8))
        h[n, :, :length] = torch.from_numpy(generator.rand(8, length))
    return NoiseParameters(w, h, torch.ones(sequences, 1, frames).double())


def _steady(found: Posterior, n: int, nudged: int) -> int:
    """How many iterations of an utterance a change of rounding's size moves by less than 1e-8."""
    for i, terms in enumerate(found.trajectory[:-1]):
        for v in (terms.reconstruction, terms.kl["z"], found.trajectory[i + 1].reconstruction):
            if float((v[nudged] / v[n] - 1.0).abs()) > 1e-8:
                return i
    return len(found.trajectory) - 1


def _compare_iterations(found: Posterior, n: int, size: int, iterations: list[dict[str, float]]) -> None:
    for i, iteration in enumerate(iterations):
        before, after = found.trajectory[i], found.trajectory[i + 1]
        assert -float(before.reconstruction[n]) == pytest.approx(iteration["reconstruction_before"], rel=RELATIVE), i
        assert float(before.kl["z"][n]) == pytest.approx(iteration["kl_exact_before"], rel=RELATIVE), i
        assert -float(after.reconstruction[n]) / size == pytest.approx(iteration["loss_after"], rel=RELATIVE), i


def _compare_end(found: Posterior, parameters: NoiseParameters, n: int, result: dict[str, Any]) -> None:
    frames = result["frames"]
    w, h, g = parameters.w[n], parameters.h[n, :, :frames], parameters.g[n, 0, :frames]
    for name, whole in (("W", w), ("H", h), ("g", g)):
        assert float(whole.sum()) == pytest.approx(result[f"{name}_sum"], rel=RELATIVE), name
    gain = found.gain[:frames, n]
    probes = {"W": w[::64, 0], "H": h[0, ::50], "g": g[::50], "gain": gain[frames // 2, ::64]}
    for name, probe in probes.items():
        assert probe.tolist() == pytest.approx(result[f"{name}_probe"], rel=RELATIVE), name
