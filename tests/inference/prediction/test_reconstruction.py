"""Whole utterances through a model of segments: cut, decoded and put together, against one segment after the other."""

from __future__ import annotations

from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from guides.fhvae import FHVAEGuideSettings, s_vectors
from guides.registry import build_guide
from inference.prediction.reconstruction import decode, infer, kl_by_dimension, reconstruct
from inference.prediction.segments import cut
from inference.runs import create
from inference.settings.resolve import resolve
from models.fhvae import FHVAESettings
from models.registry import build_model

SIZE, BINS = 4, 3
LENGTHS = torch.tensor([11, 8, 3])


def small(cell: str = "lstm") -> tuple[Any, Any]:
    torch.manual_seed(3)
    settings = FHVAESettings(bins=BINS, z_dim=2, cell=cell, h_dim=5, segment=SIZE)
    model: Any = build_model(settings)
    guide: Any = build_guide(model, settings, FHVAEGuideSettings(h_dim=4))
    model.double(), guide.double()
    model.fit_input([data().flatten(0, 1)])
    return model, guide


def data() -> Tensor:
    x = torch.randn(11, 3, BINS, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 2.0 + 1.0
    return x * (torch.arange(11)[:, None] < LENGTHS)[..., None]


def by_hand(model: Any, guide: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One segment (S, D) alone: its frames decoded, and the means of z1 and z2."""
    scaled, length = model.scaling(x[:, None]), torch.tensor([len(x)])
    z2 = guide.x_z2(scaled, length).mean
    z1 = guide.x_z1(scaled, length, z2).mean
    latents = torch.cat([z1, z2], -1)
    if model.cell == "fc":
        return model.scaling.inverse(model.likelihood(latents, len(x)).mean)[:, 0], z1[0], z2[0]
    h = model.h(latents.expand(len(x), 1, -1))[0]
    return model.scaling.inverse(model.decoder(h).mean)[:, 0], z1[0], z2[0]


@pytest.mark.parametrize("cell", ["lstm", "fc"])
@pytest.mark.parametrize("hop", [None, 4, 3, 1])
def test_every_frame_is_the_mean_of_what_its_segments_make_of_it(cell: str, hop: int | None) -> None:
    """The last, shorter segment too: nothing of the padding is in it, nor is it in any frame."""
    model, guide = small(cell)
    made = reconstruct(model, guide, data(), LENGTHS, hop=hop)
    for n, length in enumerate(LENGTHS.tolist()):
        x = data()[:length, n]
        total, count = torch.zeros(11, BINS).double(), torch.zeros(11, 1).double()
        start = 0
        with torch.no_grad():
            while True:
                total[start : start + SIZE][: length - start] += by_hand(model, guide, x[start : start + SIZE])[0]
                count[start : min(start + SIZE, length)] += 1.0
                if start + SIZE >= length:
                    break
                start += SIZE if hop is None else hop
        assert bool((count[:length] > 0).all())
        torch.testing.assert_close(made.mean[:, n], total / count.clamp_min(1.0))


def test_bounds_and_what_a_sequence_shares_are_those_of_segments_that_follow_one_another() -> None:
    model, guide = small()
    apart, overlapping = (reconstruct(model, guide, data(), LENGTHS, hop=hop) for hop in (None, 1))
    torch.testing.assert_close(overlapping.terms.elbo, apart.terms.elbo)
    torch.testing.assert_close(overlapping.latents["mu2"], apart.latents["mu2"])
    assert overlapping.latents["z2"].shape == (8 + 5 + 1, 2) and apart.latents["z2"].shape == (3 + 2 + 1, 2)
    with torch.no_grad():
        segments = [
            (n, data()[s : s + SIZE, n][: k - s]) for n, k in enumerate(LENGTHS.tolist()) for s in range(0, k, 4)
        ]
        means = torch.stack([by_hand(model, guide, x)[2] for _, x in segments])
    row = torch.tensor([n for n, _ in segments])
    torch.testing.assert_close(apart.latents["mu2"], s_vectors(means, row, 3, 0.25))


@pytest.mark.parametrize("hop", [None, 3])
def test_what_is_inferred_is_decoded_again(hop: int | None) -> None:
    model, guide = small()
    made = reconstruct(model, guide, data(), LENGTHS, hop=hop)
    latents = infer(model, guide, data(), LENGTHS, hop=hop)
    torch.testing.assert_close(decode(model, latents, data(), LENGTHS, hop=hop), made.mean)
    row = cut(data(), LENGTHS, SIZE, hop=hop).row
    other = decode(model, {**latents, "z2": latents["z2"] + (row == 1)[:, None]}, data(), LENGTHS, hop=hop)
    assert (other != made.mean).any(-1).any(0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("model", "hop", "said"), [("fhvae", 0, "=0.* 20"), ("beta_vae", 21, "=21.* 20"), ("dkf", 10, "=10.*'dkf'")]
)
def test_hops_that_say_nothing_or_leave_frames_out_are_refused(model: str, hop: int, said: str) -> None:
    assert resolve("fhvae", overrides=["evaluation.segment_hop=10"]).evaluation.segment_hop == 10
    with pytest.raises(UserError, match=rf"evaluation\.segment_hop{said}"):
        resolve(model, overrides=[f"evaluation.segment_hop={hop}"])


@pytest.mark.parametrize("name", ["vae", "dkf", "vrnn", "dsae", "stcn"])
def test_kl_by_dimension_sums_to_the_kl_of_each_latent_without_padding(name: str) -> None:
    settings = resolve(name, overrides=["dtype=float64"] if name == "stcn" else ["dtype=float64", "model.bins=9"])
    model, guide = create(settings)
    x = torch.rand(7, 3, model.x_dim).double() + 0.1
    lengths = torch.tensor([7, 4, 2])
    x = x * (torch.arange(7)[:, None] < lengths)[..., None]
    kl = kl_by_dimension(model.eval(), guide.eval(), x, lengths)
    terms = reconstruct(model, guide, x, lengths).terms
    assert set(kl) == set(terms.kl)
    for site, by_dimension in kl.items():
        torch.testing.assert_close(by_dimension.sum(), terms.kl[site].sum())
    alone = [kl_by_dimension(model, guide, x[:n, [i]], torch.tensor([n])) for i, n in enumerate(lengths.tolist())]
    for site, by_dimension in kl.items():
        torch.testing.assert_close(by_dimension, sum(one[site] for one in alone))


def test_kl_by_dimension_is_the_closed_form_of_gaussians() -> None:
    model, guide = create(resolve("vae", overrides=["dtype=float64", "model.bins=9"]))
    x = torch.rand(5, 2, 9).double() + 0.1
    lengths = torch.tensor([5, 5])
    q: Any = poutine.trace(guide).get_trace(x, lengths).nodes["z"]["fn"]
    while hasattr(q, "base_dist"):
        q = q.base_dist
    expected = 0.5 * (q.loc**2 + q.scale**2 - 1.0) - q.scale.log()  # from the standard Gaussian
    torch.testing.assert_close(kl_by_dimension(model, guide, x, lengths)["z"], expected.sum((0, 1)))
