"""Glorot's initialisation: bound and variance of each map that the public codes have, gates that start open."""

from __future__ import annotations

from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from inference.runs import create
from inference.settings.resolve import resolve
from models.core.affine import AffineMaps
from models.nn.initialisation import glorot, open_gates
from models.nn.segment_networks import recurrent
from models.nn.wavenet import CausalConv, WaveNetBlock


def _drawn_within(weight: Tensor, inputs: int, outputs: int) -> None:
    """Uniform within the bound: the largest of many is near it, their variance a third of its square. Errors of 1 in
    10^6 or less.
    """
    bound = sqrt(6.0 / (inputs + outputs))
    count = weight.numel()
    assert bound * (1.0 - 14.0 / count) < float(weight.abs().max()) <= bound
    spread = 5.0 * sqrt(4.0 / 45.0 / count) * bound**2
    assert float(weight.square().mean()) == pytest.approx(bound**2 / 3.0, abs=spread)


def test_each_map_has_its_own_bound() -> None:
    torch.manual_seed(0)
    affine, maps, conv = nn.Linear(40, 60), AffineMaps(40, [20, 60]), CausalConv(30, 80, kernel=2, maps=2)
    lstm, gru, plain = nn.LSTM(30, 50, 2), nn.GRU(30, 50), nn.RNN(30, 50, bidirectional=True)
    table = nn.Embedding(7, 3)
    rows = table.weight.clone()
    glorot(nn.ModuleList([affine, maps, conv, lstm, gru, plain, table]))
    _drawn_within(affine.weight.detach(), 40, 60)
    for part, size in zip(maps.weight.detach().split([20, 60]), (20, 60), strict=True):
        _drawn_within(part, 40, size)
    for part in conv.weight.detach().chunk(2):
        _drawn_within(part, 2 * 30, 2 * 40)
    nets: list[tuple[Any, list[int]]] = [(lstm, [200]), (gru, [100, 50]), (plain, [50])]
    for net, sizes in nets:
        weights = {name: parameter.detach() for name, parameter in net.named_parameters()}
        for name, weight in weights.items():
            if name.startswith("weight"):
                inputs = weights[name.replace("_hh_", "_ih_")].shape[1] + 50
                for part, size in zip(weight.split(sizes), sizes, strict=True):
                    _drawn_within(part, inputs, size)
            else:
                opened = {"LSTM": slice(50, 100), "GRU": slice(0, 100), "RNN": slice(0, 0)}[type(net).__name__]
                expected = torch.zeros_like(weight)
                expected[opened] = float(name.startswith("bias_ih"))
                assert torch.equal(weight, expected), name
    assert not any(bool(part.bias.any()) for part in (affine, maps, conv))
    assert torch.equal(table.weight, rows)


def test_gates_start_open_and_all_else_as_pytorch_has_it() -> None:
    torch.manual_seed(0)
    plain: Any = nn.GRU(3, 4)
    torch.manual_seed(0)
    net: Any = recurrent(3, 4, "gru").net
    assert torch.equal(net.weight_ih_l0, plain.weight_ih_l0) and torch.equal(net.weight_hh_l0, plain.weight_hh_l0)
    assert net.bias_ih_l0[:8].tolist() == [1.0] * 8 and net.bias_hh_l0[:8].tolist() == [0.0] * 8
    assert torch.equal(net.bias_ih_l0[8:], plain.bias_ih_l0[8:])
    before = plain.bias_hh_l0[8:].clone()
    open_gates(plain)
    assert torch.equal(plain.bias_hh_l0[8:], before) and torch.equal(plain.bias_ih_l0, net.bias_ih_l0)


@pytest.mark.parametrize("config", ["fhvae2017/cell_fc", "fhvae2017/cell_gru", "ms_stcn2021/stcn_moderate"])
def test_settings_of_papers_in_tensorflow_choose_it(config: str) -> None:
    """All weights of model and guide, shared ones once; the same seed draws the same."""
    settings = resolve(config_path=config)
    assert settings.train.initialisation == "glorot"
    model, guide = create(settings)
    for module in (model, guide):
        for part in module.modules():
            if isinstance(part, WaveNetBlock):
                _drawn_within(part.mix.weight.detach(), part.mix.in_features, part.mix.out_features)
            if isinstance(part, nn.Linear) and part.bias is not None:
                assert not bool(part.bias.any())
    again, _ = create(settings)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    other, _ = create(resolve(config_path=config, overrides=["train.initialisation=torch"]))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
