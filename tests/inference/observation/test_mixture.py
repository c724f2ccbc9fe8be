"""Several sources in one program: names apart, one site for their sum, gains of the closed form."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch

from dvae_pyro.errors import UserError
from inference.handlers.free_running import free_running
from inference.observation.mixture import Mixture, MixtureGuide
from inference.observation.noise import Noise, NoiseParameters
from inference.posterior.chains import mala
from inference.posterior.gradient import point, refine, vem
from inference.posterior.problem import InferenceSettings, Problem
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced

BINS, FRAMES = 5, 6
LENGTHS = torch.tensor([FRAMES, 4])


def _sources(*models: str) -> tuple[list[Any], list[Any]]:
    torch.set_default_dtype(torch.float64)
    made = []
    for seed, model in enumerate(models):
        overrides = [f"model.bins={BINS}", "model.z_dim=2", "dtype=float64", f"seed={seed}"]
        made.append(create(resolve(model, overrides=overrides)))
    return [model for model, _ in made], [guide for _, guide in made]


def _problem(*models: str, learns: str = "") -> Problem:
    sources, guides = _sources(*models)
    mixture = Mixture(sources)
    y = torch.rand(FRAMES, 2, BINS)
    y[4:, 1] = 0.0
    parameters = NoiseParameters(
        torch.rand(2, BINS, 1), torch.rand(2, 1, FRAMES), torch.rand(2, len(models), FRAMES) + 0.5
    )
    guide = MixtureGuide(mixture, guides)
    return Problem(mixture, guide, y, LENGTHS, Noise(parameters, learns), free_running())


@pytest.mark.parametrize("models", [("vae", "dkf"), ("srnn", "rvae"), ("dkf", "dsae", "vrnn")])
def test_the_program_of_a_mixture_by_hand(models: tuple[str, ...]) -> None:
    """log p(y, z_1, ...) is the sum of each prior's log p(z_k), and of the exponential with the summed variances."""
    problem = _problem(*models)
    mixture: Any = problem.model
    observation: Any = problem.observation
    drawn = traced(problem.guide, problem.y, LENGTHS)
    with problem.program():
        whole = traced(poutine.replay(mixture, drawn), problem.y, LENGTHS)
    total, priors = torch.zeros(FRAMES, 2, BINS), torch.zeros(())
    for k, source in enumerate(mixture.sources):
        own = {n[3:]: s["value"] for n, s in drawn.nodes.items() if n.startswith(f"s{k}_") and n[3:] in source.latents}
        with free_running():
            alone = traced(poutine.condition(source, own), problem.y, LENGTHS)
        alone.compute_log_prob()
        priors = priors + sum(alone.nodes[name]["log_prob"].sum() for name in own)
        v = alone.nodes["x"]["fn"].mean
        total = total + observation.parameters.gains()[k] * v
    x = total + observation.parameters.variance()
    mask = (torch.arange(FRAMES)[:, None] < LENGTHS)[..., None]
    seen = -((x.log() + problem.y / x) * mask).sum()
    torch.testing.assert_close(torch.as_tensor(whole.log_prob_sum()), priors + seen)
    gains = [observation.distribution.wiener(k) for k in range(len(models))]
    noise = observation.parameters.variance() / x
    torch.testing.assert_close(sum(gains) + noise, torch.ones_like(x))


def test_two_sources_of_known_variance_separate_as_the_closed_form() -> None:
    """Of jointly Gaussian sources: E[s_k | y] = g_k v_k / sum y; with z fixed by a point mass without steps."""
    problem = _problem("vae", "vae")
    found = point(problem, InferenceSettings(steps=0))
    mixture, observation = problem.model, problem.observation
    guide: Any = found.guide
    v = [source.decoder(guide.zeta[f"s{k}_z"]).mean for k, source in enumerate(mixture.sources)]  # type: ignore[arg-type]  # modules of a ModuleList
    g, n = observation.parameters.gains(), observation.parameters.variance()  # type: ignore[attr-defined]  # it is a Noise
    total = g[0] * v[0] + g[1] * v[1] + n
    for gain, k in ((found.gain, 0), (found.others[0], 1)):
        torch.testing.assert_close(gain, (g[k] * v[k] / total).detach())


@pytest.mark.parametrize("method", [vem, refine, point, mala])
def test_every_method_takes_a_mixture(method: Any) -> None:
    ends = []
    for learns in ("", "whg"):
        torch.manual_seed(0)
        problem = _problem("dkf", "vae", learns=learns)
        settings = InferenceSettings(steps=40, step_size=0.05, burn_in=0.8)
        found = method(problem, settings)
        ends.append(float(torch.stack([terms.elbo for terms in found.trajectory[-10:]]).mean()))
    assert ends[1] > ends[0]


def test_updates_of_two_gains_do_not_lower_the_likelihood() -> None:
    torch.set_default_dtype(torch.float64)
    y, v = torch.rand(FRAMES, 1, BINS) * 3.0, [torch.rand(FRAMES, 1, BINS) for _ in range(2)]
    start = NoiseParameters(torch.rand(1, BINS, 1), torch.rand(1, 1, FRAMES), torch.rand(1, 2, FRAMES))
    noise, before = Noise(start, "g"), -torch.inf
    for _ in range(40):
        density = float(noise.likelihood(v, y, None, slice(None)).log_prob(y).sum())
        assert density >= before - 1e-12
        before = density


def test_a_guide_reads_the_estimate_of_its_source() -> None:
    problem = _problem("vae", "dkf")
    guide: Any = problem.guide
    reads = [problem.y * 0.1, problem.y * 0.9]
    torch.manual_seed(1)
    ours = traced(MixtureGuide(problem.model, list(guide.guides), reads), problem.y, LENGTHS)  # type: ignore[arg-type]  # the model is a Mixture
    torch.manual_seed(1)
    alone = [traced(g, read, LENGTHS).nodes["z"]["value"] for g, read in zip(guide.guides, reads, strict=True)]
    for k in range(2):
        torch.testing.assert_close(ours.nodes[f"s{k}_z"]["value"], alone[k])


def test_priors_of_other_bins_are_refused() -> None:
    sources, _ = _sources("vae")
    other, _ = create(resolve("vae", overrides=["model.bins=7"]))
    with pytest.raises(UserError, match="bins"):
        Mixture([sources[0], other])
