r"""Encoders and decoders between a segment x_{1:T} and latents of the whole segment: recurrent, or fully connected.

Both variants are compared by Hsu et al. (2017, Table 4). The recurrent encoder maps its last state to a Gaussian; the
recurrent decoder gets the latents as input in every frame. The fully connected networks take the concatenated frames;
segments of fewer than T frames are padded with zeros.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.errors import UserError, nearest
from models.core.conditional import Conditional
from models.core.effects import ragged
from models.core.sites import rebuilt
from models.core.tensors import concatenate
from models.likelihoods.base import head, likelihood_kind
from models.nn.initialisation import open_gates
from models.nn.layers import MLP, GaussianHead, Recurrent

__all__ = ["CELLS", "FlatDecoder", "SegmentEncoder", "activation", "check_cell", "recurrent"]

CELLS = ("lstm", "gru", "rnn", "fc")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


def check_cell(cell: str) -> None:
    """Check the name of a kind of network.

    Raises:
        UserError: for a name that is not in `CELLS`.
    """
    if cell not in CELLS:
        raise UserError(f"unknown model.cell '{cell}'.{nearest(cell, CELLS)} Known: {', '.join(CELLS)}.")


def activation(name: str) -> type[nn.Module]:
    """The activation of a fully connected network, by its name.

    Raises:
        UserError: for an unknown name.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"unknown model.activation '{name}'.{nearest(name, ACTIVATIONS)} Known: relu, tanh.")
    return ACTIVATIONS[name]


def recurrent(in_dim: int, width: int, cell: str, layers: int = 1) -> Recurrent:
    """A recurrent network with a bias of 1 for the forget gate (LSTM) or both gates (GRU) at the start, as in the
    public code.

    It has one bias vector per layer more than in the paper (4H for an LSTM, 3H for a GRU, H for a plain network):
    PyTorch's cells have two bias vectors, one of which is redundant except in the candidate of a GRU. PyTorch's GRU
    differs from that of the public code: the reset gate is applied after the matrix product, there before it.
    """
    net = Recurrent(in_dim, width, layers, cell)
    open_gates(net.net)
    return net


class SegmentEncoder(Conditional):
    """N(mean, variance) of a latent given a segment and, optionally, latents drawn before: from the last state of each
    layer of a recurrent network, or from the output of a fully connected one.

    Args:
        cell: one of `CELLS`.
        x_dim: size D of a frame.
        given_dim: size of the latents that are conditioned on.
        width: size H of the network.
        out_dim: size L of the latent.
        frames: T, frames of a full segment; used only by fully connected networks.
        activation: activation of fully connected networks.
        layers: number of recurrent layers.
    """

    def __init__(
        self,
        cell: str,
        x_dim: int,
        given_dim: int,
        width: int,
        out_dim: int,
        frames: int,
        activation: type[nn.Module] = nn.ReLU,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.frames = frames
        self.net = (
            MLP(frames * x_dim + given_dim, [width], activation)
            if cell == "fc"
            else recurrent(x_dim + given_dim, width, cell)
        )
        self.above = nn.ModuleList(recurrent(width, width, cell) for _ in range(layers - 1))
        self.head = GaussianHead(layers * width, out_dim)

    def forward(self, x: Tensor, lengths: Tensor, *given: Tensor) -> dist.TorchDistribution:
        """From x (T, N, D), zero beyond each length, and latents (N, L) or (..., 1, N, L) to a distribution with the
        dimensions of the latents.
        """
        h = self._flat(x, *given) if isinstance(self.net, MLP) else self._last(x, lengths, *given)
        return self.head(h)

    def _flat(self, x: Tensor, *given: Tensor) -> Tensor:
        missing = self.frames - x.shape[0]
        flat = nn.functional.pad(x, (0, 0, 0, 0, 0, missing)).transpose(0, 1).flatten(1)
        h: Tensor = self.net(concatenate(flat, *given))
        return h

    def _last(self, x: Tensor, lengths: Tensor, *given: Tensor) -> Tensor:
        """The state of every layer after the last frame of each segment, [h^1; h^2; ...]."""
        outs = [self.net(concatenate(x, *given))[0]]
        for net in self.above:
            outs.append(net(outs[-1])[0])
        out = concatenate(*outs)
        if not ragged(lengths, x.shape[0]):
            last = out[..., -1:, :, :]
        else:
            at = (lengths.to(x.device) - 1)[:, None].expand(*out.shape[:-3], 1, -1, out.shape[-1])
            last = out.gather(-3, at)
        return last if last.dim() > 3 else last[0]


class FlatDecoder(Conditional):
    """All frames of a segment at once from its latents: affine map, activation, affine map, likelihood.

    Args:
        in_dim: size of the latents.
        width: size H of the layer.
        frames: T, frames of a full segment.
        settings: the settings of the likelihood, with the size D of a frame.
        activation: activation of the layer.

    Raises:
        UserError: for a mixture likelihood, whose parameters cannot be split by frame.
    """

    def __init__(
        self, in_dim: int, width: int, frames: int, settings: Any, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        if likelihood_kind(settings.likelihood).has_components:
            raise UserError(
                f"model.likelihood={settings.likelihood}: a fully connected decoder (model.cell=fc) does not support "
                "mixtures. Set model.likelihood=gaussian, or model.cell=lstm."
            )
        self.shape = (frames, settings.bins)
        self.net = MLP(in_dim, [width], activation)
        self.head = head(replace(settings, bins=frames * settings.bins), width)

    def forward(self, latents: Tensor, frames: int) -> dist.TorchDistribution:
        """From latents (N, L) or (..., 1, N, L) to a distribution of the first `frames` frames, (..., frames, N, D)."""

        def apart(parameters: list[Tensor]) -> Tensor:
            flat = parameters[0].squeeze(-3) if latents.dim() > 2 else parameters[0]
            each: Tensor = flat.unflatten(-1, self.shape).movedim(-2, -3)
            return each[..., :frames, :, :]

        return rebuilt([self.head(self.net(latents))], apart)
