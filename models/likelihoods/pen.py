r"""Pen strokes: the offset of the pen and whether it is lifted."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.nn.functional import logsigmoid

from models.likelihoods.base import ComponentsHead, Shape, log_odds

__all__ = ["PenStroke", "PenStrokeHead"]


class PenStroke(dist.TorchDistribution):
    r"""A pen stroke: a mixture of K correlated Gaussians for the offset (x, y), and a Bernoulli for u, pen lifted:

    .. math:: p(x, y, u) = \Big(\sum_k w_k N\big([x; y]; m_k, C_k\big)\Big)\, b^u (1 - b)^{1 - u},

    with C_k from two standard deviations and a correlation (Graves, "Generating sequences with recurrent neural
    networks", 2013).

    Args:
        logits: log w_k up to a constant, (..., K).
        means: m, (..., K * 2), component by component.
        scales: standard deviations, (..., K * 2).
        correlations: between -1 and 1, (..., K).
        pen: the logit of b, (..., 1).
    """

    arg_constraints = {
        "logits": constraints.real_vector,
        "means": constraints.real_vector,
        "scales": constraints.independent(constraints.positive, 1),
        "correlations": constraints.independent(constraints.interval(-1.0, 1.0), 1),
        "pen": constraints.real_vector,
    }
    support = constraints.real_vector

    def __init__(
        self,
        logits: Tensor,
        means: Tensor,
        scales: Tensor,
        correlations: Tensor,
        pen: Tensor,
        validate_args: bool | None = None,
    ) -> None:
        self.logits, self.means, self.scales = logits, means, scales
        self.correlations, self.pen = correlations, pen
        super().__init__(means.shape[:-1], Size([3]), validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        place = (self.logits.softmax(-1)[..., None] * self.means.unflatten(-1, (-1, 2))).sum(-2)
        return torch.cat([place, self.pen.sigmoid()], dim=-1)

    def expand(self, batch_shape: Shape, _instance: object = None) -> PenStroke:
        logits, means, scales, correlations, pen = (
            p.expand(*batch_shape, p.shape[-1])
            for p in (self.logits, self.means, self.scales, self.correlations, self.pen)
        )
        return PenStroke(logits, means, scales, correlations, pen, validate_args=False)

    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            k = dist.Categorical(logits=self.logits.expand(*shape, self.logits.shape[-1])).sample()[..., None]
            both = k[..., None].expand(*shape, 1, 2)
            mean, scale = (
                p.unflatten(-1, (-1, 2)).expand(*shape, -1, -1).gather(-2, both).squeeze(-2)
                for p in (self.means, self.scales)
            )
            rho = self.correlations.expand(*shape, -1).gather(-1, k)
            a, b = torch.randn_like(mean).split(1, dim=-1)
            place = mean + scale * torch.cat([a, rho * a + (1.0 - rho.square()).sqrt() * b], dim=-1)
            return torch.cat([place, torch.bernoulli(self.pen.sigmoid().expand(*shape, 1))], dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        scale = self.scales.unflatten(-1, (-1, 2))
        a, b = ((value[..., None, :2] - self.means.unflatten(-1, (-1, 2))) / scale).unbind(-1)
        left = 1.0 - self.correlations.square()
        quadratic = (a.square() - 2.0 * self.correlations * a * b + b.square()) / left
        densities = -0.5 * quadratic - 0.5 * left.log() - scale.log().sum(-1) - math.log(2 * math.pi)
        place = torch.logsumexp(self.logits.log_softmax(-1) + densities, dim=-1)
        lifted, o = value[..., 2], self.pen[..., 0]
        return place + lifted * logsigmoid(o) + (1.0 - lifted) * logsigmoid(-o)


class PenStrokeHead(ComponentsHead):
    """Features (..., in) to a `PenStroke`: standard deviations by `Scale`, correlations by tanh; a frame has D = 3."""

    MOST = 0.999
    """Largest correlation: at 1 the density is unbounded."""

    @staticmethod
    def sizes_of(components: int, x_dim: int) -> list[int]:
        return [components, 2 * components, 2 * components, components, 1]

    def fit(self, sequences: Sequence[Tensor]) -> None:
        """Initialise the bias of the pen from the fraction of lifted pens in data, each (T, 3)."""
        with torch.no_grad():
            self.affine.bias[-1:] = log_odds([x[:, 2:] for x in sequences])

    def forward(self, h: Tensor) -> dist.TorchDistribution:
        logits, means, o, rho, pen = self.parameters_of(h)
        correlations = self.MOST * torch.tanh(rho)
        return PenStroke(self.weights(logits), means, self.scale(o), correlations, pen, validate_args=False)
