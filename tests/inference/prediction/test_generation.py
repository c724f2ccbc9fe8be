"""Generation is the model run without data: what comes out is what the model, asked again, says of it."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from inference.handlers.free_running import free_running
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.prediction.generation import generate, generated_batches
from models.core.effects import base_name
from models.dvae import DVAE
from models.registry import build_model, model_class
from tests.pairs import FRAMES, VARIANTS, data, small_pair, traced

STEPWISE = [variant for variant in VARIANTS if small_pair(variant).model.stepwise]
NUM = 5


def model_of(variant: str) -> DVAE:
    return small_pair(variant).model.eval()


def given_latents(model: DVAE, x: Tensor, latents: dict[str, Tensor]) -> Tensor:
    """The mean of x under the model, its latents set."""
    lengths = torch.full((x.shape[1],), len(x))
    trace = traced(poutine.condition(model, latents), x, lengths)
    mean: Tensor = trace.nodes["x"]["fn"].mean
    return mean


@pytest.mark.parametrize("variant", VARIANTS)
def test_means_are_those_of_generation_mode(variant: str) -> None:
    model = model_of(variant)
    x, latents = generate(model, NUM, FRAMES)
    assert x.shape == (FRAMES, NUM, data().shape[-1])
    with torch.no_grad(), free_running():
        again = given_latents(model, torch.full_like(x, 0.3), latents)  # whatever the data, it looks at its own
    torch.testing.assert_close(x, again, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_samples_are_distributed_as_the_model_says_given_the_true_past(variant: str) -> None:
    """x / E[x] of an exponential is exponential with mean 1, whatever came before."""
    model = model_of(variant)
    x, latents = generate(model, 400, FRAMES, x="sample")
    with torch.no_grad():
        ratio = (x / given_latents(model, x, latents)).flatten()
    n = ratio.numel()
    for moment, expected in ((1, 1.0), (2, 2.0)):
        power = ratio**moment
        assert abs(float(power.mean()) - expected) < 5.0 * float(power.std()) / n**0.5  # once in 10^6 by chance


@pytest.mark.parametrize("variant", STEPWISE)
def test_it_is_the_frame_by_frame_program(variant: str) -> None:
    model = model_of(variant)
    shapes = {name: value.shape for name, value in generate(model, NUM, FRAMES)[1].items()}
    noise = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    lengths = torch.full((NUM,), FRAMES)
    with torch.no_grad(), given_noise(noise), mean_latents(["x"]):
        torch.manual_seed(3)  # of KVAE's latent, which is not a diagonal Gaussian
        at_once = traced(model, None, lengths).nodes["x"]["value"]
        torch.manual_seed(3)
        trace = traced(model, None, lengths, "stepwise")
    frames = [site["value"] for name, site in trace.nodes.items() if base_name(name) == "x"]
    torch.testing.assert_close(at_once, torch.cat(frames), rtol=1e-10, atol=1e-12)


def test_latents_are_from_the_prior() -> None:
    _, latents = generate(model_of("dsae"), 4000, 2)
    for values in (latents["v"], latents["v"].square() - 1.0):
        assert bool((values.mean(0).abs() < 5.0 * values.std(0) / 4000**0.5).all())
    assert float(torch.corrcoef(latents["v"].T).fill_diagonal_(0.0).abs().max()) < 5.0 / 4000**0.5


@pytest.mark.parametrize("variant", ["srnn", "dsae", "light_dvae", "ms_stcn", "rvae-noncausal"])
def test_a_sequence_depends_on_seed_and_number_alone(variant: str) -> None:
    model = model_of(variant)
    x, latents = generate(model, NUM, FRAMES, batch=NUM)
    for batch, num in ((2, NUM), (1, 3)):
        y, others = generate(model, num, FRAMES, batch=batch)
        torch.testing.assert_close(y, x[:, :num], rtol=1e-9, atol=1e-12)
        for name, value in others.items():
            torch.testing.assert_close(value, latents[name][..., :num, :])
    assert not torch.allclose(x[:, 0], x[:, 1])
    assert not torch.allclose(x, generate(model, NUM, FRAMES, seed=1)[0])


def test_torchs_generator_and_validation_are_left_alone_between_batches() -> None:
    made = list(generated_batches(small_pair("vrnn").model, 3, 2, batch=2, x="sample"))
    assert [len(m.x[0]) for m in made] == [2, 1]
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for _ in generated_batches(model_of_settings(), 2, 2, batch=1, x="sample"):
        assert torch.equal(torch.get_rng_state(), state)
        with pytest.raises(ValueError, match="scale"):
            pyro.distributions.Normal(0.0, -1.0)


def model_of_settings() -> DVAE:
    with torch.random.fork_rng():
        return build_model(model_class("vae").Settings(name="vae", bins=4, z_dim=2))


def test_a_bernoulli_makes_zeros_and_ones() -> None:
    settings = model_class("vrnn").Settings(name="vrnn", bins=4, z_dim=2, likelihood="bernoulli", input="raw")
    x, _ = generate(build_model(settings), 6, 5, x="sample")
    assert set(x.unique().tolist()) == {0.0, 1.0}
    means, _ = generate(build_model(settings), 6, 5)
    assert bool(((means > 0.0) & (means < 1.0)).all())


def test_a_trajectory_whose_variance_vanishes_goes_on() -> None:
    """An unstable transition whose softplus underflows, as trained DKFs have one once in hundreds of sequences."""
    model = build_model(model_class("dkf").Settings(name="dkf", bins=4, z_dim=2))
    transition: Any = model.transition
    with torch.no_grad():
        transition.variance.weight.zero_()
        transition.variance.bias.fill_(-200.0)
    x, latents = generate(model, 2, 5)
    assert bool(x.isfinite().all()) and bool(latents["z"].isfinite().all())


@pytest.mark.parametrize("wrong", [{"x": "both"}, {"batch": 0}])
def test_wrong_requests_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="x='.*num=.*frames="):
        generate(model_of("vae"), 2, 3, **wrong)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("likelihood", ["power_spectrum", "gaussian"])
@pytest.mark.parametrize("variant", ["fhvae", "fhvae-fc", "beta_vae"])
def test_sequences_longer_than_a_segment_are_segments_of_one_mu2(variant: str, likelihood: str) -> None:
    """Three segments each, the last cut short; each frame is that of its segment's latents, decoded alone."""
    model: Any = small_pair(variant, segment=3, likelihood=likelihood, input="raw").model.eval()
    x, latents = generate(model, NUM, 8)
    assert x.shape == (8, NUM, data().shape[-1]) and latents["z1"].shape == (3 * NUM, model.z_dim)
    for i in range(NUM):
        of_i = slice(3 * i, 3 * i + 3)
        alone = {name: value[of_i] for name, value in latents.items() if name != "mu2"}
        if "mu2" in latents:
            alone["mu2"] = latents["mu2"][i].expand(3, -1)
        with torch.no_grad():
            segments = given_latents(model, x.new_ones(3, 3, x.shape[-1]), alone)
        torch.testing.assert_close(x[:, i], segments.transpose(0, 1).flatten(0, 1)[:8])
    torch.testing.assert_close(torch.cat([made.x for made in generated_batches(model, NUM, 8, batch=2)], 1), x)


def test_segments_of_a_generated_sequence_vary_around_its_mu2_as_the_model_says() -> None:
    """mu2 ~ N(0, I) and z2 ~ N(mu2, 0.25 I), drawn anew for each segment."""
    latents = generate(small_pair("fhvae", segment=3).model.eval(), 600, 6)[1]
    around = (latents["z2"].unflatten(0, (600, 2)) - latents["mu2"][:, None]) / 0.5
    for values in (latents["mu2"], around[:, 0], around[:, 1], (around[:, 0] + around[:, 1]) / 2**0.5):
        n = values.numel()  # standard normal: once in 10^6 by chance
        assert abs(float(values.mean())) < 5.0 / n**0.5 and abs(float(values.var()) - 1.0) < 5.0 * (2.0 / n) ** 0.5
