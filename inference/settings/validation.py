"""Validation of settings, before a model is built from them; each error names the key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from dvae_pyro.errors import UserError, nearest
from dvae_pyro.fields import check_fields
from inference.settings.tree import OptimSettings, ScheduledSamplingSettings, Settings
from models.registry import model_class
from models.structure.parents import Parents

__all__ = ["check_limits", "check_scheduled_sampling", "refuse_unused"]


def check_limits(settings: Settings) -> None:
    """Check ranges and combinations of settings.

    Raises:
        UserError: for the first one that is invalid.
    """
    _check_ranges(settings)
    _check_sites(settings)
    _check_objective(settings)
    _check_segments(settings)
    _check_capture(settings)


def refuse_unused(layer: Mapping[str, Any], schedule: str) -> None:
    """Refuse settings of learning-rate schedules that the one in force does not use.

    Args:
        layer: the settings that were set, by dotted key.
        schedule: the learning-rate schedule in force.

    Raises:
        UserError: for the first one.
    """
    users = {
        "decay_steps": ("exponential", "cosine"),
        "plateau_epochs": ("plateau",),
        "gamma": ("exponential", "plateau"),
        "min_lr": ("exponential", "cosine", "plateau"),
    }
    for name, which in users.items():
        value = layer.get(f"optim.{name}", getattr(OptimSettings, name))
        if schedule not in which and value != getattr(OptimSettings, name):
            raise UserError(
                f"optim.{name}={value} has no effect with optim.schedule={schedule}. "
                f"Add optim.schedule={' or '.join(which)}."
            )


def _check_ranges(settings: Settings) -> None:
    train, optim = settings.train, settings.optim
    if train.steps is None and train.epochs is None:
        raise UserError("train.steps and train.epochs are both null: training would never end. Set one of them.")
    check_fields(settings)
    at_least = {f"train.beta_sites.{site}": (weight, 0) for site, weight in train.beta_sites.items()}
    at_least |= {key: (size, 1) for key, size in _sizes(settings)}
    for key, (value, bound) in at_least.items():
        if not value >= bound:
            raise UserError(f"{key}={value}: expected at least {bound}.")
    _check_scales(settings.model)
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise UserError(f"optim.betas={list(optim.betas)}: expected two numbers from 0 to below 1.")
    if train.autocast is not None and settings.dtype != "float32":
        raise UserError(f"train.autocast={train.autocast} needs dtype=float32, got {settings.dtype}. Omit one of them.")


def _check_scales(model: Any) -> None:
    """Refuse an empty range of standard deviations, and a weight floor that the components' weights cannot all meet."""
    bounds = model.scale_bounds
    if bounds is not None and not 0.0 < bounds[0] < bounds[1]:
        raise UserError(
            f"model.scale_bounds={list(bounds)}: expected the smallest and the largest standard deviation, both above "
            "0, such as [0.001, 5]; null for no bounds."
        )
    if not 0.0 <= model.weight_floor * model.components < 1.0:
        raise UserError(
            f"model.weight_floor={model.weight_floor}: expected at least 0 and below 1 / model.components="
            f"{1.0 / model.components:g}."
        )


def _check_sites(settings: Settings) -> None:
    """Refuse KL weights of latents that the model does not have."""
    latents = model_class(settings.model.name).latents_of(settings.model)
    for site in settings.train.beta_sites:
        if site not in latents:
            raise UserError(
                f"train.beta_sites.{site}: model '{settings.model.name}' has no latent '{site}'."
                f"{nearest(site, latents)} Its latents: {', '.join(latents)}."
            )


def _check_objective(settings: Settings) -> None:
    """Refuse multi-sample objectives with one particle, and settings that an objective does not support."""
    train = settings.train
    objective = f"train.objective={train.objective}"
    if train.objective in ("iwae", "fivo") and train.particles == 1:
        raise UserError(
            f"{objective} with train.particles=1 equals the ELBO. Set train.particles=8, or omit train.objective."
        )
    if train.free_bits.threshold is not None and train.objective not in ("elbo", "analytic"):
        raise UserError(
            f"{objective} has no KL terms, so train.free_bits has no effect. Omit train.free_bits, or set "
            "train.objective=elbo or analytic."
        )
    if train.objective == "dreg" and any(weight != train.beta for weight in train.beta_sites.values()):
        raise UserError(
            f"{objective} has one KL weight for all latents, and does not support train.beta_sites. Use iwae."
        )
    if train.objective == "dreg" and train.scheduled_sampling.schedule is not None:
        raise UserError(
            f"{objective} needs the full gradient of the draws, and scheduled sampling stops the gradient through the "
            "model's own output. Use train.objective=iwae."
        )
    if train.objective == "fivo" and train.scheduled_sampling.schedule and train.scheduled_sampling.mix == "h":
        raise UserError(
            f"{objective} draws latents frame by frame, but train.scheduled_sampling.mix=h needs all of them first. "
            "Set train.scheduled_sampling.mix=x."
        )


def _check_segments(settings: Settings) -> None:
    """Refuse settings that apply only to models of segments, or to models with sequence-level latents."""
    train, name = settings.train, settings.model.name
    discriminative = train.discriminative.alpha > 0.0 or train.discriminative.sequences is not None
    if discriminative and not model_class(name).hierarchical:
        raise UserError(
            f"train.discriminative has no effect: model '{name}' has no latent of the whole sequence. "
            "Omit it (train.discriminative.alpha=0), or use --model fhvae."
        )
    if model_class(name).hierarchical and train.objective not in ("elbo", "analytic"):
        raise UserError(
            f"train.objective={train.objective}: the segments of model '{name}' share latents, so there is no "
            "multi-sample bound of a single segment. Use train.objective=elbo or analytic."
        )
    if settings.data.segment_starts == "random" and settings.data.sequence_frames is None:
        raise UserError(
            "data.segment_starts=random has no effect on whole utterances (data.sequence_frames=null). "
            "Set data.sequence_frames, or omit data.segment_starts."
        )
    segment = getattr(settings.model, "segment", None)
    if segment is not None and settings.data.sequence_frames != segment:
        raise UserError(
            f"data.sequence_frames={settings.data.sequence_frames}: model '{name}' takes segments of model.segment="
            f"{segment} frames. Set both to the same number."
        )
    hop = settings.evaluation.segment_hop
    if hop is not None and segment is None:
        raise UserError(f"evaluation.segment_hop={hop} has no effect: model '{name}' takes whole utterances. Omit it.")
    if hop is not None and segment is not None and not 1 <= hop <= segment:
        raise UserError(
            f"evaluation.segment_hop={hop}: expected 1 to {segment} frames (model.segment); with more, frames would "
            "be left out. Null is model.segment."
        )


def _check_capture(settings: Settings) -> None:
    """Refuse a recorded step where steps differ in more than the numbers that are its inputs."""
    train = settings.train
    if not train.cuda_graph:
        return
    unsupported = {
        f"model '{settings.model.name}', whose utterances differ from batch to batch": (
            model_class(settings.model.name).hierarchical
        ),
        "train.scheduled_sampling, which runs frame by frame": train.scheduled_sampling.schedule is not None,
        "train.free_bits.halve_every, which changes the threshold": train.free_bits.halve_every is not None,
        f"train.objective={train.objective}, which reads its weights": train.objective in ("dreg", "fivo"),
    }
    for what, is_set in unsupported.items():
        if is_set:
            raise UserError(
                f"train.cuda_graph=true records a step once, which does not support {what}. Set train.cuda_graph=false."
            )


def _sizes(settings: Settings) -> Iterator[tuple[str, int]]:
    """Widths, depths and dimensions of model and guide: every integer in their settings is a size."""
    for part in ("model", "guide"):
        section = getattr(settings, part)
        for field in fields(section):
            if "range" in field.metadata:
                continue
            value = getattr(section, field.name)
            values = {f"[{i}]": v for i, v in enumerate(value)} if isinstance(value, list) else {"": value}
            for place, number in values.items():
                if isinstance(number, int) and not isinstance(number, bool):
                    yield f"{part}.{field.name}{place}", number


def check_scheduled_sampling(settings: ScheduledSamplingSettings, parents: Parents, model: str) -> None:
    """Refuse an inconsistent schedule, and scheduled sampling of a model that does not depend on past x.

    Args:
        settings: the settings of scheduled sampling.
        parents: the declared parents of the model's sites.
        model: the model's name.

    Raises:
        UserError: in both cases.
    """
    section = "train.scheduled_sampling"
    if settings.schedule is None:
        return
    if not any(parent.startswith("x[") for listed in parents.values() for parent in listed):
        raise UserError(
            f"{section}.schedule={settings.schedule} has no effect: model '{model}' does not depend on past x.\n"
            f"Omit {section}, or use a model that does, such as storn, vrnn or srnn."
        )
    if settings.schedule == "linear" and settings.end_epoch <= settings.start_epoch:
        raise UserError(
            f"{section}.end_epoch={settings.end_epoch}: expected more than start_epoch={settings.start_epoch}."
        )
