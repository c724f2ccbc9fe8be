"""HiT-DVAE and LigHT-DVAE: their sizes, what their variants depend on, and generation with caches."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from inference.handlers.free_running import free_running
from inference.handlers.given_noise import given_noise
from inference.prediction.reconstruction import reconstruct
from inference.runs import create
from inference.settings.resolve import resolve
from models.hit_dvae import HiTDVAE
from models.light_dvae import LigHTDVAE
from models.nn.attention import Decoder
from tests.pairs import ABLATIONS, FRAMES, LENGTHS, data, latents, noise, scored, small_pair, traced
from tests.support.contract import CLAUSES, keep

MODELS = ("hit_dvae", "light_dvae")
ALL = [*MODELS, *ABLATIONS]


@pytest.mark.parametrize(("model", "parameters"), [("light_dvae", 17_455_745), ("hit_dvae", 21_747_841)])
def test_parameters_are_those_of_the_paper(model: str, parameters: int) -> None:
    """To the digits printed, 17.46 and 21.75 million, and to the unit by the sizes of the networks."""
    model_, guide = create(resolve(model, overrides=["model.bins=513"]))
    assert sum({id(p): p.numel() for m in (model_, guide) for p in m.parameters()}.values()) == parameters


@pytest.mark.parametrize("owed", CLAUSES)
@pytest.mark.parametrize("variant", ABLATIONS)
def test_ablations_keep_the_contract(variant: str, owed: str) -> None:
    keep(owed, variant, "paper")


def _without_the_second_stream(variant: str) -> set[str]:
    """What x_3 depends on, by its gradient, where the decoder of x finds nothing in its second stream."""
    pair = small_pair(variant)
    model = pair.model
    assert isinstance(model, LigHTDVAE | HiTDVAE)
    lengths = torch.tensor([FRAMES])
    x = data(lengths).requires_grad_()
    values = {name: v.requires_grad_() for name, v in latents(pair, x.detach(), lengths).items()}
    each: list[Any] = [*model.x_decoder.layers]
    for layer in each:
        torch.nn.init.zeros_(layer.attentions[1].out.weight)
    at = scored(model, values, x, lengths, "auto").nodes["x"]["fn"].base_dist.log_variance[3].sum()
    inputs = {"x": x, **values}
    gradients = torch.autograd.grad(at, list(inputs.values()), allow_unused=True)
    return {n for n, g in zip(inputs, gradients, strict=True) if g is not None and bool(g.abs().max() > 0)}


@pytest.mark.parametrize(
    ("suffix", "expected"), [("", {"z", "w"}), ("-inv_s", {"x"}), ("-inv_s_nr", set())], ids=["standard", "s", "nr"]
)
@pytest.mark.parametrize("name", MODELS)
def test_variants_differ_in_what_reaches_x_around_the_attention(name: str, suffix: str, expected: set[str]) -> None:
    """Without what the second stream gives, x_t is a function of the stream that is added on: z and w; in Inv-s the
    past of x; in Inv-s-NR, where nothing is added on, of nothing.
    """
    assert _without_the_second_stream(f"{name}{suffix}") == expected


def test_light_shares_one_decoder_and_hit_does_not() -> None:
    light, hit = (small_pair(name).model for name in ("light_dvae", "hit_dvae"))
    assert isinstance(light, LigHTDVAE) and isinstance(hit, HiTDVAE)
    assert light.z_decoder.layers is light.x_decoder.layers and hit.z_decoder.layers is not hit.x_decoder.layers
    more = {name for name, _ in hit.named_parameters()} - {name for name, _ in light.named_parameters()}
    assert {name.split(".")[0] for name in more} == {"xw_d", "z_d", "z_layers"}


class Recomputed:
    """A decoder that keeps its input and computes all of the past again."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.out_dim = decoder.out_dim

    def __call__(self, u: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        seen = u.movedim(-2, -3) if state is None else torch.cat([state[0], u.movedim(-2, -3)], dim=-2)
        out, _ = self.decoder(seen.movedim(-3, -2))
        return out[..., -u.shape[-3] :, :, :], (seen,)


def _recomputing(model: LigHTDVAE | HiTDVAE) -> None:
    model.x_decoder, model.z_decoder = Recomputed(model.x_decoder), Recomputed(model.z_decoder)  # type: ignore[assignment]  # stand-ins


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", ALL)
def test_generation_mode_with_caches_equals_computing_all_again(variant: str, dtype: torch.dtype, bound: float) -> None:
    pair = small_pair(variant)
    model, guide = pair.model.to(dtype), pair.guide.to(dtype)
    assert isinstance(model, LigHTDVAE | HiTDVAE)
    x = data().to(dtype)
    cached = reconstruct(model, guide, x, LENGTHS, mode="gen")
    _recomputing(model)
    again = reconstruct(model, guide, x, LENGTHS, mode="gen")
    torch.testing.assert_close(cached.mean, again.mean, rtol=bound, atol=bound)
    torch.testing.assert_close(cached.terms.elbo, again.terms.elbo, rtol=bound, atol=bound)


@torch.no_grad()
@pytest.mark.parametrize("variant", ALL)
def test_generation_mode_is_teacher_forcing_by_its_own_output(variant: str) -> None:
    """Shown its own means as the past, the model gives these means again, all frames at once."""
    pair = small_pair(variant)
    values = latents(pair, data(), LENGTHS)
    with free_running():
        own = scored(pair.model, values, data(), LENGTHS, "auto").nodes["x"]["fn"].mean
    real = (torch.arange(FRAMES)[:, None] < LENGTHS)[..., None]
    teacher_forced = scored(pair.model, values, own * real, LENGTHS, "auto").nodes["x"]["fn"].mean
    torch.testing.assert_close(teacher_forced * real, own * real, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("variant", ["hit_dvae", "light_dvae-inv_s"])
def test_any_length_is_generated_frame_by_frame_as_it_is_scored(variant: str) -> None:
    """Far beyond a training sequence: 300 frames drawn through caches have the density of one pass."""
    model, lengths = small_pair(variant).model, torch.tensor([300])
    drawn = traced(model, None, lengths)
    drawn.compute_log_prob()
    values = {name: drawn.nodes[name]["value"] for name in model.latents}
    at_once = scored(model, values, drawn.nodes["x"]["value"], lengths, "auto")
    for site in ("w", "z", "x"):
        torch.testing.assert_close(drawn.nodes[site]["log_prob"], at_once.nodes[site]["log_prob"], rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_w_reaches_every_frame() -> None:
    pair = small_pair("light_dvae")
    with given_noise(noise(pair)):
        drawn = traced(pair.guide, data(), LENGTHS)
    values = {name: drawn.nodes[name]["value"] for name in pair.model.latents}
    means = []
    for w in (values["w"], values["w"].roll(1, 0)):
        program = poutine.condition(pair.model, {**values, "w": w})
        means.append(traced(program, data(), LENGTHS).nodes["x"]["fn"].mean)
    assert bool(((means[0] - means[1]).abs().amax(-1) > 0).all())
