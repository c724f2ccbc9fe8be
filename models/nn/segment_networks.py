r"""Networks between a segment x_{1:T} and latents of the whole segment: recurrent, or fully connected.

As Hsu et al. (2017) compare them (their Table 4): a recurrent network reads the segment and its last state goes to a
Gaussian; the same kind of network, fed the latents in every frame, writes one. The fully connected ones see the frames
side by side, a segment of fewer than T frames filled up with zeros.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from dvae_pyro.errors import UserError, nearest
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
    """Refuse a word that names no network.

    Raises:
        UserError: for that word.
    """
    if cell not in CELLS:
        raise UserError(f"unknown model.cell '{cell}'.{nearest(cell, CELLS)} Known: {', '.join(CELLS)}.")


def activation(name: str) -> type[nn.Module]:
    """The activation of a fully connected network, by its name.

    Raises:
        UserError: for a name that is none.
    """
    if name not in ACTIVATIONS:
        raise UserError(f"unknown model.activation '{name}'.{nearest(name, ACTIVATIONS)} Known: relu, tanh.")
    return ACTIVATIONS[name]


def recurrent(in_dim: int, width: int, cell: str, layers: int = 1) -> Recurrent:
    """A recurrent network whose forget gate (LSTM) or both gates (GRU) start with a bias of 1, as in the public code.

    Its parameters are those of the paper and one bias vector more in each layer (4H of an LSTM, 3H of a GRU, H of a
    plain network): PyTorch's cells have two, of which all but a GRU's candidate need one. A GRU of PyTorch is not that
    of the public code: its reset gate acts on the state after the product, there before it.
    """
    net = Recurrent(in_dim, width, layers, cell)
    open_gates(net.net)
    return net


class SegmentEncoder(nn.Module):
    """N(mean, variance) of a latent given a segment and, perhaps, latents drawn before: of the last state of each layer
    of a recurrent network, or of the output of a fully connected one.

    Args:
        cell: one of `CELLS`.
        x_dim: size D of a frame.
        given_dim: size of the latents given.
        width: size H of the network.
        out_dim: size L of the latent.
        frames: T, frames of a whole segment; only a fully connected network needs it.
        activation: of a fully connected network.
        layers: recurrent networks on top of each other.
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
        """From x (T, N, D), zero beyond each length, and latents (N, L) or (..., 1, N, L) to a distribution of those
        dimensions.
        """
        h = self._flat(x, *given) if isinstance(self.net, MLP) else self._last(x, lengths, *given)
        distribution: dist.TorchDistribution = self.head(h)
        return distribution

    def _flat(self, x: Tensor, *given: Tensor) -> Tensor:
        short = self.frames - x.shape[0]
        whole = nn.functional.pad(x, (0, 0, 0, 0, 0, short)).transpose(0, 1).flatten(1)
        h: Tensor = self.net(concatenate(whole, *given))
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


class FlatDecoder(nn.Module):
    """All frames of a segment at once from its latents: affine, activation, affine, the likelihood.

    Args:
        in_dim: size of the latents.
        width: size H of the layer.
        frames: T, frames of a whole segment.
        settings: the likelihood, and size D of a frame.
        activation: of the layer.

    Raises:
        UserError: for a mixture, whose parameters are not one for each value of a frame.
    """

    def __init__(
        self, in_dim: int, width: int, frames: int, settings: Any, activation: type[nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        if likelihood_kind(settings.likelihood).has_components:
            raise UserError(
                f"model.likelihood={settings.likelihood}: a fully connected decoder (model.cell=fc) has no mixtures. "
                "Take gaussian, or model.cell=lstm."
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
