"""MS-STCN: the sizes of the public configurations, the blocks by their equations, generation by what is remembered."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d

from dvae_pyro.errors import UserError
from guides.registry import build_guide, guide_class
from inference.handlers.free_running import free_running
from inference.objectives.elbo import Objective
from inference.runs import create
from inference.settings.resolve import resolve
from models.core.time_axis import Looped, Markov
from models.dvae import DVAE
from models.ms_stcn import MSSTCNSettings
from models.nn.wavenet import CausalConv, WaveNet, WaveNetBlock
from models.registry import build_model
from tests.pairs import LENGTHS, data, frame_by_frame, per_sequence, small_pair, traced

BLIZZARD: dict[str, Any] = {
    "bins": 2,
    "widths": [26, 58, 128, 256, 256],
    "strides": [1, 5, 5, 4, 1],
    "z_dims": [1, 5, 25, 64, 64],
    "dilations": [1, 1, 1, 1, 1],
    "top_dilations": [1, 2, 4, 8, 16],
}
IAM: dict[str, Any] = {
    "bins": 3,
    "widths": [64, 64, 64, 32, 16],
    "strides": [1, 2, 2, 2, 1],
    "z_dims": [8, 8, 8, 4, 2],
    "top_dilations": [1, 2, 4, 8],
    "every_block": False,
}
PIANO: dict[str, Any] = {
    "bins": 88,
    "widths": [64, 32, 16, 8, 8],
    "strides": [1, 2, 2, 2, 2],
    "z_dims": [8, 4, 2, 1, 1],
    "top_dilations": [1, 1, 1, 1],
    "every_block": False,
}


def _pair(settings: MSSTCNSettings) -> tuple[DVAE, Any]:
    model = build_model(settings)
    return model, build_guide(model, settings, guide_class(settings, "paper").Settings(name="paper"))


def _count(*modules: torch.nn.Module) -> int:
    return sum({id(p): p.numel() for module in modules for p in module.parameters()}.values())


@pytest.mark.parametrize(
    ("sizes", "likelihood", "published", "more"),
    [
        ({**BLIZZARD, "components": 2}, "channel_mixture", 5_845_802, 0),
        # A pen's offsets have a correlation and a component's weight here, two numbers that the public code has not.
        ({**IAM, "components": 1}, "pen", 533_293, 2 * (64 + 1)),
        (PIANO, "bernoulli", 258_568, 0),
    ],
)
def test_parameters_of_the_public_configurations(
    sizes: dict[str, Any], likelihood: str, published: int, more: int
) -> None:
    settings = MSSTCNSettings(likelihood=likelihood, input="raw", resampling="fixed", **sizes)
    assert _count(*_pair(settings)) == published + more


def test_the_packaged_settings_of_handwriting_have_the_public_sizes() -> None:
    settings = resolve(config_path="ms_stcn2021/iamondb_ms_stcn", overrides=["model.resampling=fixed"])
    assert _count(*create(settings)) == 533_293 + 2 * (64 + 1)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_causal_convolution_is_torchs(kernel: int, dilation: int) -> None:
    torch.manual_seed(0)
    net = CausalConv(3, 4, kernel, dilation).double()
    u = torch.randn(9, 2, 3, dtype=torch.float64)
    weight = net.weight.reshape(4, kernel, 3).movedim(1, 2)
    padded = torch.nn.functional.pad(u.permute(1, 2, 0), ((kernel - 1) * dilation, 0))
    expected = conv1d(padded, weight, net.bias, dilation=dilation).permute(2, 0, 1)
    torch.testing.assert_close(net(u)[0], expected)


@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("direction", ["down", "up"])
def test_a_block_by_its_equation(direction: str, learned: bool) -> None:
    torch.manual_seed(0)
    stride = 3
    block = WaveNetBlock(4, 5, kernel=2, dilation=1, learned=learned, **{direction: stride}).double()
    for p in block.parameters():
        torch.nn.init.normal_(p)
    x = torch.randn(6, 1, 4, dtype=torch.float64)
    signal = block.conv(x)[0][:, 0].T[None]  # (1, 10, 6)
    main = block.identity(x)[:, 0].T[None]
    rate = block.rate_residual.weight
    if direction == "down":
        weight = torch.full((10, 1, stride), stride**-0.5, dtype=torch.float64)
        weight = rate[:, 0].T[:, None] if learned else weight  # type: ignore[index]  # attributes of a Module
        signal = conv1d(signal, weight, stride=stride, groups=10)
        average = torch.full((5, 1, stride), 1 / stride if learned else stride**-0.5, dtype=torch.float64)
        main = conv1d(main, average, stride=stride, groups=5)
    else:
        weight = rate[:, 0].T[:, None] if learned else torch.ones(10, 1, stride, dtype=torch.float64)  # type: ignore[index]  # attributes of a Module
        signal = conv_transpose1d(signal, weight, stride=stride, groups=10)
        main = main.repeat_interleave(stride, -1)
    first, second = signal[0].T.chunk(2, -1)
    expected = main[0].T + (second.tanh() * first.sigmoid()) @ block.mix.weight.T
    torch.testing.assert_close(block(x)[0][:, 0], expected)


def test_a_wavenet_fed_in_parts_is_the_wavenet_fed_at_once() -> None:
    torch.manual_seed(0)
    net = WaveNet(3, 4, [1, 2, 4], kernel=2, down=2).double()
    u = torch.randn(12, 2, 3, dtype=torch.float64)
    whole, _ = net(u)
    parts, state = [], None
    for start, stop in ((0, 2), (2, 8), (8, 12)):
        out, state = net(u[start:stop], None, state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", ["ms_stcn", "ms_stcn-fixed"])
@pytest.mark.parametrize("interpreter", [Looped, Markov])
def test_scored_step_by_step_is_scored_at_once(variant: str, interpreter: Any) -> None:
    """A step of a layer, then its frames, on given data and latents, against all frames in one pass; the last step of
    each layer is only begun.
    """
    pair, lengths = small_pair(variant), torch.tensor([11, 7])
    with torch.no_grad():
        for parameter in pair.model.parameters():  # frames of a step are alike where changes of rate start
            parameter.add_(0.2 * torch.randn_like(parameter))
    x = data(lengths)
    trace = traced(pair.guide, x, lengths)
    values = {name: trace.nodes[name]["value"].detach() for name in pair.model.latents}
    at_once = traced(poutine.condition(pair.model, values), x, lengths)
    pair.model.all_frames = lambda sites, lengths: interpreter.run(pair.model.step, sites)  # type: ignore[method-assign]  # an interpreter in its place
    settled = frame_by_frame(values) if interpreter is Markov else values
    stepwise = traced(poutine.condition(pair.model, settled), x, lengths)
    for trace in (at_once, stepwise):
        trace.compute_log_prob()
    expected, got = per_sequence(at_once), per_sequence(stepwise)
    assert {*expected} == {*got} == {*values, "x"}
    for site, density in expected.items():
        torch.testing.assert_close(got[site], density)


def test_fed_its_own_output_it_does_not_see_the_data() -> None:
    pair = small_pair("ms_stcn")
    x = data(torch.tensor([8])).requires_grad_()
    values = {name: v.detach() for name, v in _drawn(pair, x).items()}
    with free_running():
        trace = traced(poutine.condition(pair.model, values), x, torch.tensor([8]))
    mean = trace.nodes["x"]["fn"].mean
    assert not torch.autograd.grad(mean.sum(), x, allow_unused=True)[0]
    told = traced(poutine.condition(pair.model, values), x, torch.tensor([8])).nodes["x"]["fn"].mean
    torch.testing.assert_close(mean[0], told[0])
    assert not torch.allclose(mean[3:], told[3:])


def _drawn(pair: Any, x: Tensor) -> dict[str, Tensor]:
    trace = traced(pair.guide, x, torch.tensor([len(x)]))
    return {name: trace.nodes[name]["value"] for name in pair.model.latents}


def test_without_latents_it_is_a_likelihood() -> None:
    settings = MSSTCNSettings(bins=6, widths=[4, 4], strides=[1, 2], latent=False, input="raw")
    model, guide = _pair(settings)
    bound = Objective(model, guide)(data().float(), LENGTHS)
    assert bound.terms.kl == {} and torch.equal(bound.terms.elbo, bound.terms.reconstruction)
    bound.loss.backward()
    assert all(p.grad is not None for p in model.parameters()) and list(guide.parameters()) != []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strides": [1]}, r"model\.strides .* 1 .*model\.widths .* 5"),
        ({"z_dims": [2, 2]}, r"model\.z_dims .* 2 .*model\.widths .* 5"),
        ({"strides": [2, 1, 1, 1, 1]}, r"model\.strides\[0\]=2"),
        ({"resampling": "mean"}, r"model\.resampling=mean"),
        ({"widths": [], "strides": []}, r"model\.widths.*empty"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_model(MSSTCNSettings(**wrong))
