r"""FHVAE, factorised hierarchical VAE (Hsu, Zhang & Glass, "Unsupervised learning of disentangled and interpretable
representations from sequential data", 2017), and the beta-VAE that it is compared with.

Sequence i of a corpus is N^{(i)} segments of T frames:

.. math:: p(X^{(i)}, Z_1, Z_2, \mu_2) = p(\mu_2) \prod_n p(z_2^{(n)} | \mu_2)\, p(z_1^{(n)})\,
    p(x^{(n)} | z_1^{(n)}, z_2^{(n)}),

    p(\mu_2) = N(0, I), \quad p(z_2 | \mu_2) = N(\mu_2, 0.25\, I), \quad p(z_1) = N(0, I)

(its Eq. 1). The prior of z_2 is shared by the segments of a sequence, so z_2 encodes what they have in common and z_1
the rest. A batch holds segments of any sequences; a training step updates the table rows of these sequences only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor

from dvae_pyro.errors import UserError
from dvae_pyro.fields import one_of
from models.core.sites import Sites
from models.core.tensors import concatenate, normal
from models.core.time_axis import Parallel, TimeAxis
from models.dvae import DVAE, ModelSettings, standard_normal
from models.likelihoods.base import head
from models.nn.layers import Recurrent
from models.nn.segment_networks import FlatDecoder, activation, check_cell, recurrent

__all__ = ["FHVAE", "BetaVAE", "BetaVAESettings", "FHVAESettings", "SegmentModel", "SegmentSettings"]


@dataclass
class SegmentSettings(ModelSettings):
    """Settings of a model of segments.

    Attributes:
        cell: the network of the decoder and of the guide: "lstm", "gru" (PyTorch's, whose reset gate is applied after
            the product with the state; in the public code before it), "rnn", or "fc" for a fully connected network.
        h_dim: width H of the decoder's network.
        h_layers: recurrent layers of the decoder.
        activation: activation of a fully connected network: "relu", as in the public code, or "tanh".
        segment: number T of frames of a segment.
    """

    bins: int = 80
    input: str = "raw"
    likelihood: str = "gaussian"
    normalise: bool | str = one_of(True, False, "global")
    cell: str = "lstm"
    h_dim: int = 256
    h_layers: int = 1
    activation: str = "relu"
    segment: int = 20


@dataclass
class FHVAESettings(SegmentSettings):
    """Settings of the FHVAE; `z_dim` is the size of z_1.

    Attributes:
        z2_dim: size of z_2 and mu_2; null is that of z_1.
        z2_variance: variance of z_2 around mu_2.
        mu2_variance: variance of mu_2 around 0.
    """

    name: str = "fhvae"
    z2_dim: int | None = None
    z2_variance: float = 0.25
    mu2_variance: float = 1.0


@dataclass
class BetaVAESettings(SegmentSettings):
    """Settings of the beta-VAE; its beta is the setting `train.beta`."""

    name: str = "beta_vae"
    z_dim: int = 64


class SegmentModel(DVAE):
    """A model of segments without latents of single frames: a recurrent network that takes the latents as input in
    every frame generates x_t, or a fully connected network generates all frames.

    Class attributes that a subclass sets:
        latents: as of `DVAE`.
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        "data.frontend": "fbank",
        "data.trim_db": None,
        "data.sequence_frames": 20,
        "data.short_utterances": "keep",
        "optim.lr": 1e-3,
        "optim.betas": [0.95, 0.999],
        "optim.clip": 5.0,
        "train.batch_size": 256,
    }

    def __init__(self, settings: Any, in_dim: int) -> None:
        super().__init__(settings)
        check_cell(settings.cell)
        self.cell = settings.cell
        self.activation = activation(settings.activation)
        self.segment = settings.segment
        self.stepwise = settings.cell != "fc"
        self.layers(settings.h_layers, "model")
        self.h: Recurrent
        if self.stepwise:
            self.h = recurrent(in_dim, settings.h_dim, settings.cell, settings.h_layers)
            self.likelihood = head(settings, settings.h_dim)
        else:
            self.likelihood = FlatDecoder(in_dim, settings.h_dim, settings.segment, settings, self.activation)

    def layers(self, number: int, part: str) -> int:
        """Check the number of recurrent layers of the model or its guide, and return it.

        Raises:
            UserError: The network is fully connected and `number` is above 1.
        """
        if number > 1 and not self.stepwise:
            raise UserError(
                f"{part}.h_layers={number}: a fully connected network (model.cell=fc) has one hidden layer. "
                f"Set {part}.h_layers=1, or another model.cell."
            )
        return number

    def draw_latents(self, t: TimeAxis) -> Tensor:
        """Draw the latents and concatenate the decoder's input: (N, L), or (..., 1, N, L) with particles."""
        raise NotImplementedError

    def step(self, t: TimeAxis) -> None:
        latents = self.draw_latents(t)
        every = latents if latents.dim() > 2 else latents[None]
        h = t.recur(self.h, every.expand(*every.shape[:-3], t.stop - t.start, -1, -1))
        t.observe("x", self.decoder(h))

    def all_frames(self, sites: Sites, lengths: Tensor) -> None:
        """Run the fully connected model, which decodes all frames of a segment together."""
        t = Parallel(sites)
        t.observe("x", self.flat_decoder(self.draw_latents(t), sites.frames))

    def decoder(self, h: Tensor) -> dist.TorchDistribution:
        """p(x_t | latents), Eq. 1, from the state h_t of the recurrent network."""
        return self.likelihood(h)

    def flat_decoder(self, latents: Tensor, frames: int) -> dist.TorchDistribution:
        """p(x_{1:T} | latents), Eq. 1, of the fully connected model, for a segment of `frames` frames."""
        return self.likelihood(latents, frames)


class FHVAE(SegmentModel):
    """p(mu2) p(z2 | mu2) p(z1) prod_t p(x_t | z1, z2)."""

    Settings = FHVAESettings
    paper_guide = "guides.fhvae:FHVAEGuide"
    latents: tuple[str, ...] = ("mu2", "z2", "z1")
    declared = {"mu2": (), "z2": ("mu2",), "z1": (), "x": ("z1", "z2")}
    hierarchical = True
    defaults: ClassVar[Mapping[str, Any]] = {**SegmentModel.defaults, "train.discriminative.alpha": 10.0}

    def __init__(self, settings: FHVAESettings) -> None:
        for name, variance in (("z2", settings.z2_variance), ("mu2", settings.mu2_variance)):
            if not variance > 0.0:
                raise UserError(f"model.{name}_variance={variance}: expected a variance above 0.")
        self.z2_dim = settings.z_dim if settings.z2_dim is None else settings.z2_dim
        super().__init__(settings, settings.z_dim + self.z2_dim)
        self.z2_variance = settings.z2_variance
        self.mu2_variance = settings.mu2_variance

    @property
    def sizes(self) -> dict[str, int]:
        return {"x": self.x_dim, "mu2": self.z2_dim, "z2": self.z2_dim, "z1": self.z_dim}

    def draw_latents(self, t: TimeAxis) -> Tensor:
        mu2 = t.shared("mu2", self.sequence_prior())  # log p(mu2) is scaled by n_i / N_i, Eq. 2
        z2 = t.once("z2", self.sequence_latent(mu2))
        z1 = t.once("z1", self.segment_prior())
        return concatenate(z1, z2)

    def sequence_prior(self) -> dist.TorchDistribution:
        """p(mu2) = N(0, v I), v the `mu2_variance`; in Eq. 1 v = 1."""
        zero = next(self.parameters()).new_zeros(self.z2_dim)
        return normal(zero, torch.full_like(zero, self.mu2_variance).log())

    def sequence_latent(self, mu2: Tensor) -> dist.TorchDistribution:
        """p(z2 | mu2) = N(mu2, 0.25 I), Eq. 1."""
        return normal(mu2, torch.full_like(mu2, self.z2_variance).log())

    def segment_prior(self) -> dist.TorchDistribution:
        """p(z1) = N(0, I), Eq. 1."""
        return standard_normal(self, self.z_dim)


class BetaVAE(SegmentModel):
    """p(z1) prod_t p(x_t | z1): the FHVAE without latents of the sequence (Higgins et al., "beta-VAE", 2017)."""

    Settings = BetaVAESettings
    paper_guide = "guides.fhvae:BetaVAEGuide"
    latents = ("z1",)
    declared = {"z1": (), "x": ("z1",)}

    def __init__(self, settings: BetaVAESettings) -> None:
        super().__init__(settings, settings.z_dim)

    @property
    def sizes(self) -> dict[str, int]:
        return {"x": self.x_dim, "z1": self.z_dim}

    def draw_latents(self, t: TimeAxis) -> Tensor:
        return t.once("z1", self.segment_prior())

    def segment_prior(self) -> dist.TorchDistribution:
        """p(z1) = N(0, I), as in Eq. 1."""
        return standard_normal(self, self.z_dim)
