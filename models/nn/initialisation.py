r"""Initialisation of weights: Glorot's uniform weights and zero biases, TensorFlow's defaults, in place of PyTorch's.

.. math:: W_{ij} \sim U\Big(-\sqrt{\tfrac{6}{m + n}}, \sqrt{\tfrac{6}{m + n}}\Big)

for an affine map from m to n numbers (Glorot & Bengio, "Understanding the difficulty of training deep feedforward
neural networks", 2010, Eq. 16). Weights are grouped into maps as in the public codes: the mean and the log-variance of
a head are two maps, and so are the two halves of a gated convolution; all gates of an LSTM are one map of the
concatenated input and state; the gates of a GRU are one map and its candidate is another.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from models.core.affine import AffineMaps
from models.nn.wavenet import CausalConv

__all__ = ["glorot", "open_gates"]


@torch.no_grad()
def open_gates(net: nn.RNNBase) -> None:
    """Set the biases of the forget gates of an LSTM, and of both gates of a GRU, to 1, as TensorFlow's cells do: at
    the start of training the state is kept.
    """
    for name, bias in net.named_parameters():
        if not name.startswith("bias"):
            continue
        gates = {nn.LSTM: slice(net.hidden_size, 2 * net.hidden_size), nn.GRU: slice(0, 2 * net.hidden_size)}
        if type(net) in gates:
            bias[gates[type(net)]] = float(name.startswith("bias_ih"))


@torch.no_grad()
def glorot(module: nn.Module) -> None:
    """Draw the weights of all affine maps, convolutions and recurrent networks in a module, each once. Their biases are
    set to zero, except those of open gates (`open_gates`). Tables and other parameters are not changed.
    """
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            _recurrent(part)
        elif isinstance(part, CausalConv):
            inputs = part.weight.shape[1]
            for each in part.weight.chunk(part.maps):
                _uniform(each, inputs, part.kernel * len(each))
            part.bias.zero_()
        elif isinstance(part, nn.Linear):
            sizes = part.sizes if isinstance(part, AffineMaps) else [part.out_features]
            for each in part.weight.split(sizes):
                _uniform(each, part.in_features, len(each))
            if part.bias is not None:
                part.bias.zero_()


def _recurrent(net: nn.RNNBase) -> None:
    h = net.hidden_size
    maps = {nn.LSTM: [4 * h], nn.GRU: [2 * h, h], nn.RNN: [h]}[type(net)]
    weights = dict(net.named_parameters())
    for name in (name for name in weights if name.startswith("weight_ih")):
        of_input, of_state = weights[name], weights[name.replace("_ih_", "_hh_")]
        for rows in zip(of_input.split(maps), of_state.split(maps), strict=True):
            for each in rows:
                _uniform(each, of_input.shape[1] + h, len(each))
    for name in (name for name in weights if name.startswith("bias")):
        weights[name].zero_()
    open_gates(net)


def _uniform(weight: Tensor, inputs: int, outputs: int) -> None:
    bound = sqrt(6.0 / (inputs + outputs))
    weight.uniform_(-bound, bound)
