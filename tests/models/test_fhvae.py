"""FHVAE: its bound against closed forms and against the sum over all batches, the table, Eq. 5, and Table 4's sizes."""

from __future__ import annotations

import itertools
from typing import Any

import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from dvae_pyro.errors import UserError
from guides.fhvae import FHVAEGuide, FHVAEGuideSettings, s_vectors
from guides.registry import build_guide, guide_class
from inference.handlers.discriminative import discriminative
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Bound, Objective
from inference.prediction.reconstruction import reconstruct
from inference.prediction.segments import cut
from models.core.grouping import SequenceIndex
from models.fhvae import FHVAE, BetaVAESettings, FHVAESettings
from models.registry import build_model
from tests.support.fhvae import BINS, DIM, LENGTHS, ROW, data, noise, rows_of, small


def of_sequences(model: FHVAE, guide: FHVAEGuide, mu2: Tensor) -> tuple[Tensor, Tensor]:
    """By hand, latents at their posterior means: the bound of each segment given mu2, (5,), and log p(mu2), (2,)."""
    x = model.scaling(data()) * (torch.arange(4)[:, None] < LENGTHS)[..., None]
    q2: Any = guide.x_z2(x, LENGTHS)
    q1: Any = guide.x_z1(x, LENGTHS, q2.mean)
    h = model.h(torch.cat([q1.mean, q2.mean], -1).expand(4, -1, -1))[0]
    p: Any = model.decoder(h)
    likelihood = Normal(p.mean, p.variance.sqrt()).log_prob(x).sum(-1)
    likelihood = (likelihood * (torch.arange(4)[:, None] < LENGTHS)).sum(0)
    kl_z2 = kl_divergence(Normal(q2.mean, q2.variance.sqrt()), Normal(mu2[ROW], 0.5)).sum(-1)
    kl_z1 = kl_divergence(Normal(q1.mean, q1.variance.sqrt()), Normal(0.0, 1.0)).sum(-1)
    return likelihood - kl_z1 - kl_z2, Normal(0.0, 1.0).log_prob(mu2).sum(-1)


def test_segment_bound_is_that_of_the_paper() -> None:
    """Eq. 2: the conditional segment bound, and 1 / N of log p(mu2)."""
    model, guide = small()
    table: Any = guide.table
    with mean_latents():
        found = Objective(model, guide)(data(), LENGTHS, rows=rows_of([0, 1, 2, 3, 4])).terms
    of_segments, of_mu2 = of_sequences(model, guide, table.weight)
    torch.testing.assert_close(found.elbo, of_segments + of_mu2[ROW] / torch.bincount(ROW)[ROW])
    torch.testing.assert_close(found.kl["mu2"], -of_mu2[ROW] / torch.tensor([3.0, 3.0, 2.0, 3.0, 2.0]))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_mean_over_batches_is_the_sequence_bound(size: int) -> None:
    """Appendix A, without the constants of q(mu2), which is a point here: over all batches of a size the ELBO of the
    program, plates and all, is on average the sum over sequences; an objective's loss is the batch's share of it.
    """
    model, guide = small()
    table: Any = guide.table
    of_segments, of_mu2 = of_sequences(model, guide, table.weight)
    expected = of_segments.sum() + of_mu2.sum()
    elbos, losses = [], []
    for chosen in itertools.combinations(range(5), size):
        batch = data()[:, list(chosen)], LENGTHS[list(chosen)]
        frames = int(batch[1].max())
        args = (batch[0][:frames], batch[1], "auto", rows_of(list(chosen)))
        with given_noise(noise(list(chosen))):
            elbos.append(-Trace_ELBO(max_plate_nesting=2).differentiable_loss(model, guide, *args))
            losses.append(Objective(model, guide)(args[0], args[1], rows=args[3]).loss)
    with given_noise(noise([0, 1, 2, 3, 4])):
        whole = Objective(model, guide)(data(), LENGTHS, rows=rows_of([0, 1, 2, 3, 4]))
    torch.testing.assert_close(torch.stack(elbos).mean(), -whole.loss)
    torch.testing.assert_close(torch.stack(losses) * 5 / size, -torch.stack(elbos))
    with mean_latents():  # and that is the one by hand
        analytic = Objective(model, guide, "analytic")(data(), LENGTHS, rows=rows_of([0, 1, 2, 3, 4]))
    torch.testing.assert_close(-analytic.loss, expected)


def test_only_the_rows_of_a_batch_are_touched() -> None:
    model, guide = small(table=100_000)
    table: Any = guide.table
    row = torch.tensor([7, 99_999, 7])
    rows = SequenceIndex(row, torch.tensor([2, 1, 2]), torch.tensor([3, 4, 8]), 100_000, 10**6, trained=True)
    state = torch.get_rng_state()
    with mean_latents():
        loss = Objective(model, guide)(data()[:, :3], LENGTHS[:3], rows=rows).loss
    assert torch.equal(torch.get_rng_state(), state)  # no permutation of 10^6 was drawn
    loss.backward()
    gradient = table.weight.grad.coalesce()
    assert gradient.indices().flatten().tolist() == [7, 99_999]
    alone, _ = small(table=None)
    assert sum(p.numel() for p in alone.parameters()) == sum(p.numel() for p in model.parameters())


def test_gradient_of_the_table_is_that_of_finite_differences() -> None:
    model, guide = small()
    table: Any = guide.table

    def loss() -> Tensor:
        with mean_latents():
            bound: Bound = Objective(model, guide, "analytic")(data()[:, :3], LENGTHS[:3], rows=rows_of([0, 1, 2]))
        return bound.loss

    loss().backward()
    gradient = table.weight.grad.to_dense()
    for place in itertools.product(range(2), range(DIM)):
        values = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                table.weight[place] += step
                values.append(loss().item())
                table.weight[place] -= step
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "fc"])
def test_equation_5_maximises_the_bound_of_a_sequence(cell: str) -> None:
    model, guide = small(cell, table=None, z2_variance=0.4)

    def bound(mu2: Tensor) -> Tensor:
        rows = SequenceIndex.whole(ROW)._replace(values=mu2)
        with mean_latents():
            found: Bound = Objective(model, guide, "analytic")(data(), LENGTHS, rows=rows)
        return -found.loss

    best = s_vectors(guide.z2_mean(data(), LENGTHS), ROW, 2, 0.4).detach().requires_grad_()
    at_best = bound(best)
    (gradient,) = torch.autograd.grad(at_best, best)
    assert float(gradient.abs().max()) < 1e-12
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        away = 0.1 * torch.randn(2, DIM, generator=generator, dtype=torch.float64)
        assert bound(best.detach() + away).item() < at_best.item()
    with mean_latents():  # which is what a guide without a table does by itself
        by_itself = -Objective(model, guide, "analytic")(data(), LENGTHS, rows=SequenceIndex.whole(ROW)).loss
    torch.testing.assert_close(by_itself, at_best)


def test_what_is_generated_shares_its_sequence() -> None:
    model, _ = small(table=None)
    with torch.no_grad():
        for layer in model.parameters():
            layer.mul_(3.0)
    trace: Any = poutine.trace(model).get_trace(None, LENGTHS, "auto", SequenceIndex.whole(ROW))
    assert trace.nodes["mu2"]["value"].shape == (2, DIM)
    torch.testing.assert_close(trace.nodes["z2"]["fn"].mean, trace.nodes["mu2"]["value"][ROW])
    torch.testing.assert_close(trace.nodes["z2"]["fn"].variance, torch.full((5, DIM), 0.25, dtype=torch.float64))


@pytest.mark.parametrize(
    ("cell", "width", "published", "more"),
    [
        ("lstm", 256, 1_060_064, 4 * 256),
        ("gru", 256, 809_440, 3 * 256),
        ("rnn", 256, 308_192, 256),
        ("fc", 512, 3_338_944, 0),
    ],
)
def test_sizes_are_those_of_table_4(cell: str, width: int, published: int, more: int) -> None:
    """Published with one bias vector in each of three cells; PyTorch's have two."""
    settings = FHVAESettings(cell=cell, h_dim=width)
    model = build_model(settings)
    guide = build_guide(model, settings, FHVAEGuideSettings(h_dim=width))
    assert sum(p.numel() for part in (model, guide) for p in part.parameters()) == published + 3 * more


def test_encoders_read_the_last_state_of_every_layer() -> None:
    """Two layers by the equations of an LSTM, on segments of different lengths; the decoder reads the layer on top."""
    torch.manual_seed(0)
    settings = FHVAESettings(bins=BINS, z_dim=DIM, h_dim=5, h_layers=2, segment=4)
    model: Any = build_model(settings).double()
    guide: Any = build_guide(model, settings, FHVAEGuideSettings(h_dim=4, h_layers=2)).double()
    encoder = guide.x_z2

    def lstm(net: Any, inputs: list[Tensor]) -> list[Tensor]:
        h = c = torch.zeros(net.hidden_size, dtype=torch.float64)
        states = []
        for u in inputs:
            gates = net.weight_ih_l0 @ u + net.bias_ih_l0 + net.weight_hh_l0 @ h + net.bias_hh_l0
            i, f, g, o = gates.chunk(4)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            states.append(h)
        return states

    q = encoder(data(), LENGTHS)
    for n, length in enumerate(LENGTHS.tolist()):
        first = lstm(encoder.net.net, [*data()[:length, n]])
        second = lstm(encoder.above[0].net, first)
        mean, log_variance = encoder.head.affine(torch.cat([first[-1], second[-1]])).chunk(2)
        torch.testing.assert_close(q.mean[n], mean)
        torch.testing.assert_close(q.variance[n].log(), log_variance)
    assert model.h.net.num_layers == 2 and model.likelihood.affine.in_features == 5
    gates = [getattr(model.h.net, f"bias_ih_l{layer}")[5:10] for layer in range(2)]
    assert all(torch.equal(gate, torch.ones(5, dtype=torch.float64)) for gate in gates)
    with pytest.raises(UserError, match=r"guide\.h_layers=2: .*model\.cell=fc"):
        flat = FHVAESettings(cell="fc")
        build_guide(build_model(flat), flat, FHVAEGuideSettings(h_layers=2))
    with pytest.raises(UserError, match=r"model\.h_layers=3"):
        build_model(BetaVAESettings(cell="fc", h_layers=3))


def test_sizes_of_the_scalable_fhvae() -> None:
    """Two LSTMs of 256 everywhere, z1 and z2 of 32, 80 bins, counted as its public code has them, and one bias more."""
    settings = FHVAESettings(z_dim=32, h_layers=2)
    model = build_model(settings)
    guide = build_guide(model, settings, FHVAEGuideSettings(h_layers=2))
    lstm = [4 * 256 * (n + 256 + 1) for n in (80, 256, 80 + 32, 256, 32 + 32, 256)]
    heads = 2 * 2 * (512 + 1) * 32 + 2 * (256 + 1) * 80
    assert sum(p.numel() for part in (model, guide) for p in part.parameters()) == sum(lstm) + heads + 6 * 4 * 256


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "fc"])
def test_long_sequences_are_decoded_in_segments(cell: str) -> None:
    model, guide = small(cell, table=None)
    x = torch.cat([data()[:, :3], data()[:, 2:].flip(1)])  # three sequences: of 8, 7 and 5 frames
    lengths = torch.tensor([8, 7, 5])
    x = x * (torch.arange(8)[:, None] < lengths)[..., None]
    made = reconstruct(model, guide, x, lengths)
    for n, length in enumerate(lengths.tolist()):
        first, second = x[:4, n : n + 1], x[4:length, n : n + 1]
        segments = cut(x[:length, n : n + 1], lengths[n : n + 1], 4)
        assert segments.lengths.tolist() == [4, length - 4]
        both = torch.cat([first, torch.nn.functional.pad(second, (0, 0, 0, 0, 0, 4 - len(second)))], 1)
        rows = SequenceIndex.whole(torch.tensor([0, 0]))
        with mean_latents():
            guide_trace = poutine.trace(guide).get_trace(both, segments.lengths, "auto", rows)
        trace: Any = poutine.trace(poutine.replay(model, guide_trace)).get_trace(both, segments.lengths, "auto", rows)
        expected = model.scaling.inverse(trace.nodes["x"]["fn"].mean)
        torch.testing.assert_close(made.mean[:4, n], expected[:, 0])
        torch.testing.assert_close(made.mean[4:length, n], expected[: length - 4, 1])
        with mean_latents():
            alone = Objective(model, guide)(both, segments.lengths, rows=rows).terms
        torch.testing.assert_close(made.terms.elbo[n], alone.elbo.sum())


def test_decoded_data_are_on_the_scale_they_came_on() -> None:
    model, guide = small(table=None)
    x = data()
    shifted = small(table=None)
    shifted[0].fit_input([(10.0 * x + 7.0).flatten(0, 1)])
    mask = (torch.arange(4)[:, None] < LENGTHS)[..., None]
    a = reconstruct(model, guide, x, LENGTHS).mean
    b = reconstruct(*shifted, 10.0 * x + 7.0, LENGTHS).mean
    torch.testing.assert_close((10.0 * a + 7.0) * mask, b * mask)
    assert float(reconstruct(model, guide, x, LENGTHS).terms.elbo.sum()) == pytest.approx(
        float(reconstruct(*shifted, 10.0 * x + 7.0, LENGTHS).terms.elbo.sum())
    )


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn", "fc"])
def test_padding_a_short_segment_changes_no_number(cell: str) -> None:
    """Bound, the discriminative term, gradients and means of segments beside longer ones, and each by itself."""
    model, guide = small(cell)
    lengths = torch.tensor([4, 1, 3, 4, 2])
    x = torch.where((torch.arange(4)[:, None] < lengths)[..., None], data(), torch.full((), 1e3, dtype=torch.float64))
    x = x * (torch.arange(4)[:, None] < lengths)[..., None]

    def measured(chosen: list[int]) -> tuple[Bound, list[Tensor]]:
        for part in (model, guide):
            part.zero_grad()
        few = lengths[chosen]
        with given_noise(noise(chosen)), discriminative(10.0):
            bound = Objective(model, guide)(x[: int(few.max()), chosen], few, rows=rows_of(chosen))
        bound.loss.backward()
        gradients = [p.grad.to_dense() for part in (model, guide) for p in part.parameters() if p.grad is not None]
        return bound, gradients

    together, gradients = measured([0, 1, 2, 3, 4])
    total = [torch.zeros_like(gradient) for gradient in gradients]
    for n, length in enumerate(lengths.tolist()):
        alone, own = measured([n])
        torch.testing.assert_close(alone.terms.elbo[0], together.terms.elbo[n])
        torch.testing.assert_close(alone.factors["discriminative"][0], together.factors["discriminative"][n])
        total = [a + b for a, b in zip(total, own, strict=True)]
        own_q, q = guide.posteriors(x[:length, n : n + 1], lengths[n : n + 1]), guide.posteriors(x, lengths)
        for latent in ("z1", "z2"):
            torch.testing.assert_close(own_q[latent].mean[0], q[latent].mean[n])
            torch.testing.assert_close(own_q[latent].variance[0], q[latent].variance[n])
    for whole, parts in zip(gradients, total, strict=True):
        torch.testing.assert_close(whole, parts)


def test_what_cannot_work_is_refused() -> None:
    model, guide = small()
    with pytest.raises(UserError, match=r" 4 frames \(model\.segment\).* 6"):
        model(torch.zeros(6, 1, BINS, dtype=torch.float64), torch.tensor([6]))
    with pytest.raises(UserError, match="guide 'all-markov' .*model 'fhvae'"):
        guide_class("fhvae", "all-markov")
    with pytest.raises(UserError, match="'fhvae'.*--guide paper"):
        guide_class("fhvae", "compliant")
    with pytest.raises(UserError, match=r" 2 .*mu2.* 3 "):
        guide(data(), LENGTHS, "auto", rows_of([0, 1, 2, 3, 4])._replace(sequences=3))
    with pytest.raises(UserError, match=r"model\.cell.*'lstn'.*'lstm'"):
        build_model(BetaVAESettings(cell="lstn"))
    with pytest.raises(UserError, match=r"model\.z2_variance"):
        build_model(FHVAESettings(z2_variance=0.0))
