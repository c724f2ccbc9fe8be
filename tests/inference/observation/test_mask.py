"""Missing bins: what is left out of the density, and what is filled in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from corpora.frontends.stft import Stft
from inference.handlers.free_running import free_running
from inference.observation.mask import filled, interpolated, present_bins
from inference.observation.noise import Noise, NoiseParameters
from inference.runs import create
from inference.settings.resolve import resolve
from tests.pairs import traced


@pytest.mark.parametrize("window, hop", [(64, 16), (64, 32)])
def test_every_frame_that_touches_a_gap_is_missing(window: int, hop: int) -> None:
    """A frame is kept if and only if samples in the gaps have no part in it."""
    frontend = Stft(1000, window, hop)
    gaps = [(0.2, 0.23), (0.5, 0.7), (0.97, 1.0)]
    x = np.random.RandomState(0).standard_normal(1000)
    changed = x.copy()
    for start, end in gaps:
        changed[round(start * 1000) : round(end * 1000)] += 1.0
    same = np.abs(frontend.spectrum(x) - frontend.spectrum(changed)).max(1) < 1e-9
    present = present_bins(len(same), window, hop, 1000, gaps=gaps)
    inner = slice(0, len(same) - window // hop)  # reflection at the end brings the last gap into frames that end there
    assert present.all(1).tolist()[inner] == same.tolist()[inner]
    assert bool((present.all(1) == present.any(1)).all())
    assert not present[~torch.from_numpy(same)].any()


def test_bins_above_a_cut_off_are_missing() -> None:
    present = present_bins(3, 512, 256, 16_000, above=4000.0)
    frequencies = np.arange(257) * 16_000 / 512
    assert present[0].numpy().tolist() == (frequencies + 2 * 16_000 / 512 <= 4000.0).tolist()


def test_interpolation_is_numpys() -> None:
    random = np.random.RandomState(1)
    y, present = random.exponential(size=(30, 4)), random.random((30, 4)) < 0.6
    present[:, 3] = False
    found = interpolated(torch.from_numpy(y), torch.from_numpy(present)).numpy()
    t = np.arange(30)
    for f in range(3):
        there = present[:, f]
        np.testing.assert_allclose(found[:, f], np.exp(np.interp(t, t[there], np.log(y[there, f]))))
    np.testing.assert_allclose(found[:, 3], y[present].min())


def test_a_masked_site_has_the_density_of_what_is_there() -> None:
    torch.set_default_dtype(torch.float64)
    prior, guide = create(resolve("dkf", overrides=["model.bins=5", "model.z_dim=2", "dtype=float64"]))
    y, present = torch.rand(6, 2, 5), torch.rand(6, 2, 5) < 0.5
    lengths = torch.tensor([6, 4])
    y[4:, 1] = 0.0
    silent = NoiseParameters(torch.zeros(2, 5, 1), torch.zeros(2, 1, 6), torch.ones(2, 1, 6))
    z = traced(guide, y, lengths).nodes["z"]["value"].detach()

    def density(data: torch.Tensor) -> torch.Tensor:
        import pyro.poutine as poutine

        with Noise(silent, present=present), free_running():
            run = traced(poutine.condition(prior, {"z": z}), data, lengths)
        run.compute_log_prob(lambda name, _: name == "x")
        return torch.as_tensor(run.nodes["x"]["log_prob"])

    found = density(y)
    v = prior.decoder(z).mean  # type: ignore[operator]  # an attribute of a module
    mask = torch.arange(6)[:, None] < lengths
    torch.testing.assert_close(found, ((-v.log() - y / v) * present).sum(-1) * mask)
    torch.testing.assert_close(density(filled(y, present, y + 7.0)), found)


def test_nothing_is_learned_from_what_is_missing() -> None:
    torch.set_default_dtype(torch.float64)
    start = NoiseParameters(torch.rand(1, 5, 2), torch.rand(1, 2, 6), torch.rand(1, 1, 6))
    y, v, present = torch.rand(6, 1, 5), torch.rand(6, 1, 5), torch.rand(6, 1, 5) < 0.5
    found = []
    for data in (y, filled(y, present, y + 7.0)):
        noise = Noise(start, "whg", present=present)
        noise.likelihood([v], data, None, slice(None))
        found.append(noise.parameters)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
