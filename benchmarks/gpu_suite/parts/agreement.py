"""Agreement of a model on the device with the same model on the CPU in float64, with equal weights, data and noise.

Each figure is the largest relative difference of the loss, the terms of the bound and the gradient of each weight
(the norm of the difference over the norm).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.gpu_suite.parts.common import Work, settings_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from inference.objectives.elbo import Bound, Objective


class Figures(NamedTuple):
    """Loss, terms and gradients, in float64 on the CPU."""

    values: dict[str, Tensor]

    def differ(self, other: Figures) -> tuple[float, str]:
        """The largest relative difference, and the name of its value."""
        largest = max(float(v.norm()) for v in self.values.values())
        found = {
            name: float((other.values[name] - v).norm()) / max(float(v.norm()), 1e-6 * largest)
            for name, v in self.values.items()
        }
        worst = max(found, key=lambda name: found[name] if found[name] == found[name] else float("inf"))
        return found[worst], worst


def main() -> None:
    """Record the differences of all comparisons."""
    work = Work()
    import pyro

    pyro.enable_validation(False)
    Comparison(work).run()


class Comparison:
    """Weights, data and noise, and the results of a step computed from them in several ways."""

    def __init__(self, work: Work) -> None:
        import pyro.poutine as poutine
        import torch

        from benchmarks.timing import power_spectra
        from inference.objectives.elbo import Objective
        from inference.particles.log_weights import samples
        from inference.runs import create

        self.work = work
        model, guide = create(settings_of(work, "device=cpu", "dtype=float64"))
        data = power_spectra(work.frames, work.sequences, work.bins)
        model.fit_input(data.unbind(1))
        self.lengths = torch.randint(work.frames // 2, work.frames + 1, (work.sequences,))
        self.lengths[0] = work.frames
        self.x = data.double() * (torch.arange(work.frames)[:, None] < self.lengths)[..., None]
        self.real = int(self.lengths.sum())
        self.objective = Objective(model, guide)
        with torch.no_grad():
            drawn = samples(poutine.trace(guide).get_trace(self.x, self.lengths))
        self.noise = {name: torch.randn_like(site["value"]) for name, site in drawn.items()}

    def run(self) -> None:
        """Run all comparisons."""
        import torch

        cuda = self.work.device_name.startswith("cuda")
        reference = self.figures(self.at(torch.device("cpu"), torch.float64))
        device = self.work.device
        single = self.at(device, torch.float32)

        def compare(name: str, compute: Callable[[], Figures], against: Callable[[], Figures]) -> None:
            def difference() -> dict[str, Any]:
                largest, where = against().differ(compute())
                return {name: largest, f"{name}_of": where}

            self.work.attempt(name, difference)

        compare("float64", lambda: self.figures(self.at(device, torch.float64)), lambda: reference)
        compare("float32", lambda: self.figures(single), lambda: reference)
        if cuda:
            compare("tf32", lambda: self.with_tf32(single), lambda: reference)
        drawn = not cuda  # without a GPU, given noise cannot be recorded, so noise is drawn from the same seed
        compare(
            "recorded",
            lambda: self.figures(single, recorded=True, drawn=drawn),
            lambda: self.figures(single, drawn=drawn),
        )
        compare("bf16", lambda: self.figures(self.at(device, torch.float32, bf16=True)), lambda: self.figures(single))
        self.work.attempt("refinement", lambda: {"refinement": self.refined(single)})

    def at(self, device: torch.device, dtype: torch.dtype, *, bf16: bool = False) -> Objective:
        """A copy of the objective with this device and dtype."""
        objective = copy.deepcopy(self.objective).to(device=device, dtype=dtype)
        objective.bf16 = bf16
        return objective

    def figures(self, objective: Objective, *, recorded: bool = False, drawn: bool = False) -> Figures:
        """The results of a training step, with the given noise, or with noise drawn from a seed."""
        import torch

        from inference.handlers.given_noise import given_noise
        from inference.training.recorded_step import RecordedStep, cuda_graphs, loss_and_gradients, run_again

        like = next(objective.parameters())
        noise = {name: v.to(like) for name, v in self.noise.items()}
        objective.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        with given_noise({} if drawn else noise):
            step: Callable[..., Bound] = partial(loss_and_gradients, objective)
            step = RecordedStep(objective, cuda_graphs(like.device) or run_again) if recorded else step
            bound = step(self.x.to(like), self.lengths, self.real)
        values = {"loss": bound.loss.detach() / self.real, "reconstruction": bound.terms.reconstruction}
        values |= {f"kl_{name}": kl for name, kl in bound.terms.kl.items()}
        values |= {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
        return Figures({name: v.detach().cpu().double().clone() for name, v in values.items()})

    def with_tf32(self, objective: Objective) -> Figures:
        """`figures` with TF32 enabled for matrix products and cuDNN."""
        import torch

        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        try:
            return self.figures(objective)
        finally:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    def refined(self, objective: Objective) -> str:
        """Run a refinement step of a frozen model; an error means that it does not work."""
        from inference.estimation.refinement import refine

        model, guide = copy.deepcopy(objective.model).eval(), copy.deepcopy(objective.guide).eval()
        x = self.x.to(next(objective.parameters()))
        refine(model, guide, x, self.lengths, remembers=False, steps=1, particles=1)  # type: ignore[arg-type]  # modules
        return "works"


if __name__ == "__main__":
    main()
