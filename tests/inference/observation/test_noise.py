"""Speech in noise: densities and updates against closed forms and NumPy, and the handler under every interpreter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.estimation.importance import trace_weights
from inference.handlers.free_running import free_running
from inference.observation.base import ObservedPower, clean_variances
from inference.observation.noise import Noise, NoiseParameters, initial_noise
from inference.posterior.gradient import vem
from inference.posterior.problem import InferenceSettings, Problem
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced

FRAMES, BINS, RANK = 7, 5, 3


def _case(draws: int = 1) -> tuple[Tensor, Tensor, Tensor, NoiseParameters]:
    """y (T, 2, F), v (R, T, 2, F), the mask of lengths 7 and 4, and parameters."""
    torch.set_default_dtype(torch.float64)
    mask = torch.arange(FRAMES)[:, None] < torch.tensor([FRAMES, 4])
    y = torch.rand(FRAMES, 2, BINS).exponential_() * mask[..., None]
    v = torch.rand(draws, FRAMES, 2, BINS) + 0.1
    g = torch.rand(2, 1, FRAMES) + 0.5
    return y, v, mask, NoiseParameters(torch.rand(2, BINS, RANK), torch.rand(2, RANK, FRAMES), g)


def test_the_density_is_that_of_a_sum_of_complex_gaussians() -> None:
    torch.set_default_dtype(torch.float64)
    speech, noise, y = torch.rand(6, 4) + 0.1, torch.rand(6, 4) + 0.1, torch.rand(6, 4)
    power = ObservedPower([speech], noise)
    expected = dist.Exponential(1.0 / (speech + noise)).log_prob(y).sum(-1)
    torch.testing.assert_close(power.log_prob(y), expected)
    present = torch.rand(6, 4) < 0.5
    torch.testing.assert_close(
        ObservedPower([speech], noise, present).log_prob(y),
        (dist.Exponential(1.0 / (speech + noise)).log_prob(y) * present).sum(-1),
    )


def test_the_wiener_gain_is_the_posterior_mean() -> None:
    """Of jointly Gaussian (sqrt(g) s, y), from their covariance: Cov(s, y) / Var(y)."""
    torch.set_default_dtype(torch.float64)
    v, n, g = torch.rand(9, 4) + 0.1, torch.rand(9, 4) + 0.1, 0.7
    complex_draws = [torch.randn(40_000, 9, 4, dtype=torch.complex128) * u.sqrt() for u in (g * v, n)]
    y = complex_draws[0] + complex_draws[1]
    slope = (complex_draws[0] * y.conj()).mean(0).real / y.abs().square().mean(0)
    assert float((ObservedPower([g * v], n).wiener() - slope).abs().max()) < 0.03  # 6 standard errors


def test_updates_are_those_of_a_numpy_itakura_saito_factorisation() -> None:
    y, v, mask, start = _case(draws=2)
    noise = Noise(start, "whg", floor=1e-3)
    noise.likelihood([v], y, mask, slice(None))
    for n, length in enumerate((FRAMES, 4)):
        w, h, g = (part[n].numpy() for part in start)
        expected = _numpy_update(
            y[:length, n].numpy().T, v[:, :length, n].numpy(), w, h[:, :length], g[0, :length], 1e-3
        )
        got = noise.parameters
        for ours, theirs in zip((got.w[n], got.h[n, :, :length], got.g[n, 0, :length]), expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12)


def _numpy_update(p: Any, v: Any, w: Any, h: Any, g: Any, floor: float) -> tuple[Any, Any, Any]:
    """One update in the paper's shapes: P (F, T), v (R, T, F), W (F, K), H (K, T), g (T,)."""
    v = v.transpose(0, 2, 1)

    def x() -> Any:
        return g * v + w @ h + floor

    w = w * np.sqrt(((p * (x() ** -2).sum(0)) @ h.T) / ((x() ** -1).sum(0) @ h.T))
    h = h * np.sqrt((w.T @ (p * (x() ** -2).sum(0))) / (w.T @ (x() ** -1).sum(0)))
    h, w = h * w.sum(0)[:, None], w / w.sum(0)
    g = g * np.sqrt((p * (v * x() ** -2).sum(0)).sum(0) / (v * x() ** -1).sum(0).sum(0))
    return w, h, g


@pytest.mark.parametrize("part", ["w", "h", "g"])
def test_no_update_lowers_the_likelihood(part: str) -> None:
    y, v, mask, start = _case()
    noise, before = Noise(start, part), -math.inf
    for _ in range(30):
        density = float((noise.likelihood([v[0]], y, mask, slice(None)).log_prob(y) * mask).sum())
        assert density >= before - 1e-12
        before = density
    none = Noise(start).likelihood([v[0]], y, mask, slice(None)).log_prob(y) * mask
    assert before > float(none.sum()) + 0.01


def test_one_w_for_a_batch_is_that_of_its_sequences_end_to_end() -> None:
    y, v, mask, start = _case()
    one = start._replace(w=start.w[:1].repeat(2, 1, 1))
    both = Noise(one, "w", shared=True)
    both.likelihood([v], y, mask, slice(None))
    h, g = torch.cat([one.h[0], one.h[1, :, :4]], -1), torch.cat([one.g[0], one.g[1, :, :4]], -1)
    joined = NoiseParameters(one.w[:1], h[None], g[None])
    end_to_end = Noise(joined, "w")
    y_one, v_one = torch.cat([y[:, 0], y[:4, 1]])[:, None], torch.cat([v[:, :, 0], v[:, :4, 1]], 1)[:, :, None]
    end_to_end.likelihood([v_one], y_one, None, slice(None))
    torch.testing.assert_close(both.parameters.w[0], end_to_end.parameters.w[0])
    torch.testing.assert_close(both.parameters.w[1], both.parameters.w[0])


def test_what_is_drawn_for_a_sequence_does_not_depend_on_the_batch() -> None:
    like = torch.zeros((), dtype=torch.float64)
    many, alone = initial_noise(9, 3, BINS, RANK, like), initial_noise(6, 1, BINS, RANK, like)
    torch.testing.assert_close(many.w[2], alone.w[0])
    torch.testing.assert_close(many.h[2, :, :6], alone.h[0])


@pytest.mark.parametrize("model", ["vae", "dkf", "srnn", "rvae"])
def test_interpreters_agree_on_the_observed_program(model: str) -> None:
    settings = resolve(model, overrides=["model.bins=5", "model.z_dim=2", "dtype=float64"])
    prior, guide = create(settings)
    y, _, mask, parameters = _case()
    lengths = torch.tensor([FRAMES, 4])
    drawn = traced(guide, y, lengths)
    values = {f"z_{t}": drawn.nodes["z"]["value"][t : t + 1] for t in range(FRAMES)}
    found = []
    for how, program in (("auto", poutine.replay(prior, drawn)), ("stepwise", poutine.condition(prior, values))):
        with Noise(parameters), free_running():
            run = traced(program, y, lengths, how)
        run.compute_log_prob(lambda name, _: name.startswith("x"))
        densities = [site["log_prob"].sum() for site in run.nodes.values() if "log_prob" in site]
        assert len(densities) == (1 if how == "auto" else FRAMES)
        found.append(torch.stack(densities).sum())
    torch.testing.assert_close(found[0], found[1])
    with free_running():
        clean = traced(poutine.replay(prior, drawn), y, lengths)
    v, real = clean_variances(clean.nodes["x"]["fn"])
    by_hand = Noise(parameters).likelihood(v, y, real, slice(None)).log_prob(y) * mask
    torch.testing.assert_close(found[0], by_hand.sum())


def test_without_noise_the_input_comes_back() -> None:
    prior, guide = create(resolve("vae", overrides=["model.bins=5", "model.z_dim=2", "dtype=float64"]))
    y, _, _, parameters = _case()
    silent = parameters._replace(w=1e-30 * parameters.w)
    lengths = torch.tensor([FRAMES, 4])
    found = vem(Problem(prior, guide, y, lengths, Noise(silent), free_running()), InferenceSettings(steps=3))
    torch.testing.assert_close(found.gain, torch.ones_like(found.gain))


def test_a_prior_of_anything_but_spectra_is_refused() -> None:
    overrides = ["model.bins=5", "model.likelihood=gaussian", "model.input=raw", "dtype=float64"]
    prior, guide = create(resolve("vae", overrides=overrides))
    y, _, _, parameters = _case()
    problem = Problem(prior, guide, y, torch.tensor([FRAMES, 4]), Noise(parameters), free_running())
    with pytest.raises(UserError, match="model.likelihood=power_spectrum"):
        vem(problem, InferenceSettings(steps=1))


def test_frames_by_themselves_are_updated_as_within_all() -> None:
    """A run frame by frame updates H and g of that frame alone."""
    y, v, _, start = _case()
    whole, single = Noise(start, "hg"), Noise(start, "hg")
    whole.likelihood([v], y, None, slice(None))
    for t in range(FRAMES):
        single.likelihood([v[:, t : t + 1]], y[t : t + 1], None, slice(t, t + 1))
    torch.testing.assert_close(single.parameters.h, whole.parameters.h)
    torch.testing.assert_close(single.parameters.g, whole.parameters.g)


def test_weights_of_traces_are_those_of_the_observed_program() -> None:
    """log w = log p(y | z) + log p(z) - log q(z | y), each by hand."""
    prior, guide = create(resolve("vae", overrides=["model.bins=5", "model.z_dim=2", "dtype=float64"]))
    y, _, mask, parameters = _case()
    lengths = torch.tensor([FRAMES, 4])
    drawn = traced(guide, y, lengths)
    with Noise(parameters):
        scored = traced(poutine.replay(prior, drawn), y, lengths)
    for one in (drawn, scored):
        one.compute_log_prob()
    z = drawn.nodes["z"]["value"]
    p = dist.Normal(torch.zeros(2), 1.0).log_prob(z).sum(-1)
    q = drawn.nodes["z"]["fn"].base_dist.log_prob(z)
    decoder: Any = prior.decoder
    v = decoder(z).mean
    seen = dist.Exponential(1.0 / (v * parameters.gains()[0] + parameters.variance())).log_prob(y).sum(-1)
    expected = ((seen + p - q) * mask).sum(0)
    torch.testing.assert_close(trace_weights(scored, drawn), expected)
