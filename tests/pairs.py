"""Small models and guides in float64, for tests: every pair that the registries allow."""

from __future__ import annotations

from typing import Any, NamedTuple

import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from dvae_pyro.errors import UserError
from guides.core.guide import Guide
from guides.registry import build_guide, compliant, guide_class, guide_names
from models.core.effects import base_name
from models.dvae import DVAE
from models.registry import build_model, model_class, model_names

TRANSFORMER = {"d_model": 8, "ff": 12, "layers": 2}
SEGMENTS = {"likelihood": "power_spectrum", "normalise": False, "h_dim": 12}
LADDER = {"widths": [4, 5, 6], "strides": [1, 2, 2], "z_dims": [2, 3, 1], "top_dilations": [1, 2]}
STACK = {
    "likelihood": "power_spectrum",
    "widths": [4, 5],
    "z_dims": [2, 3],
    "dilations": [1, 2, 4],
    "hidden": [8],
    "out_width": 5,
    "out_dilations": [1, 2],
}
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"x": [7], "w_dim": 4, **TRANSFORMER} for name in ("hit_dvae", "light_dvae")},
    "ms_stcn": LADDER,
    "stcn": STACK,
    **{name: SEGMENTS for name in ("fhvae", "beta_vae")},
    "kvae": {"a_dim": 2, "alpha": 5},
}
"""Settings of models that are large by default."""
SMALL_GUIDES: dict[str, dict[str, Any]] = {
    name: {"x": [7], "gw_dim": 5, **TRANSFORMER} for name in ("hit_dvae", "light_dvae")
}
"""Settings of their own guides."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, SMALL.get(name, {})) for name in model_names()},
    "rvae-noncausal": ("rvae", {"causal": False}),
    "kvae-sampled": ("kvae", {"a_dim": 2, "alpha": 5, "integrate": False}),
    "ms_stcn-fixed": (
        "ms_stcn",
        {**LADDER, "strides": [1, 3, 1], "dilations": [2, 1], "resampling": "fixed", "every_block": False},
    ),
    "stcn-layer1": ("stcn", {**STACK, "dense": False}),
    "fhvae-fc": ("fhvae", {**SEGMENTS, "cell": "fc"}),
    "fhvae-gru": ("fhvae", {**SEGMENTS, "cell": "gru"}),
}
"""Every model, and those of its variants that differ in structure."""
ABLATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    f"{name}-{variant}": (name, {**SMALL[name], "variant": variant})
    for name in SMALL_GUIDES
    for variant in ("inv_s", "inv_s_nr")
}
"""Variants that guides do not notice."""
BINS, LATENT, FRAMES = 6, 3, 7
LENGTHS = torch.tensor([7, 3, 1, 5])


def _serves(variant: str, guide: str) -> bool:
    name, more = VARIANTS[variant]
    try:
        cls = guide_class(model_class(name).Settings(name=name, **more), guide)
    except UserError:
        return False
    return getattr(cls, "paper", None) != guide  # that is the own guide, by its other name


PAIRS = [(variant, guide) for variant in VARIANTS for guide in guide_names() if _serves(variant, guide)]


class Pair(NamedTuple):
    model: DVAE
    guide: Guide
    model_settings: Any
    guide_settings: Any


def small_pair(variant: str, guide_name: str = "paper", *, input: str | None = None, **given: Any) -> Pair:
    """A small model and guide with weights large enough that everything depends visibly on everything that
    it may.
    """
    torch.manual_seed(1)
    name, more = (VARIANTS | ABLATIONS).get(variant, (variant, {}))  # a model registered by a test is its own variant
    chosen: dict[str, Any] = {} if input is None else {"input": input}
    settings = model_class(name).Settings(**{"name": name, "bins": BINS, "z_dim": LATENT, **chosen, **more, **given})
    model = build_model(settings).double()
    resolved = compliant(settings) if guide_name == "compliant" else guide_name
    own = SMALL_GUIDES.get(name, {}) if guide_name == "paper" else {}
    guide_settings = guide_class(settings, guide_name).Settings(name=resolved, **own)
    guide = build_guide(model, settings, guide_settings).double()
    model.fit_input([data()[:, 0]])
    return Pair(model, guide, settings, guide_settings)


def data(lengths: Tensor = LENGTHS) -> Tensor:
    """Power spectra (T, N, D), zero beyond each length."""
    generator = torch.Generator().manual_seed(2)
    x = torch.empty(int(lengths.max()), len(lengths), BINS, dtype=torch.float64).exponential_(generator=generator)
    return x * (torch.arange(len(x))[:, None] < lengths)[..., None]


def traced(program: Any, *args: Any) -> Any:
    """The trace of a program; Pyro's sites have no types that say what is in them."""
    return poutine.trace(program).get_trace(*args)


def latents(pair: Pair, x: Tensor, lengths: Tensor) -> dict[str, Tensor]:
    """One draw of every latent from the guide."""
    trace = traced(pair.guide, x, lengths)
    return {name: trace.nodes[name]["value"].detach() for name in pair.model.latents}


def noise(pair: Pair) -> dict[str, Tensor]:
    """Standard normal numbers for every latent of a batch of `data`."""
    generator = torch.Generator().manual_seed(6)
    shapes = {name: value.shape for name, value in latents(pair, data(), LENGTHS).items()}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def frame_by_frame(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same values under the names of the frame-by-frame interpreter; a site outside time keeps its
    name.
    """
    split = {f"{name}_{t}": v[t : t + 1] for name, v in values.items() if v.dim() > 2 for t in range(len(v))}
    return split | {name: v for name, v in values.items() if v.dim() == 2}


def scored(program: DVAE | Guide, values: dict[str, Tensor], x: Tensor, lengths: Tensor, how: str) -> Any:
    """The trace of a model or guide with its latents set, its log-densities computed."""
    settled = frame_by_frame(values) if how == "stepwise" else values
    trace = traced(poutine.condition(program, settled), x, lengths, how)
    trace.compute_log_prob()
    return trace


def is_point(site: Any) -> bool:
    """Whether a site of a trace is a point, which has no density."""
    return isinstance(site["fn"], dist.Delta)


def measure(site: Any) -> Tensor:
    """The log-density of a site, (..., T, N); of a point its place stands for it."""
    return site["fn"].v.sum(-1) if is_point(site) else site["log_prob"]  # type: ignore[no-any-return]  # of a Pyro site


def per_sequence(trace: Any) -> dict[str, Tensor]:
    """Log-density of every site, summed over frames: (N,) by site name."""
    total: dict[str, Tensor] = {}
    for name, site in trace.nodes.items():
        if site["type"] == "sample" and "log_prob" in site and not site_is_subsample(site):
            value = measure(site)
            value = value.sum(0) if value.dim() > 1 else value
            base = base_name(name)
            total[base] = total[base] + value if base in total else value
    return total


def parameters(pair: Pair) -> dict[str, Tensor]:
    """Every parameter of a pair once, by name."""
    named = [("model." + n, p) for n, p in pair.model.named_parameters()]
    named += [("guide." + n, p) for n, p in pair.guide.named_parameters()]
    seen: dict[int, tuple[str, Tensor]] = {}
    for name, parameter in named:
        seen.setdefault(id(parameter), (name, parameter))
    return dict(seen.values())
