"""The time axis on a model that asks everything of it, so that models to come find it in order.

v ~ N(0, I);  h_t = LSTM(x_{t-1}, z_{t-1}), h_1 = 0;  z_t ~ N(MLP(h_t, v), 1);  x_t ~ PowerSpectrum(MLP(z_t,
h_t, v))
"""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn

from inference.handlers.free_running import free_running
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import terms
from models.core.grouping import SequenceIndex
from models.core.sites import SharedPlate
from models.core.tensors import concatenate
from models.core.time_axis import Sites, TimeAxis, run
from models.likelihoods.power_spectrum import PowerSpectrum
from models.nn.layers import Recurrent
from tests.pairs import LENGTHS, data, frame_by_frame, per_sequence, small_pair, traced

SIZES = {"x": 6, "z": 3, "v": 2}
FRAMES, N = int(LENGTHS.max()), len(LENGTHS)


class Everything(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn = Recurrent(9, 5)
        self.z_head = nn.Linear(7, 3)
        self.x_head = nn.Linear(10, 6)
        self.double()

    def step(self, t: TimeAxis) -> None:
        zero = self.z_head.weight.new_zeros(2)
        v = t.once("v", dist.Normal(zero, 1.0).to_event(1))
        h = t.recur(self.rnn, t.prev("x"), t.prev("z"), lag=True)
        z = t.sample("z", dist.Normal(self.z_head(concatenate(h, v)), 1.0).to_event(1))
        t.observe("x", self.decoder(z, h, v))

    def decoder(self, z: Tensor, h: Tensor, v: Tensor) -> dist.TorchDistribution:
        return dist.Independent(PowerSpectrum(torch.tanh(self.x_head(concatenate(z, h, v)))), 1)

    def forward(self, x: Tensor | None, lengths: Tensor, how: str = "auto") -> None:
        run(self.step, Sites({"x": x}, lengths, SIZES, self.z_head.weight), how)


class OverEverything(nn.Module):
    """q(v | x_1) q(z_t | z_{t-1}, x_t, v): draws in a loop, after a site outside time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.v_head = nn.Linear(6, 2)
        self.z_head = nn.Linear(11, 3)
        self.double()

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto") -> None:
        sites = Sites({"x": x}, lengths, SIZES, self.z_head.weight)
        first = self.v_head(sites.data["x"][0])

        def step(t: TimeAxis) -> None:
            v = t.once("v", dist.Normal(first, 0.5).to_event(1))
            mean = torch.tanh(self.z_head(concatenate(t.feature(sites.data["x"]), t.prev("z"), v)))
            t.sample("z", dist.Normal(mean, 0.3).to_event(1))

        run(step, sites, how)


def _latents(seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    trace = traced(OverEverything(), data(), LENGTHS)
    return {name: trace.nodes[name]["value"].detach() for name in ("v", "z")}


def _scored(program: nn.Module, values: dict[str, Tensor], how: str) -> dict[str, Tensor]:
    settled = frame_by_frame(values) if how == "stepwise" else values
    trace = traced(poutine.condition(program, settled), data(), LENGTHS, how)
    trace.compute_log_prob()
    return per_sequence(trace)


@pytest.mark.parametrize("how", ["looped", "stepwise"])
@pytest.mark.parametrize("program", [Everything, OverEverything])
def test_interpreters_agree(program: type[nn.Module], how: str) -> None:
    values = _latents()
    expected = _scored(program(), values, "auto")
    for site, value in _scored(program(), values, how).items():
        torch.testing.assert_close(value, expected[site], rtol=1e-12, atol=1e-12)


def test_the_density_is_the_one_written_by_hand() -> None:
    model, x, values = Everything(), data(), _latents()
    v, z = values["v"], values["z"]
    lstm = nn.LSTMCell(9, 5).double()
    lstm.load_state_dict({k.removesuffix("_l0"): p for k, p in model.rnn.net.state_dict().items()})
    h, c = torch.zeros(N, 5).double(), torch.zeros(N, 5).double()
    total = {"x": torch.zeros(N).double(), "z": torch.zeros(N).double()}
    for t in range(FRAMES):
        if t > 0:
            h, c = lstm(torch.cat([x[t - 1], z[t - 1]], -1), (h, c))
        real = (t < LENGTHS).double()
        mean = model.z_head(torch.cat([h, v], -1))
        total["z"] = total["z"] + real * torch.distributions.Normal(mean, 1.0).log_prob(z[t]).sum(-1)
        log_variance = torch.tanh(model.x_head(torch.cat([z[t], h, v], -1)))
        exponential = torch.distributions.Exponential((-log_variance).exp())
        total["x"] = total["x"] + real * exponential.log_prob(x[t]).sum(-1)
    got = _scored(model, values, "auto")
    for site, value in total.items():
        torch.testing.assert_close(got[site], value, rtol=1e-12, atol=1e-12)


def test_the_guide_registers_each_site_once_whatever_way_it_draws() -> None:
    for how in ("auto", "looped"):
        trace = traced(OverEverything(), data(), LENGTHS, how)
        assert [n for n, s in trace.nodes.items() if s["type"] == "sample" and n in SIZES] == ["v", "z"]
        assert trace.nodes["z"]["value"].shape == (FRAMES, N, 3)
    trace = traced(OverEverything(), data(), LENGTHS, "stepwise")
    assert {"v", "z_0", f"z_{FRAMES - 1}"} <= set(trace.nodes) and "z" not in trace.nodes


def test_draws_have_the_noise_that_is_given() -> None:
    torch.manual_seed(5)
    noise = {"z": torch.randn(FRAMES, N, 3).double(), "v": torch.randn(N, 2).double()}
    drawn = []
    for how in ("auto", "stepwise"):
        with given_noise(noise):
            trace = traced(OverEverything(), data(), LENGTHS, how)
        z = (
            trace.nodes["z"]["value"]
            if how == "auto"
            else torch.cat([trace.nodes[f"z_{t}"]["value"] for t in range(FRAMES)])
        )
        drawn.append((trace.nodes["v"]["value"], z))
        if how == "auto":
            q = trace.nodes["z"]["fn"]
            torch.testing.assert_close(z, q.mean + 0.3 * noise["z"])
            torch.testing.assert_close(trace.nodes["v"]["value"], trace.nodes["v"]["fn"].mean + 0.5 * noise["v"])
    torch.testing.assert_close(drawn[0], drawn[1])
    with mean_latents():
        trace = traced(OverEverything(), data(), LENGTHS)
    torch.testing.assert_close(trace.nodes["z"]["value"], trace.nodes["z"]["fn"].mean)


def test_generation_mode_feeds_the_model_its_own_output() -> None:
    """Against a loop by hand in which the last frame's expected power takes the place of the data."""
    model, values = Everything(), _latents()
    v, z = values["v"], values["z"]
    with free_running():
        trace = traced(poutine.condition(model, values), data(), LENGTHS)
    lstm = nn.LSTMCell(9, 5).double()
    lstm.load_state_dict({k.removesuffix("_l0"): p for k, p in model.rnn.net.state_dict().items()})
    h, c = torch.zeros(N, 5).double(), torch.zeros(N, 5).double()
    own, means = torch.zeros(N, 6).double(), []
    for t in range(FRAMES):
        if t > 0:
            h, c = lstm(torch.cat([own, z[t - 1]], -1), (h, c))
        own = model.decoder(z[t], h, v).mean
        means.append(own)
    torch.testing.assert_close(trace.nodes["x"]["fn"].mean, torch.stack(means))
    assert [n for n, s in trace.nodes.items() if s["type"] == "sample" and n in SIZES] == ["v", "z", "x"]
    stepwise = poutine.condition(model, frame_by_frame(values))
    with free_running():
        frames = traced(stepwise, data(), LENGTHS, "stepwise")
    torch.testing.assert_close(
        torch.cat([frames.nodes[f"x_{t}"]["fn"].mean for t in range(FRAMES)]), torch.stack(means)
    )
    teacher_forced = traced(poutine.condition(model, values), data(), LENGTHS)
    assert not torch.allclose(teacher_forced.nodes["x"]["fn"].mean, torch.stack(means))


@pytest.mark.parametrize("how", ["auto", "looped", "stepwise"])
def test_particles_reach_sites_inside_and_outside_time(how: str) -> None:
    x = data()
    with pyro.plate("particles", 6, dim=-3):
        guide_trace = traced(OverEverything(), x, LENGTHS, how)
        model_trace = traced(poutine.replay(Everything(), guide_trace), x, LENGTHS, how)
    found = terms(model_trace, guide_trace)
    assert found.elbo.shape == (6, N) and found.kl["v"].shape[-1] == N
    assert guide_trace.nodes["v"]["value"].shape == (6, 1, N, 2)
    drawn = guide_trace.nodes["z" if how != "stepwise" else "z_0"]["value"]
    assert len(torch.unique(drawn[:, 0, 0, 0])) == 6


def test_generated_without_a_guide_in_one_go_or_frame_by_frame() -> None:
    for how in ("auto", "stepwise"):
        trace = traced(Everything(), None, LENGTHS, how)
        x = (
            trace.nodes["x"]["value"]
            if how == "auto"
            else torch.cat([trace.nodes[f"x_{t}"]["value"] for t in range(FRAMES)])
        )
        assert x.shape == (FRAMES, N, 6) and bool(torch.isfinite(x).all())


def test_which_sequences_segments_are_of_is_found_on_the_cpu() -> None:
    """A GPU would be waited for; meta tensors, which have no values, cannot say."""
    rows = SequenceIndex.whole(torch.tensor([1, 0, 1, 2, 1]))
    found = {device: SharedPlate.of(rows, torch.empty(1, device=device)) for device in ("cpu", "meta")}
    here, there = found["cpu"], found["meta"]
    assert here.present.tolist() == [0, 1, 2]
    assert here.share.entry.tolist() == [1, 0, 1, 2, 1]
    assert there.present.shape == (3,) and {there.weight.device.type, there.share.entry.device.type} == {"meta"}


def test_a_corpus_is_standardised_on_the_cpu() -> None:
    devices = []

    class Scaling(torch.nn.Module):
        standardises = True

        def fit(self, sequences: Any) -> None:
            pass

        def forward(self, x: Tensor) -> Tensor:
            devices.append(x.device.type)
            return x

    model = small_pair("vae").model.to("meta")
    model.scaling = Scaling()  # type: ignore[assignment]  # attributes of a Module
    model.fit_input([data()[:, 0], data()[:, 1]])
    assert devices == ["cpu", "cpu"]


def test_a_distribution_is_left_as_it_is_where_its_score_is_refused() -> None:
    sites = Sites({"x": None}, torch.tensor([3, 3]), {"s": 1}, torch.zeros(()))
    of_all_frames = dist.Bernoulli(torch.full((3, 2, 1), 0.5)).to_event(1)
    with poutine.trace() as tracer:
        sites.register("s", of_all_frames, torch.ones(3, 2, 1))
    with pytest.raises(ValueError, match="'s' is drawn for all frames at once and is not reparametrised"):
        tracer.trace.compute_score_parts()
    of_all_frames.score_parts(torch.ones(3, 2, 1))
