"""Pyro's handlers act on a model of this library as on the same program written by hand, without a line of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from models.srnn import SRNN
from models.vrnn import VRNN
from tests.pairs import LENGTHS, data, frame_by_frame, latents, small_pair, traced

FRAMES, N = 7, 4
handlers: Any = poutine
"""Pyro's handlers, whose types are narrower than what they take."""


def vrnn_by_hand(model: VRNN, x: Tensor, lengths: Tensor) -> None:
    """Chung et al. (2015), with one LSTM cell."""
    cell = torch.nn.LSTMCell(model.x.out_dim + model.z.out_dim, model.h.out_dim).double()
    cell.load_state_dict({k.removesuffix("_l0"): p for k, p in model.h.net.state_dict().items()})
    h = c = torch.zeros(N, model.h.out_dim).double()
    sequences = pyro.plate("sequences", N, dim=-1)
    x_before = z_before = None
    for t in pyro.markov(range(FRAMES)):
        if x_before is not None and z_before is not None:
            h, c = cell(torch.cat([model.x(model.input(x_before)), model.z(z_before)], -1), (h, c))
        with sequences, handlers.mask(mask=t < lengths):
            z_before = pyro.sample(f"z_{t}", model.prior_head(model.h_z(h)))
            x_t = model.likelihood(model.hz_x(torch.cat([model.z(z_before), h], -1)))
            x_before = pyro.sample(f"x_{t}", x_t, obs=x[t])


def srnn_by_hand(model: SRNN, x: Tensor, lengths: Tensor) -> None:
    """Fraccaro et al. (2016), with one LSTM cell."""
    cell = torch.nn.LSTMCell(model.x_h.out_dim, model.h.out_dim).double()
    cell.load_state_dict({k.removesuffix("_l0"): p for k, p in model.h.net.state_dict().items()})
    h = c = torch.zeros(N, model.h.out_dim).double()
    sequences = pyro.plate("sequences", N, dim=-1)
    x_before, z_before = torch.zeros(N, 6).double(), torch.zeros(N, 3).double()
    for t in pyro.markov(range(FRAMES)):
        h, c = cell(model.x_h(model.input(x_before)), (h, c))
        with sequences, handlers.mask(mask=t < lengths):
            z_before = pyro.sample(f"z_{t}", model.prior_head(model.hz_z(torch.cat([h, z_before], -1))))
            x_t = model.likelihood(model.hz_x(torch.cat([h, z_before], -1)))
            x_before = pyro.sample(f"x_{t}", x_t, obs=x[t])


class Tagged(poutine.messenger.Messenger):
    """Notes what each site is when it comes by."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, Any] = {}

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"][0] in "xz":
            self.seen[msg["name"]] = (msg["is_observed"], msg["infer"].get("tag"), msg["value"])


def without_z(program: Any) -> Any:
    return handlers.block(program, hide_fn=lambda site: site["name"].startswith("z"))


HANDLERS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "condition": lambda program, values: poutine.condition(program, values),
    "do": lambda program, values: poutine.do(program, values),
    "do one frame": lambda program, values: poutine.do(
        poutine.condition(program, {k: v for k, v in values.items() if k != "z_2"}), {"z_2": values["z_2"]}
    ),
    "condition x": lambda program, values: poutine.condition(
        program, {**values, "x_1": 2.0 * values["x_1"], "x_3": values["x_1"]}
    ),
    "scale": lambda program, values: poutine.scale(poutine.condition(program, values), scale=0.3),
    "mask": lambda program, values: handlers.mask(
        poutine.condition(program, values), mask=torch.tensor([True, False, True, True])
    ),
    "block": lambda program, values: without_z(poutine.condition(program, values)),
    "infer_config": lambda program, values: handlers.infer_config(
        poutine.condition(program, values), config_fn=lambda site: {"tag": site["name"]}
    ),
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize(("variant", "by_hand"), [("vrnn", vrnn_by_hand), ("srnn", srnn_by_hand)])
def test_handlers_act_as_on_the_program_by_hand(variant: str, by_hand: Any, handler: str) -> None:
    """Sites, observedness, configuration and log-densities; all frames at once the sums over frames."""
    pair = small_pair(variant)
    x = data()
    z = latents(pair, x, LENGTHS)
    split = {k: v[0] for k, v in frame_by_frame({**z, "x": x}).items()}
    zs = {k: v for k, v in split.items() if k.startswith("z") or handler == "condition x"}
    ours = {k: v[None] for k, v in zs.items()}

    def found(program: Any, values: dict[str, Any], *args: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
        with Tagged() as tagged:
            trace = traced(HANDLERS[handler](program, values), *args)
        trace.compute_log_prob()
        nodes = {n: s for n, s in trace.nodes.items() if s["type"] == "sample" and n[0] in "xz"}
        densities = {n: s["log_prob"].reshape(-1, N).sum(0) for n, s in nodes.items() if "log_prob" in s}
        return densities, {n: (*what[:2],) for n, what in tagged.seen.items()}

    expected, sites = found(lambda *args: by_hand(pair.model, *args), zs, x, LENGTHS)
    got, of_ours = found(pair.model, ours, x, LENGTHS, "stepwise")
    assert of_ours == sites and set(got) == set(expected)
    for name, density in expected.items():
        if not handler.startswith("do") or name.startswith("x"):  # do leaves z's own site to chance
            torch.testing.assert_close(got[name], density, rtol=1e-9, atol=1e-9)
    if handler in ("condition", "scale", "mask", "do"):
        whole, _ = found(pair.model, z, x, LENGTHS)
        for site in ("x",) if handler == "do" else ("x", "z"):
            total = torch.stack([v for n, v in expected.items() if n.startswith(site)]).sum(0)
            torch.testing.assert_close(whole[site], total, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("how", ["auto", "looped", "stepwise"])
def test_unconditioned_data_are_what_later_frames_look_back_at(how: str) -> None:
    """What `uncondition` draws in x's place is the past of the rest, as by hand."""
    pair = small_pair("vrnn")
    z = latents(pair, data(), LENGTHS)
    values = frame_by_frame(z) if how == "stepwise" else z
    trace = traced(poutine.uncondition(poutine.do(pair.model, {**values})), data(), LENGTHS, how)
    x = [s["value"] for n, s in trace.nodes.items() if n[0] == "x" and s["type"] == "sample"]
    drawn = torch.cat(x)
    assert drawn.shape == data().shape and not torch.equal(drawn, data())
    trace.compute_log_prob(lambda name, site: name.startswith("x"))
    got = sum(s["log_prob"].reshape(-1, N).sum(0) for n, s in trace.nodes.items() if n[0] == "x")
    split = {k: v[0] for k, v in frame_by_frame(z).items()}
    real = drawn * (torch.arange(FRAMES)[:, None] < LENGTHS)[..., None]
    model: Any = pair.model
    hand = traced(poutine.condition(lambda *args: vrnn_by_hand(model, *args), split), real, LENGTHS)
    hand.compute_log_prob()
    expected = sum(s["log_prob"] for n, s in hand.nodes.items() if n[0] == "x")
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert isinstance(trace.nodes["x" if how != "stepwise" else "x_0"]["fn"], dist.TorchDistribution)
