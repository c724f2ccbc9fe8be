r"""FHVAE's guide (Hsu, Zhang & Glass, 2017), and that of the beta-VAE:

.. math::
    q(\mu_2, Z_1, Z_2 \mid X^{(i)}) &= q(\mu_2)\, \prod_n q(z_2^{(n)} \mid x^{(n)})\,
        q(z_1^{(n)} \mid x^{(n)}, z_2^{(n)}) \tag{G1} \\
    q(z_2 \mid x) &= N(\mu(x), \sigma(x)^2) \tag{G2} \\
    q(z_1 \mid x, z_2) &= N(\mu(x, z_2), \sigma(x, z_2)^2) \tag{G3}

(section 2 of the paper, where they have no number; other numbers are the paper's). q(mu_2) is a point mass at row i of
a table, which is trained with the networks. In the paper it is a Gaussian of fixed variance around the row: its entropy
and its contributions to the means of log p(mu_2) and of the KL of z_2 do not depend on parameters, and are the "const"
of Eq. 2. For sequences outside the table, mu_2 is the point that maximises their bound (Eq. 5).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from guides.core.guide import Guide, GuideSettings
from models.core.grouping import SequenceIndex
from models.core.sites import Sites
from models.core.time_axis import TimeAxis
from models.dvae import DVAE, batch_sites
from models.fhvae import FHVAE, BetaVAE
from models.nn.segment_networks import SegmentEncoder

__all__ = [
    "BetaVAEGuide",
    "BetaVAEGuideSettings",
    "Candidates",
    "FHVAEGuide",
    "FHVAEGuideSettings",
    "s_vectors",
]


@dataclass
class FHVAEGuideSettings(GuideSettings):
    """Settings of FHVAE's guide; `model.cell` selects its networks.

    Attributes:
        h_dim: width H of the networks that infer z_2 and z_1.
        h_layers: layers of these networks, where they are recurrent.
        sequences: rows of the table of mu_2; set by training.
    """

    h_dim: int = 256
    h_layers: int = 1
    sequences: int | None = None


@dataclass
class BetaVAEGuideSettings(GuideSettings):
    """Settings of the beta-VAE's guide.

    Attributes:
        h_dim: width H of the network.
        h_layers: layers of the network, where it is recurrent.
    """

    h_dim: int = 512
    h_layers: int = 1


class Candidates(NamedTuple):
    """The candidate sequences of the discriminative objective.

    Attributes:
        values: mu_2 of the candidates, (C, L).
        target: index of each segment's sequence among them, (N,).
    """

    values: Tensor
    target: Tensor


def s_vectors(means: Tensor, rows: Tensor, sequences: int, ratio: float) -> Tensor:
    r"""The mu_2 of each sequence that maximises its bound, Hsu et al. (2017), Eq. 5:

    .. math:: \mu_2^{(i)} = \frac{\sum_n m^{(i, n)}}{N^{(i)} + \sigma_{z_2}^2 / \sigma_{\mu_2}^2}

    Args:
        means: m, the posterior mean of z_2 of every segment of the sequences, (N, L).
        rows: the sequence of each segment, (N,).
        sequences: number of sequences M; one without segments gets 0, the prior's mean.
        ratio: the variance of z_2 around mu_2 divided by the variance of mu_2.

    Returns:
        (M, L).
    """
    total = means.new_zeros(sequences, means.shape[-1]).index_add(0, rows, means)
    count = torch.bincount(rows, minlength=sequences).to(means)
    return total / (count + ratio)[:, None]


class FHVAEGuide(Guide):
    """q(mu2) q(z2 | x_{1:T}) q(z1 | x_{1:T}, z2)."""

    Settings = FHVAEGuideSettings
    declared = {"mu2": ("x[:]",), "z2": ("x[:]",), "z1": ("x[:]", "z2")}
    files: Tensor
    """A hash of the name of each row's utterance, (M,), if there is a table."""

    def __init__(self, model: DVAE, settings: FHVAEGuideSettings) -> None:
        super().__init__(model)
        fhvae = cast(FHVAE, model)
        self.z2_dim = fhvae.z2_dim
        self.ratio = fhvae.z2_variance / fhvae.mu2_variance
        width, frames = settings.h_dim, cast(int, fhvae.segment)
        more = (frames, fhvae.activation, fhvae.layers(settings.h_layers, "guide"))
        self.x_z2 = SegmentEncoder(fhvae.cell, self.x_dim, 0, width, self.z2_dim, *more)
        self.x_z1 = SegmentEncoder(fhvae.cell, self.x_dim, self.z2_dim, width, self.z_dim, *more)
        self.table: nn.Embedding | None = None
        if settings.sequences is not None:
            self.make_table(settings.sequences)

    def make_table(self, sequences: int) -> None:
        """Make the table: a row of mu_2 for each training sequence, drawn from N(0, I). Its gradients are sparse: they
        hold the rows of a batch only.
        """
        like = next(self.parameters())
        table = nn.Embedding(sequences, self.z2_dim, sparse=True)
        self.table = table.to(device=like.device, dtype=like.dtype)
        self.register_buffer("files", torch.zeros(sequences, dtype=torch.int64, device=like.device))

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        x = self.input(sites.data["x"])
        q2 = self.sequence_posterior(x, lengths)
        mu2 = self.sequence_point(sites, q2.mean)
        sites.shared("mu2", mu2, candidates=partial(self.candidates, sites, mu2.mean))
        z2 = sites.once("z2", q2)
        return sites.once("z1", self.segment_posterior(x, lengths, z2))

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        """Draw nothing: no latent is in time, all are drawn by `encode`."""

    def z2_mean(self, x: Tensor, lengths: Tensor) -> Tensor:
        """The mean of q(z2 | x) of segments x (T, N, D): (N, L)."""
        mean: Tensor = self.sequence_posterior(self._data(x, lengths), lengths).mean
        return mean

    def sequence_posterior(self, x: Tensor, lengths: Tensor) -> dist.TorchDistribution:
        """q(z2 | x_{1:T}): Eq. G2 of this module, of segments x (T, N, D), scaled."""
        return self.x_z2(x, lengths)

    def segment_posterior(self, x: Tensor, lengths: Tensor, z2: Tensor) -> dist.TorchDistribution:
        """q(z1 | x_{1:T}, z2): Eq. G3 of this module, of segments x (T, N, D), scaled."""
        return self.x_z1(x, lengths, z2)

    def posteriors(self, x: Tensor, lengths: Tensor) -> dict[str, dist.TorchDistribution]:
        """q(z2 | x), and q(z1 | x, z2) at the mean of z2, of segments x (T, N, D)."""
        data = self._data(x, lengths)
        q2 = self.sequence_posterior(data, lengths)
        return {"z2": q2, "z1": self.segment_posterior(data, lengths, q2.mean)}

    def _data(self, x: Tensor, lengths: Tensor) -> Tensor:
        data: Tensor = self.input(batch_sites(self, x, lengths).data["x"])
        return data

    def sequence_point(self, sites: Sites, means: Tensor) -> dist.TorchDistribution:
        """q(mu2) of the U sequences of a batch, a point (U, L): for training data the rows of the table (Eq. 2); for
        other data the values of Eq. 5, computed beforehand from all segments of a sequence (`rows.values`), or from
        those in the batch.

        Args:
            sites: the batch.
            means: the mean of q(z2 | x) of each segment, (N, L).
        """
        rows, level = cast(SequenceIndex, sites.rows), sites.level()
        if rows.values is not None:
            mu2 = rows.values[level.present]
        elif rows.trained:
            mu2 = self._table(rows)(level.present)
        else:
            mu2 = s_vectors(means, level.share.entry, len(level.present), self.ratio)
        return dist.Delta(mu2, event_dim=1)

    def candidates(self, sites: Sites, mu2: Tensor) -> Candidates:
        """The sequences among which Eq. 3 classifies each segment, with the mu_2 of `sequence_point`."""
        rows, level = cast(SequenceIndex, sites.rows), sites.level()
        index = rows.row.to(mu2.device)
        if rows.values is not None:
            return Candidates(rows.values, index)
        if not rows.trained:
            return Candidates(mu2, level.share.entry)
        table = self._table(rows)
        if rows.active is None:
            return Candidates(table.weight, index)
        active = rows.active.to(index.device)
        return Candidates(table(active), torch.searchsorted(active, index))

    def _table(self, rows: SequenceIndex) -> nn.Embedding:
        """The table of mu_2, after a check that it has a row for each sequence."""
        if self.table is None or self.table.num_embeddings != rows.sequences:
            have = "no table" if self.table is None else f"a table of {self.table.num_embeddings} sequences"
            raise UserError(
                f"the guide has {have} of mu2, but the training data have {rows.sequences} sequences. Resume a run "
                "with the data that it was trained on; train a new run on other data."
            )
        return self.table


class BetaVAEGuide(Guide):
    """q(z1 | x_{1:T})."""

    Settings = BetaVAEGuideSettings
    declared = {"z1": ("x[:]",)}

    def __init__(self, model: DVAE, settings: BetaVAEGuideSettings) -> None:
        super().__init__(model)
        beta_vae = cast(BetaVAE, model)
        more = (cast(int, beta_vae.segment), beta_vae.activation, beta_vae.layers(settings.h_layers, "guide"))
        self.x_z1 = SegmentEncoder(beta_vae.cell, self.x_dim, 0, settings.h_dim, self.z_dim, *more)

    def encode(self, sites: Sites, lengths: Tensor) -> Tensor:
        return sites.once("z1", self.segment_posterior(self.input(sites.data["x"]), lengths))

    def step(self, t: TimeAxis, encoded: Tensor) -> None:
        """Draw nothing: no latent is in time, all are drawn by `encode`."""

    def posteriors(self, x: Tensor, lengths: Tensor) -> dict[str, dist.TorchDistribution]:
        """q(z1 | x) of segments x (T, N, D)."""
        return {"z1": self.segment_posterior(self.input(batch_sites(self, x, lengths).data["x"]), lengths)}

    def segment_posterior(self, x: Tensor, lengths: Tensor) -> dist.TorchDistribution:
        """q(z1 | x_{1:T}): Eq. G3 of this module without z2 (section 4.3), of segments x (T, N, D), scaled."""
        return self.x_z1(x, lengths)
