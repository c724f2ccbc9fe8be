"""FHVAE against what its authors' code computes (shared/oracles/fhvae/FORMAT.md): every conditional, KL, bound, the
discriminative term, gradients and s-vectors, in double precision. Names of the oracle are the paper's, but for weights.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pyro.poutine as poutine
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from guides.fhvae import FHVAEGuide, FHVAEGuideSettings, s_vectors
from guides.registry import build_guide
from inference.handlers.discriminative import discriminative
from inference.handlers.given_noise import given_noise
from inference.handlers.mean_latents import mean_latents
from inference.objectives.elbo import Bound, Objective
from inference.settings.tree import OptimSettings
from inference.training.optimisers import build_optimiser
from models.core.grouping import SequenceIndex
from models.fhvae import FHVAE, FHVAESettings
from models.nn.layers import MLP
from models.registry import build_model
from tests.oracles import agrees, figures
from tests.pairs import traced

CELLS = {
    "lstm": ("multi_rnn_cell/cell_0/basic_lstm_cell", (0, 2, 1, 3)),
    "rnn": ("multi_rnn_cell/cell_0/basic_rnn_cell", (0,)),
}
"""The public name of a cell, and where torch has its gates: input, candidate, forget, output."""
ALPHA = 10.0


Read = Callable[[Tensor], Tensor]
"""What is read of each of our parameters: its gradient, or the places of its entries."""
Selection = Callable[[Read], Tensor]
"""A public weight as entries of our parameters, in its own order."""


class PublicGRU(nn.Module):
    """The GRU of the public code, whose reset gate acts on the state before the product; PyTorch's acts after it."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.gates = nn.Linear(in_dim + out_dim, 2 * out_dim)
        self.candidate = nn.Linear(in_dim + out_dim, out_dim)

    def forward(self, u: Tensor, state: tuple[Tensor, ...] | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
        h = u.new_zeros(*u.shape[:-3], u.shape[-2], self.out_dim) if state is None else state[0]
        outputs = []
        for x in u.unbind(-3):
            r, keep = self.gates(torch.cat([x, h], -1)).sigmoid().chunk(2, -1)
            h = keep * h + (1.0 - keep) * self.candidate(torch.cat([x, r * h], -1)).tanh()
            outputs.append(h)
        return torch.stack(outputs, -3), (h,)

    def public(self, name: str, order: Tensor | None = None) -> dict[str, Selection]:
        rows = None if order is None else torch.cat([order, torch.arange(self.in_dim, self.in_dim + self.out_dim)])
        place = f"{name}/multi_rnn_cell/cell_0/gru_cell"
        return _hidden(f"{place}/gates", self.gates, rows) | _hidden(f"{place}/candidate", self.candidate, rows)


class Case(NamedTuple):
    """A case of the oracle: the pair with its weights, the batch, and the figures.

    Attributes:
        cell: of `models.nn.segment_networks.CELLS`.
        x: segments (T, N, F).
        rows: their sequences among the M of the table.
        noise: of z2 and z1.
    """

    cell: str
    model: FHVAE
    guide: FHVAEGuide
    x: Tensor
    rows: SequenceIndex
    noise: dict[str, Tensor]
    expected: Mapping[str, Any]

    @property
    def lengths(self) -> Tensor:
        return torch.full((self.x.shape[1],), len(self.x))


def _maps(name: str, affine: nn.Linear) -> dict[str, Selection]:
    """A head of ours as the two of the public code."""

    def half(which: int, part: str) -> Selection:
        return lambda read: read(getattr(affine, part)).chunk(2)[which].t()

    return {
        f"{name}/{kind}/{theirs}": half(which, ours)
        for which, kind in enumerate(("mu", "logvar"))
        for theirs, ours in (("weights", "weight"), ("biases", "bias"))
    }


def _hidden(name: str, affine: nn.Linear, order: Tensor | None = None) -> dict[str, Selection]:
    def weights(read: Read) -> Tensor:
        matrix = read(affine.weight).t()
        return matrix if order is None else matrix[order]

    return {f"{name}/weights": weights, f"{name}/biases": lambda read: read(affine.bias)}


def _cell(name: str, cell: str, net: Any, order: Tensor | None = None) -> dict[str, Selection]:
    public, gates = CELLS[cell]

    def gated(of_torch: Tensor) -> Tensor:
        parts = of_torch.chunk(len(gates))
        return torch.cat([parts[gate] for gate in gates])

    def weights(read: Read) -> Tensor:
        inputs = gated(read(net.weight_ih_l0)).t()
        return torch.cat([inputs if order is None else inputs[order], gated(read(net.weight_hh_l0)).t()])

    return {f"{name}/{public}/weights": weights, f"{name}/{public}/biases": lambda read: gated(read(net.bias_ih_l0))}


def _public(cell: str, model: FHVAE, guide: FHVAEGuide) -> dict[str, Selection]:
    """Each public weight by its name, as what it is of our parameters: a selection and an order of their entries."""
    table = cast(nn.Embedding, guide.table)
    found: dict[str, Selection] = {"mu1/mu1_table": lambda read: read(table.weight)}
    z1, z2 = model.z_dim, model.z2_dim
    order = torch.cat([torch.arange(z1, z1 + z2), torch.arange(z1)])  # their decoder sees [z2; z1], ours [z1; z2]
    for name, encoder in (("z1_enc", guide.x_z2), ("z2_enc", guide.x_z1)):
        net: Any = encoder.net
        if cell == "fc":
            found |= _hidden(f"{name}/{name}_fc0", net[0])
        elif cell == "gru":
            found |= net.public(f"{name}/{name}_1L_rec")
        else:
            found |= _cell(f"{name}/{name}_1L_rec", cell, net.net)
        found |= _maps(f"{name}/{name}_lat", encoder.head.affine)
    likelihood: Any = model.likelihood
    if cell == "fc":
        found |= _hidden("dec/dec_fc0", likelihood.net[0], order)
        found |= _maps("dec/dec_lat", likelihood.head.affine)
    else:
        of_net: Any = model.h
        name = "dec/dec_rec_and_recon_x"
        found |= of_net.public(name, order) if cell == "gru" else _cell(name, cell, of_net.net, order)
        found |= _maps("dec/dec_rec_and_recon_x/recon_x_f", likelihood.affine)
    return found


def _given(folder: Path, case: Mapping[str, Any]) -> dict[str, Tensor]:
    """What a case gives, in double precision: of its file, or by the formula."""
    if case.get("file"):
        with np.load(folder / case["file"]) as arrays:
            return {name.replace("|", "/"): torch.from_numpy(value) for name, value in arrays.items()}
    shapes = {name: tuple(summary["shape"]) for name, summary in case["given"].items()}
    found = {}
    for name in (name for name in shapes if name.startswith("w.")):
        public, shape = name.removeprefix("w."), shapes[name]
        scale = 1.0 if public.endswith("table") else 0.5 if len(shape) == 1 else 1.0 / np.sqrt(shape[0])
        drawn = np.random.RandomState(zlib.crc32(public.encode())).standard_normal(shape) * scale
        found[name] = torch.from_numpy(drawn.astype(np.float32))
    generator = np.random.RandomState(11)
    for name in ("x", "eps.z2", "eps.z1"):
        found[name] = torch.from_numpy(generator.standard_normal(shapes[name]).astype(np.float32))
    labels = torch.tensor([0, 3, 6, 9, 12, 15, 18, 0])
    return {**found, "labels": labels, "counts": 5.0 + 2.0 * labels}


def _load(shared: Path, name: str, **more: Any) -> Case:
    folder, case = figures(shared, "fhvae", name)
    given = _given(folder, case)
    for key, summary in case["given"].items():
        agrees(given[key], summary, key)
    cell = {"small_rnn": "rnn", "small_gru": "gru", "small_fc": "fc"}.get(name, "lstm")
    small = name != "full"
    x, labels, counts = given["x"].double(), given["labels"], given["counts"]
    frames, bins = x.shape[2:]
    settings = FHVAESettings(
        bins=bins,
        z_dim=given["eps.z1"].shape[1],
        z2_dim=given["eps.z2"].shape[1],
        cell=cell,
        h_dim=6 if small else 256,
        segment=frames,
        normalise=False,
        variance_floor=0.0,
        **more,
    )
    model = cast(FHVAE, build_model(settings).double())
    sequences = len(given["w.mu1/mu1_table"])
    of_guide = FHVAEGuideSettings(h_dim=4 if small else 256, sequences=sequences)
    guide = cast(FHVAEGuide, build_guide(model, settings, of_guide).double())
    cast(Any, guide.table).sparse = False  # as training does where every row has a gradient
    rows = SequenceIndex(labels, counts, torch.arange(len(labels)), sequences, 1000, trained=True)
    noise = {latent: given[f"eps.{latent}"].double() for latent in ("z2", "z1")}
    if cell == "gru":
        for owner, name in ((guide.x_z2, "net"), (guide.x_z1, "net"), (model, "h")):
            ours: Any = getattr(owner, name)
            setattr(owner, name, PublicGRU(ours.net.input_size, ours.out_dim).double())
    found = Case(cell, model, guide, x[:, 0].transpose(0, 1), rows, noise, case["expected"])
    _take(found, {key.removeprefix("w."): value for key, value in given.items() if key.startswith("w.")})
    return found


@torch.no_grad()
def _take(case: Case, weights: Mapping[str, Tensor]) -> None:
    """Give the pair the public weights."""
    public = _public(case.cell, case.model, case.guide)
    assert {*public} == {*weights}
    parameters = [*case.model.parameters(), *case.guide.parameters()]
    filled = {id(p): torch.zeros_like(p, dtype=torch.bool) for p in parameters}
    for name, of in public.items():
        for parameter in parameters:
            places = of(_places_in(parameter)).flatten().long()
            here = places >= 0
            parameter.view(-1)[places[here]] = weights[name].double().flatten()[here]
            filled[id(parameter)].view(-1)[places[here]] = True
    nets: list[Any] = [part for module in (case.model, case.guide) for part in module.modules()]
    for net in nets:
        if isinstance(net, nn.RNNBase):
            if isinstance(net, nn.LSTM):  # a constant of the public cell
                forget: Any = net.bias_ih_l0
                forget[net.hidden_size : 2 * net.hidden_size] += 1.0
            of_state: Any = net.bias_hh_l0
            of_state.zero_()
            filled[id(of_state)].fill_(True)
    assert all(bool(f.all()) for f in filled.values())


def _places_in(parameter: Tensor) -> Read:
    """The number of each entry of this parameter, and -1 in others."""
    numbers = torch.arange(parameter.numel(), dtype=torch.float64).reshape(parameter.shape)
    return lambda p: numbers if p is parameter else torch.full_like(p, -1.0)


def _computed(case: Case, handler: Any) -> dict[str, Any]:
    """All that is computed of a batch, by the oracle's names."""
    args = (case.x, case.lengths, "auto", case.rows)
    with torch.no_grad(), handler, discriminative(ALPHA):
        of_guide = traced(case.guide, *args)
        of_model = traced(poutine.replay(case.model, of_guide), *args)
        bound: Bound = Objective(case.model, case.guide, "analytic")(case.x, case.lengths, rows=case.rows)
    found: dict[str, Any] = {"mu2": cast(nn.Embedding, case.guide.table).weight[case.rows.row]}
    for latent in ("z2", "z1"):
        q, p = (trace.nodes[latent]["fn"] for trace in (of_guide, of_model))
        found[f"{latent}_mean"], found[f"{latent}_logvar"] = q.mean, q.variance.log()
        found[latent] = of_guide.nodes[latent]["value"]
        found[f"neg_kl_{latent}"] = -kl_divergence(q, p)
        torch.testing.assert_close(bound.terms.kl[latent], -found[f"neg_kl_{latent}"])
    decoded = of_model.nodes["x"]["fn"]
    found["x_mean"], found["x_logvar"] = (v.transpose(0, 1)[:, None] for v in (decoded.mean, decoded.variance.log()))
    found["log_px"] = decoded.log_prob(case.x).sum(0)
    found["log_pmu2"] = -bound.terms.kl["mu2"] * case.rows.counts
    found["log_qy"] = bound.factors["discriminative"]
    found["lb"] = bound.terms.elbo
    found["lb_alpha"] = bound.terms.elbo + ALPHA * bound.factors["discriminative"]
    found["total_loss"] = bound.loss / len(case.lengths)
    return found


def _regulariser(case: Case) -> Tensor:
    """1e-4 / 2 times the squares of the hidden fully connected layers' matrices; recurrent networks have none."""
    matrices = [affine.weight for net in hidden(case.model, case.guide) for affine in net.affine]
    return 0.5e-4 * sum((matrix.square().sum() for matrix in matrices), torch.zeros((), dtype=torch.float64))


def hidden(model: FHVAE, guide: FHVAEGuide) -> list[MLP]:
    """The networks of hidden fully connected layers."""
    return [part for module in (model, guide) for part in module.modules() if isinstance(part, MLP)]


def _check(case: Case) -> None:
    expected = case.expected
    checked = {"s_vectors.labels"}
    for path in ("mean", "noise"):
        agrees(_regulariser(case), expected[f"{path}.reg_loss"], "reg_loss")
        checked.add(f"{path}.reg_loss")
    for path, handler in (("mean", mean_latents()), ("noise", given_noise(case.noise))):
        for name, value in _computed(case, handler).items():
            value = value + _regulariser(case) if name == "total_loss" else value
            agrees(value, expected[f"{path}.{name}"], f"{path}.{name}")
            checked.add(f"{path}.{name}")
    labels, entry = case.rows.row.unique(return_inverse=True)
    agrees(labels.double(), expected["s_vectors.labels"], "s_vectors.labels")
    with torch.no_grad():
        means = case.guide.z2_mean(case.x, case.lengths)
    agrees(s_vectors(means, entry, len(labels), 0.25), expected["s_vectors"], "s_vectors")
    with given_noise(case.noise), discriminative(ALPHA):
        bound: Bound = Objective(case.model, case.guide, "analytic")(case.x, case.lengths, rows=case.rows)
    (bound.loss / len(case.lengths) + _regulariser(case)).backward()
    for name, of in _public(case.cell, case.model, case.guide).items():
        agrees(of(lambda p: cast(Tensor, p.grad)), expected[f"grad.{name}"], name)
        checked.add(f"grad.{name}")
    assert checked | {"s_vectors"} == {*expected}


@pytest.mark.parametrize("name", ["small", "small_rnn", "small_gru", "small_fc"])
def test_weight_decay_is_the_public_regulariser(shared: Path, name: str) -> None:
    """Its gradient, weight decay times weight, is of the parameters of the groups that have any."""
    case = _load(shared, name)
    settings = OptimSettings(weight_decay=1e-4, weight_decay_on="hidden")
    optimiser = build_optimiser(settings, Objective(case.model, case.guide))
    groups = optimiser.param_groups
    decayed = [p for group in groups if group["weight_decay"] == 1e-4 for p in group["params"]]
    others = [p for group in groups if group["weight_decay"] == 0.0 for p in group["params"]]
    every = [*case.model.parameters(), *case.guide.parameters()]
    assert sorted(map(id, [*decayed, *others])) == sorted(map(id, every))
    regulariser = 0.5e-4 * sum((p.square().sum() for p in decayed), torch.zeros((), dtype=torch.float64))
    agrees(regulariser, case.expected["noise.reg_loss"], "reg_loss")


@pytest.mark.parametrize("name", ["small", "small_rnn", "small_fc", "full"])
def test_all_is_as_the_public_code_computes_it(shared: Path, name: str) -> None:
    _check(_load(shared, name))


def test_of_a_gru_all_but_its_cell_is_as_in_the_public_code(shared: Path) -> None:
    """With the public cell in the place of PyTorch's, whose reset gate acts elsewhere."""
    _check(_load(shared, "small_gru"))
