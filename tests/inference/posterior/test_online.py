"""Enhancement along with the recording: causal, and exact where particles have a closed form to be held to."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from inference.handlers.free_running import free_running
from inference.observation.noise import Noise, NoiseParameters
from inference.observation.past import sampled_past
from inference.posterior.online import FrameByFrame, smc
from inference.posterior.problem import InferenceSettings, Problem, causal
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced

BINS, FRAMES = 4, 6


def _problem(guide: str, learns: str = "", model: str = "dkf", sequences: int = 2) -> Problem:
    torch.set_default_dtype(torch.float64)
    settings = resolve(model, guide, overrides=[f"model.bins={BINS}", "model.z_dim=1", "dtype=float64"])
    prior, proposal = create(settings)
    y = torch.rand(FRAMES, 1, BINS, generator=torch.Generator().manual_seed(3)).double().repeat(1, sequences, 1) * 3.0
    w = torch.full((sequences, BINS, 1), 1.0 / BINS)
    observation = Noise(NoiseParameters(w, torch.ones(sequences, 1, FRAMES), torch.ones(sequences, 1, FRAMES)), learns)
    sees = causal(proposal.parents(settings.guide, prior.latents))
    lengths = torch.full((sequences,), FRAMES)
    return Problem(prior, proposal, y, lengths, observation, free_running(), causal=sees)


def test_the_filter_is_that_of_a_grid() -> None:
    """With W, H, g fixed: the gain of each frame given y up to it, by forward recursion over a grid of z_t."""
    problem = _problem("past-markov", sequences=8)
    problem.observation.parameters.h[:] = 3.0  # type: ignore[attr-defined]  # it is a Noise
    following = problem.observation
    model: Any = problem.model
    axis = torch.linspace(-7.0, 7.0, 601)[:, None]
    with torch.no_grad():
        moves = torch.stack([model.prior(z[None]).log_prob(axis) for z in axis])
        forward = model.prior(torch.zeros(1, 1)).log_prob(axis)
        v = model.decoder(axis).mean
    # H_t starts from the first frame's energy and is not learned: the filter's own W H
    noise = problem.y[0, 0].sum() / BINS
    settings = InferenceSettings(particles=2000)
    gains = smc(problem, settings).gain.mean(1)
    step = (axis[1] - axis[0]).log()
    for t in range(FRAMES):
        log_p = forward - ((v + noise).log() + problem.y[t, 0] / (v + noise)).sum(-1)
        weight = log_p.softmax(0)[:, None]
        torch.testing.assert_close(gains[t], (weight * v / (v + noise)).sum(0), atol=0.01, rtol=0.0)
        forward = (log_p[:, None] + moves).logsumexp(0) + step
    assert following is problem.observation


def test_an_estimate_does_not_change_with_what_comes_later() -> None:
    """And it does with what came before: no frame has a part in the estimates ahead of it."""
    problem = _problem("past-markov", "hg")
    before = smc(problem, InferenceSettings()).gain
    y = problem.y.clone()
    y[4] *= 5.0
    fresh = _problem("past-markov", "hg")
    changed = smc(problem._replace(y=y, observation=fresh.observation), InferenceSettings()).gain
    torch.testing.assert_close(changed[:4], before[:4], rtol=0.0, atol=0.0)
    assert float((changed[4:] - before[4:]).abs().max()) > 1e-3


@pytest.mark.parametrize("guide", ["own", "future-markov", "all-memory"])
def test_a_guide_that_sees_the_future_is_refused(guide: str) -> None:
    with pytest.raises(UserError, match="past-markov"):
        smc(_problem(guide), InferenceSettings())


def test_h_and_g_go_on_from_the_frame_before() -> None:
    """Many updates in a frame end at the maximum of its likelihood, as a search over a grid finds it."""
    torch.set_default_dtype(torch.float64)
    w = torch.tensor([[[0.7], [0.2], [0.1]]])
    y, v = torch.tensor([[[3.0, 2.0, 0.5]]]), torch.tensor([[[0.2, 1.5, 1.0]]])
    noise = FrameByFrame(NoiseParameters(w, torch.ones(1, 1, 2), torch.ones(1, 1, 2)), "hg", 0.0, updates=400)
    noise.likelihood([v], y, None, slice(0, 1))
    noise.updates = 1
    noise.learns = ""
    noise.likelihood([v], y, None, slice(1, 2))
    assert noise.parameters.h[0, 0, 1] == noise.parameters.h[0, 0, 0] != 1.0
    h, g = torch.meshgrid(torch.linspace(0.01, 8, 800), torch.linspace(0.01, 4, 400), indexing="ij")
    x = h[..., None] * w[0, :, 0] + g[..., None] * v[0, 0]
    density = -(x.log() + y[0, 0] / x).sum(-1)
    best = density.flatten().argmax()
    assert float(noise.parameters.h[0, 0, 0]) == pytest.approx(float(h.flatten()[best]), abs=0.03)
    assert float(noise.parameters.g[0, 0, 0]) == pytest.approx(float(g.flatten()[best]), abs=0.03)


def test_a_past_that_is_drawn_has_the_moments_of_the_posterior() -> None:
    r"""E|s|^2 = (|gain|^2 |y|^2 + gain n) / g, and without noise it is y itself: teacher forcing."""
    problem = _problem("own", model="srnn", sequences=1)
    observation = problem.observation
    assert isinstance(observation, Noise)
    observation.parameters.g[:] = 0.6
    seen: list[Tensor] = []

    class _Axis:
        start = 3
        sites: Any = type("S", (), {"data": {"x": problem.y}})

        def expected(self, name: str) -> Tensor:
            return torch.full((40_000, 1, 1, BINS), 0.8)

    handler = sampled_past(observation)
    for floor in (0.0, -1.0):
        if floor < 0.0:
            observation.parameters.h[:] = 0.0
        msg: dict[str, Any] = {"args": ("x", None, _Axis()), "value": None, "done": False}
        handler._pyro_prev(msg)
        seen.append(msg["value"])
    y, n = problem.y[2], 1.0 / BINS
    gain = 0.48 / (0.48 + n)
    torch.testing.assert_close(seen[0].mean(0)[0], (gain**2 * y + gain * n) / 0.6, rtol=0.03, atol=0.0)
    torch.testing.assert_close(seen[1][0, 0], y / 0.6)


def test_without_noise_a_drawn_past_is_teacher_forcing() -> None:
    problem = _problem("own", model="srnn")
    observation = problem.observation
    assert isinstance(observation, Noise)
    observation.parameters.h[:] = 0.0
    drawn = traced(problem.guide, problem.y, problem.lengths)
    replayed = poutine.replay(problem.model, drawn)
    with observation, sampled_past(observation):
        ours = traced(replayed, problem.y, problem.lengths)
    taught = traced(replayed, problem.y, problem.lengths)
    torch.testing.assert_close(torch.as_tensor(ours.log_prob_sum()), torch.as_tensor(taught.log_prob_sum()))


def test_a_model_that_looks_back_is_followed_with_either_past() -> None:
    """SRNN's step takes drawn speech of each particle's own line; the noise it is drawn with is the filter's."""
    for past in (free_running, sampled_past):
        problem = _problem("past-markov", "hg", model="srnn")
        observation = problem.observation
        assert isinstance(observation, Noise)
        problem = problem._replace(past=free_running() if past is free_running else sampled_past(observation))
        found = smc(problem, InferenceSettings(particles=30))
        assert bool(found.gain.isfinite().all()) and bool((found.gain > 0.0).all())
        assert float(found.rates["ess"].min()) > 1.0
