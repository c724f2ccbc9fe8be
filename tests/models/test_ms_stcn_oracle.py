"""MS-STCN against what its authors' code computes (shared/oracles/ms_stcn/FORMAT.md): every feature, conditional, KL,
bound, free-bits loss, gradient and generated frame, in double precision.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from guides.ms_stcn import MSSTCNGuide
from guides.registry import build_guide, guide_class
from inference.handlers.free_bits import free_bits
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Bound, Objective
from models.ms_stcn import MSSTCN, MSSTCNSettings
from models.registry import build_model
from tests.oracles import agrees, figures
from tests.pairs import traced

SMALL: dict[str, Any] = {
    "widths": [5, 6, 7],
    "strides": [1, 3, 2],
    "z_dims": [1, 2, 3],
    "dilations": [1, 1],
    "top_dilations": [1, 2, 4],
}
FW2: dict[str, Any] = {
    "widths": [26, 58, 128, 256, 256],
    "strides": [1, 5, 5, 4, 1],
    "z_dims": [1, 5, 25, 64, 64],
    "dilations": [1, 1, 1, 1, 1],
    "top_dilations": [1, 2, 4, 8, 16],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "small": SMALL,
    "first_block": {**SMALL, "every_block": False},
    "ragged": SMALL,
    "partial": SMALL,
    "clamp": SMALL,
    "fw2": FW2,
}
"""Sizes of each case; their mixtures have the public bounds of deviations."""
GROUPINGS = {"element": "element", "channel": "channel", "sequence": "sequence", "full": "layer"}


class Case(NamedTuple):
    """A case of the oracle: what is given, the pair that has its weights, and the figures.

    Attributes:
        x: data (T, B, D).
        noise: standard normal numbers for each latent, (T_l, B, n_l).
    """

    model: MSSTCN
    guide: MSSTCNGuide
    x: Tensor
    lengths: Tensor
    noise: dict[str, Tensor]
    expected: Mapping[str, Any]


def _public_networks(model: MSSTCN, guide: MSSTCNGuide) -> dict[str, tuple[nn.Module, str]]:
    """Each network of ours by the public name of its place, with what it is."""
    found: dict[str, tuple[nn.Module, str]] = {"pred.layer.layers.0.conv": (cast(Any, model.likelihood).affine, "pred")}
    place = "vae.first_ladder_layer"
    for i, width in enumerate(model.ladder.widths):
        for name, nets in (("inf_pre", model.ladder.up), ("gen_pre", model.ladder.h), ("gen_post", model.ladder.g)):
            for b, block in enumerate(cast(Any, nets[i]).blocks):
                at = f"{place}.{name}.layers.{b}"
                found[f"{at}.layers.0.conv"] = (block.conv, "conv")
                found[f"{at}.layers.2.conv"] = (block.mix, "linear")
                if isinstance(block.identity, nn.Linear):
                    changes = name == "inf_pre" and b == 0 and model.ladder.strides[i] > 1
                    found[f"{at}.skip.skip.conv{'.skip.conv' if changes else ''}"] = (block.identity, "linear")
        found[f"{place}.latent_p.layer.layers.0.conv"] = (cast(Any, model.prior_heads[i]).affine, "linear")
        found[f"{place}.latent_q.layer.layers.0.conv"] = (cast(Any, guide.heads[i]).affine, f"posterior{width}")
        place += ".sublayer"
    return found


def _ours(kind: str, theirs: Tensor, components: int = 2) -> Tensor:
    """A public kernel (out, in, taps) or bias (out,) in the order of our matrix (out, taps * in) or bias.

    It is a permutation for each kind, so it serves gradients as well.
    """
    if kind == "pred":  # channel by channel; ours are the logits first, then component by component
        dims = (len(theirs) // components - 1) // 2
        means, scales = (
            part.unflatten(0, (dims, components)).transpose(0, 1).flatten(0, 1)
            for part in theirs[: 2 * dims * components].chunk(2)
        )
        theirs = torch.cat([theirs[2 * dims * components :], means, scales])
    if theirs.dim() == 1:
        return theirs
    if kind.startswith("posterior"):  # of [d; h]; ours of [h; d]
        theirs = theirs.roll(int(kind.removeprefix("posterior")), 1)
    return theirs.movedim(2, 1).flatten(1)


def _formula(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights of the case without a file."""
    scale = 0.6 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.6 / 4
    scale *= 0.06 if name.startswith("pred.") else 0.15 if ".latent_" in name else 1.0
    drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.from_numpy(drawn * scale)


def _drawn(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape))


def _load(shared: Path, name: str) -> Case:
    folder, case = figures(shared, "ms_stcn", name)
    settings = MSSTCNSettings(
        bins=2,
        components=2,
        likelihood="channel_mixture",
        input="raw",
        normalise=False,
        variance_floor=0.0,
        scale_bounds=(1e-3, 5.0),
        resampling="fixed",
        **SETTINGS[name],
    )
    model = cast(MSSTCN, build_model(settings).double())
    guide = build_guide(model, settings, guide_class(settings, "paper").Settings(name="paper")).double()
    layers = range(1, len(settings.widths) + 1)
    given = case["given"]
    shapes = {k.removeprefix("grad."): v["shape"] for k, v in case["expected"].items() if k.startswith("grad.")}
    if case.get("file"):
        arrays = {k: torch.from_numpy(v) for k, v in np.load(folder / case["file"]).items()}
    else:
        arrays = {f"w.{k}": _formula(k, tuple(shape)) for k, shape in shapes.items()}
        x = _drawn(11, tuple(given["x"]["shape"])).cumsum(-1)
        arrays["x"] = (x - x.mean()) / x.std(unbiased=False)
        arrays |= {f"noise.{i}": _drawn(100 + i, tuple(given[f"noise.{i}"]["shape"])) for i in layers}
        arrays["lengths"] = torch.tensor([x.shape[-1]])
    for key, summary in given.items():
        agrees(arrays[key], summary, key)
    networks = _public_networks(model, cast(MSSTCNGuide, guide))
    assert {f"{at}.{part}" for at, (net, _) in networks.items() for part, _ in net.named_parameters()} == {*shapes}
    with torch.no_grad():
        for at, (net, kind) in networks.items():
            for part, parameter in net.named_parameters():
                parameter.copy_(_ours(kind, arrays[f"w.{at}.{part}"]))
    noise = {f"layer{i}": arrays[f"noise.{i}"].permute(2, 0, 1) for i in layers}
    return Case(
        model, cast(MSSTCNGuide, guide), arrays["x"].permute(2, 0, 1), arrays["lengths"], noise, case["expected"]
    )


def _channels_first(u: Tensor, lengths: Tensor, stride: int = 1) -> Tensor:
    """(T_l, B, C) as the public code has it: (B, C, T_l), zero beyond each sequence's own steps."""
    own = torch.arange(len(u))[:, None] < -(-lengths // stride)
    return (u * own[..., None]).permute(1, 2, 0)


def _computed(case: Case, handler: Any) -> dict[str, Any]:
    """All that a pass over the true past computes, by the oracle's names."""
    model, lengths = case.model, case.lengths
    ladder, found = model.ladder, cast(dict[str, Any], {})
    hooks, scales = [], [1, *ladder.scales]

    def keep(name: str, stride: int, frames: int) -> Callable[..., None]:
        def hook(net: nn.Module, inputs: Any, outputs: Any) -> None:
            if name not in found:  # the guide's: the model needs no features of the last step
                found[name] = _channels_first(outputs[0][:frames], lengths, stride)

        return hook

    for i in range(len(ladder.widths)):
        own, below = (-(-len(case.x) // scales[at]) for at in (i + 1, i))
        hooks.append(ladder.up[i].register_forward_hook(keep(f"inf_pre.{i + 1}", scales[i + 1], own)))
        hooks.append(ladder.h[i].register_forward_hook(keep(f"gen_pre.{i + 1}", scales[i + 1], own)))
        hooks.append(ladder.g[i].register_forward_hook(keep(f"gen_post.{i + 1}", scales[i], below)))
    with torch.no_grad(), handler:
        of_guide = traced(case.guide, case.x, lengths)
        of_model = traced(poutine.replay(model, of_guide), case.x, lengths)
    for hook in hooks:
        hook.remove()
    negative = torch.zeros((), dtype=torch.float64)
    for i, scale in enumerate(ladder.scales, start=1):
        q, p = (_plain(trace.nodes[f"layer{i}"]["fn"]).base_dist for trace in (of_guide, of_model))
        z = of_guide.nodes[f"layer{i}"]["value"]
        parts = {"q_loc": q.mean, "q_scale": q.stddev, "p_loc": p.mean, "p_scale": p.stddev, "z": z}
        parts |= {"kl": kl_divergence(q, p), "kl_sample": q.log_prob(z) - p.log_prob(z)}
        found |= {f"{name}.{i}": _channels_first(value, lengths, scale) for name, value in parts.items()}
        negative = negative + found[f"kl.{i}"].sum()
    decoded = _plain(of_model.nodes["x"]["fn"])
    k, d = decoded.components, decoded.channels
    log_weights = decoded.logits.log_softmax(-1)[..., None]
    log_px = torch.logsumexp(log_weights + decoded._densities(case.x), -2)
    torch.testing.assert_close(log_px.sum(-1), decoded.log_prob(case.x), rtol=1e-12, atol=1e-12)
    found["log_px"] = _channels_first(log_px, lengths)
    for name, parameter in (("pred_loc", decoded.means), ("pred_scale", decoded.scales)):
        found[name] = _channels_first(parameter, lengths).unflatten(1, (k, d)).transpose(1, 2)
    found["pred_logits"] = _channels_first(decoded.logits, lengths)
    found["neg_elbo"] = (negative - found["log_px"].sum()) / len(lengths)
    return found


def _plain(distribution: Any) -> Any:
    """Without its mask."""
    return getattr(distribution, "base_dist", distribution) if hasattr(distribution, "_mask") else distribution


def _bound(case: Case, **spared: Any) -> Bound:
    with free_bits(**spared) if spared else nullcontext(), given_noise(case.noise):
        bound: Bound = Objective(case.model, case.guide, "analytic")(case.x, case.lengths)
    return bound


def _check_gradients(case: Case, prefix: str, bound: Bound) -> None:
    for module in (case.model, case.guide):
        module.zero_grad()
    (bound.loss / len(case.lengths)).backward()
    for at, (net, kind) in _public_networks(case.model, case.guide).items():
        for part, parameter in net.named_parameters():
            name = f"{prefix}.{at}.{part}"
            figure, gradient = case.expected[name], parameter.grad
            assert gradient is not None
            shape = figure["shape"]
            places = _ours(kind, torch.arange(gradient.numel(), dtype=torch.float64).reshape(shape)).long()
            theirs = torch.empty(gradient.numel(), dtype=torch.float64)
            theirs[places.flatten()] = gradient.flatten()
            agrees(theirs.reshape(shape), figure, name)


def _check(case: Case) -> None:
    expected = case.expected
    checked = set()
    for path, handler in (("mean", mean_latents()), ("noise", given_noise(case.noise))):
        for name, value in _computed(case, handler).items():
            if f"{path}.{name}" in expected:
                agrees(value, expected[f"{path}.{name}"], f"{path}.{name}")
                checked.add(f"{path}.{name}")
    of_noise = _bound(case)
    agrees(of_noise.loss.detach() / len(case.lengths), expected["noise.neg_elbo"], "the objective")
    agrees(-of_noise.terms.elbo.mean(), expected["noise.neg_elbo"], "the bound")
    for mode in ("linear", "constant"):
        for grouping, ours in GROUPINGS.items():
            name = f"freebits.{mode}.{grouping}"
            if name in expected:
                threshold = expected[f"{name}.threshold"]
                bound = _bound(case, threshold=threshold, mode=mode, grouping=ours)
                left_out = 0.0 if mode == "linear" else threshold * _below(case, grouping, threshold)
                agrees((bound.loss.detach() + left_out) / len(case.lengths), expected[name], name)
                checked |= {name, f"{name}.threshold"}
    for prefix, bound in (("grad", _bound(case, threshold=0.5)), ("grad0", _bound(case))):
        if any(name.startswith(f"{prefix}.") for name in expected):
            _check_gradients(case, prefix, bound)
            checked |= {name for name in expected if name.startswith(f"{prefix}.")}
    if "generated" in expected:
        with torch.no_grad(), given_noise(case.noise), mean_latents(["x"]):
            made = traced(case.model, None, case.lengths).nodes["x"]["value"]
        agrees(_channels_first(made, case.lengths), expected["generated"], "generated")
        checked.add("generated")
    assert checked == {*expected}


def _below(case: Case, grouping: str, threshold: float) -> int:
    """How many parts of the KL are below a threshold; those of padded steps are 0."""
    dims: dict[str, tuple[int, ...]] = {"element": (), "channel": (1,), "sequence": (2,), "full": (1, 2)}
    computed, count = _computed(case, given_noise(case.noise)), 0
    for i in range(1, len(case.model.ladder.widths) + 1):
        part = computed[f"kl.{i}"]
        part = part.sum(dims[grouping]) if dims[grouping] else part
        count += int((part < threshold).sum())
    return count


@pytest.mark.parametrize("name", ["small", "first_block", "ragged", "clamp", "fw2"])
def test_all_is_as_the_public_code_computes_it(shared: Path, name: str) -> None:
    _check(_load(shared, name))


@pytest.mark.parametrize("padding", ["ours", "theirs"])
def test_a_step_that_the_data_only_begin(shared: Path, padding: str) -> None:
    """22 frames, no multiple of a step of 6. The public code pads after the convolution, ours before it: with zeros put
    there for the frames that are none, everything agrees; without, what comes before does.
    """
    case = _load(shared, "partial")
    if padding == "theirs":
        frames = [-(-len(case.x) // scale) for scale in (1, *case.model.ladder.scales)]
        for net, below in zip(case.model.ladder.up, frames, strict=False):
            rate = cast(Any, net).blocks[0].rate_residual
            rate.register_forward_pre_hook(lambda module, args, below=below: (_cut(args[0], below),))
        _check(case)
        return
    computed = _computed(case, mean_latents())
    agrees(computed["inf_pre.1"], case.expected["mean.inf_pre.1"], "inf_pre.1")
    with pytest.raises(AssertionError, match=r"^inf_pre\.2"):
        agrees(computed["inf_pre.2"], case.expected["mean.inf_pre.2"], "inf_pre.2")


def _cut(u: Tensor, frames: int) -> Tensor:
    return torch.cat([u[..., :frames, :, :], torch.zeros_like(u[..., frames:, :, :])], dim=-3)
