r"""KVAE, Kalman variational autoencoder (Fraccaro, Kamronn, Paquet & Winther, "A disentangled recognition and nonlinear
dynamics model for unsupervised learning", 2017).

A frame is decoded from a_t, and a_{1:T} is emitted by a linear Gaussian state space model with mixed dynamics:

.. math::
    p(x_{1:T}, a_{1:T}, z_{1:T}) &= \prod_t p(x_t \mid a_t)\, p(a_t \mid z_t, a_{1:t-1})\,
        p(z_t \mid z_{t-1}, a_{1:t-1}) \tag{1} \\
    p(z_t \mid z_{t-1}, a_{1:t-1}) &= N(A_t z_{t-1}, q I), \quad p(z_1) = N(0, v I) \tag{2} \\
    p(a_t \mid z_t, a_{1:t-1}) &= N(C_t z_t, r I) \tag{3} \\
    p(x_t \mid a_t) &= p(x_t \mid \mathrm{MLP}(a_t)) \tag{4} \\
    p(a_t \mid a_{1:t-1}) &= N(C_t m_t, C_t P_t C_t^\top + r I), \qquad z_t \mid a_{1:t-1} \sim N(m_t, P_t) \tag{5}

(the paper's state space and generative model; the numbers are of this module; A_t and C_t, mixed by weights that depend
on a_{1:t-1}, are in `models.nn.kalman`). By default the states z are integrated out by the Kalman filter, exactly (Eq.
5): the model's latent is a, so a particle filter over a is Rao-Blackwellised. With
``model.integrate=false`` z is drawn like any other latent.

Departures from the public code (github.com/simonkamronn/kvae): fully connected networks in place of convolutional
networks; no inputs u_t; each A^k is initialised near the identity instead of at the identity. As in the public code, Q
and R are fixed, and A, C and a_0 are trained. The public code weights the reconstruction by 0.3; the equivalent here is
``train.beta`` = 1 / 0.3 on the KL.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dvae_pyro.fields import bounded
from models.core.tensors import normal
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, ModelSettings
from models.likelihoods.base import head
from models.likelihoods.correlated import CorrelatedNormal
from models.nn.kalman import KalmanPredictor
from models.nn.layers import MLP
from models.structure.parents import Parents

__all__ = ["KVAE", "KVAESettings"]


@dataclass
class KVAESettings(ModelSettings):
    """Settings of the KVAE; `z_dim` is the size L of the state.

    Attributes:
        a_dim: size of the latent a_t that frames are decoded from.
        modes: number K of mixed dynamics.
        alpha: width of the LSTM that computes the weights of the modes.
        a_x: widths of the decoder from a_t to x_t.
        transition_variance: variance q of z_t given z_{t-1}.
        emission_variance: variance r of a_t given z_t.
        initial_variance: variance v of z_1.
        dynamics_warmup: number of first training steps in which the LSTM of the mode weights is not trained, while A
            and C are.
        integrate: true integrates z out by the Kalman filter; false draws it.
    """

    name: str = "kvae"
    a_dim: int = 16
    modes: int = 3
    alpha: int = 50
    a_x: list[int] = field(default_factory=lambda: [32, 64, 128, 256])
    transition_variance: float = bounded(0.08, above=0)
    emission_variance: float = bounded(0.03, above=0)
    initial_variance: float = bounded(20.0, above=0)
    dynamics_warmup: int = bounded(0, at_least=0)
    integrate: bool = True


class KVAE(DVAE):
    """p(a_t | a_{1:t-1}) p(x_t | a_t); with z drawn, p(z_t | z_{t-1}, a_{1:t-1}) p(a_t | z_t, a_{1:t-1})
    p(x_t | a_t).
    """

    Settings = KVAESettings
    latents: tuple[str, ...] = ("a",)
    frame_latent = "a"

    def __init__(self, settings: KVAESettings) -> None:
        super().__init__(settings)
        self.a_dim = settings.a_dim
        self.integrate = settings.integrate
        self.dynamics_warmup = settings.dynamics_warmup
        self.latents = self.latents_of(settings)
        self.dynamics = KalmanPredictor(
            settings.a_dim,
            settings.z_dim,
            settings.modes,
            settings.alpha,
            transition=settings.transition_variance,
            emission=settings.emission_variance,
            initial=settings.initial_variance,
        )
        self.a_x = MLP(settings.a_dim, settings.a_x)
        self.likelihood = head(settings, self.a_x.out_dim)

    def frozen_at(self, step: int) -> Iterable[nn.Parameter]:
        return self.dynamics.weights.parameters() if step <= self.dynamics_warmup else ()

    @classmethod
    def latents_of(cls, settings: KVAESettings) -> tuple[str, ...]:
        return ("a",) if settings.integrate else ("z", "a")

    @classmethod
    def guide_path(cls, settings: KVAESettings) -> str:
        return "guides.kvae:KVAEGuide" if settings.integrate else "guides.kvae:SampledKVAEGuide"

    @classmethod
    def parents(cls, settings: KVAESettings) -> Parents:
        if settings.integrate:
            return {"a": ("a[:t]",), "x": ("a[t]",)}
        return {"z": ("z[t-1]", "a[:t]"), "a": ("z[t]", "a[:t]"), "x": ("a[t]",)}

    @property
    def sizes(self) -> dict[str, int]:
        return {"x": self.x_dim, "a": self.a_dim, "z": self.z_dim}

    def step(self, t: TimeAxis) -> None:
        if self.integrate:
            a = t.sample("a", self.prior(t.recur(self.dynamics, t.prev("a"))))
        else:
            A, C = self.dynamics.matrices(t.recur(self.dynamics.weights, t.prev("a")))
            first = torch.arange(t.start, t.stop, device=A.device)[:, None, None] == 0
            z = t.sample("z", self.transition(A, t.prev("z"), first))
            a = t.sample("a", self.emission(C, z))
        t.observe("x", self.decoder(a))

    def prior(self, predicted: Tensor) -> dist.TorchDistribution:
        """p(a_t | a_{1:t-1}): Eq. 5 of this module, from the Kalman filter's prediction."""
        loc, factor = predicted.split([self.a_dim, self.a_dim**2], dim=-1)
        return CorrelatedNormal(loc, factor, validate_args=False)

    def transition(self, A: Tensor, z_before: Tensor, first: Tensor) -> dist.TorchDistribution:
        """p(z_t | z_{t-1}, a_{1:t-1}) = N(A_t z_{t-1}, q I), N(0, v I) in the first frame: Eq. 2 of this module."""
        mean = (A @ z_before[..., None])[..., 0]
        variance = torch.where(first, self.dynamics.initial, self.dynamics.transition).to(mean)
        return normal(mean, variance.log().expand_as(mean))

    def emission(self, C: Tensor, z: Tensor) -> dist.TorchDistribution:
        """p(a_t | z_t, a_{1:t-1}) = N(C_t z_t, r I): Eq. 3 of this module."""
        mean = (C @ z[..., None])[..., 0]
        return normal(mean, torch.full_like(mean, self.dynamics.emission).log())

    def decoder(self, a: Tensor) -> dist.TorchDistribution:
        """p(x_t | a_t): Eq. 4 of this module."""
        return self.likelihood(self.a_x(a))
