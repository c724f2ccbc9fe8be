r"""A guide without amortisation: a factorised Gaussian with parameters of its own for each sequence.

.. math:: q(z \mid x_n) = \prod_l \prod_t N(z_{t}^{l};\, m_{n,t}^{l}, \mathrm{diag}(s_{n,t}^{l})^2),

with free means m and deviations s: Pyro's `AutoNormal` of a batch. It is the baseline of a gap report: it is not
limited by the networks of a guide, and its family is the mean field, whatever the family of the guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer.autoguide import AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.nn.module import PyroParam
from torch import Tensor, nn

from dvae_pyro.errors import UserError
from guides.core.guide import Guide
from inference.estimation.importance import Seed
from inference.estimation.refinement import frozen, improve
from inference.handlers.mean_latents import mean_latents
from inference.particles.log_weights import samples
from models.core.time_axis import Parallel
from models.dvae import DVAE, batch_sites

__all__ = ["IndividualNormal", "check_model", "individual_normal"]


def check_model(model: DVAE) -> None:
    """Check that all latents of a model belong to one sequence of a batch each.

    Raises:
        UserError: for a model whose segments share latents, and for one without latents.
    """
    if model.hierarchical or not model.latents:
        what = "shares latents between the segments of a sequence" if model.hierarchical else "has no latents"
        raise UserError(
            f"--guide auto-normal: the model {what}, but this baseline has parameters for the latents of each "
            "sequence. Omit --guide."
        )


class IndividualNormal(AutoNormal):
    """Pyro's `AutoNormal` of a batch of sequences, its sites on the time axis: padding is masked.

    `AutoNormal` by itself takes plates from the model but no masks, so the entropy of padded frames would be part of
    the bound, and grow without limit. Its parameters are local to the module, as those of all our programs.

    Args:
        model: the generative model.
        guide: the guide whose means, and deviations at these means, it starts from.
        x: data (T, N, D), zero beyond each length.
        lengths: frames of each sequence (N,), on the CPU.

    Raises:
        UserError: as of `check_model`.
    """

    def __init__(self, model: DVAE, guide: Guide, x: Tensor, lengths: Tensor) -> None:
        check_model(model)
        with torch.no_grad(), mean_latents():
            start = samples(poutine.trace(guide).get_trace(x, lengths))
        means = {name: site["value"] for name, site in start.items()}
        super().__init__(model, init_loc_fn=init_to_value(values=means))  # type: ignore[no-untyped-call]  # of Pyro
        self.__dict__["_of"] = model  # not a part: its parameters are not those of this guide
        self._setup_prototype(x, lengths)  # type: ignore[no-untyped-call]  # of Pyro
        for name, site in start.items():
            deviation = cast(Tensor, site["fn"].variance.sqrt().expand_as(site["value"]).clone())
            setattr(self.scales, name, PyroParam(deviation, self.scale_constraint, 1))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return nn.Module.__call__(self, *args, **kwargs)  # that of PyroModule writes to the global parameter store

    def posterior(self, name: str) -> dist.TorchDistribution:
        """q(z | x_n) of the frames of all sequences, (T, N, L), or outside time (N, L)."""
        normal: dist.TorchDistribution = dist.Normal(getattr(self.locs, name), getattr(self.scales, name)).to_event(1)
        return normal

    def forward(self, x: Tensor, lengths: Tensor, how: str = "auto") -> None:
        """The Pyro guide, of the batch that it was made for."""
        model: DVAE = self.__dict__["_of"]
        sites = batch_sites(model, x, lengths)
        for name in model.latents:
            q = self.posterior(name)
            if len(q.batch_shape) < 2:
                sites.once(name, q)
            else:
                Parallel(sites.coarser(model.strides.get(name, 1))).sample(name, q)


def individual_normal(
    model: DVAE,
    guide: Guide,
    x: Tensor,
    lengths: Tensor,
    *,
    steps: int = 100,
    particles: int = 4,
    lr: float = 0.02,
    seeds: Sequence[Seed] | None = None,
    progress: Callable[[], object] = lambda: None,
) -> IndividualNormal:
    """Fit an `IndividualNormal` to a batch by Adam on the bound with closed-form KLs, the model fixed; arguments as of
    `inference.estimation.refinement.refine`, the guide being where it starts.
    """
    fitted = IndividualNormal(model, guide, x, lengths)
    with frozen(model):
        groups = [{"params": list(fitted.parameters())}]
        improve(model, fitted, groups, x, lengths, steps, particles, lr, seeds, progress)
    return fitted
