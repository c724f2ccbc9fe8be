"""What numbers of the settings must be: refused by key, before anything is built from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from dvae_pyro.errors import UserError, nearest
from dvae_pyro.fields import check_ranges
from inference.settings.tree import OptimSettings, ScheduledSamplingSettings, Settings

if TYPE_CHECKING:
    from models.structure.parents import Parents

__all__ = ["check_limits", "check_scheduled_sampling", "refuse_idle"]


def check_limits(settings: Settings) -> None:
    """Check all numbers that a run is built from.

    Raises:
        UserError: for the first one that nothing can be built from.
    """
    _check_ranges(settings)
    _check_sites(settings)
    _check_objective(settings)
    _check_segments(settings)
    _check_capture(settings)


def refuse_idle(layer: Mapping[str, Any], schedule: str) -> None:
    """Refuse settings of learning-rate schedules that the one in force does not use.

    Args:
        layer: what was given, by dotted key.
        schedule: the learning-rate schedule in force.

    Raises:
        UserError: for the first one.
    """
    used = {"constant": (), "exponential": ("decay_steps", "gamma", "min_lr"), "cosine": ("decay_steps", "min_lr")}
    users = {"decay_steps": "exponential or cosine", "gamma": "exponential", "min_lr": "exponential or cosine"}
    for name, which in users.items():
        value = layer.get(f"optim.{name}", getattr(OptimSettings, name))
        if name not in used[schedule] and value != getattr(OptimSettings, name):
            raise UserError(
                f"optim.{name}={value} says nothing with optim.schedule={schedule}. Add optim.schedule={which}."
            )


def _check_ranges(settings: Settings) -> None:
    train, optim = settings.train, settings.optim
    if train.steps is None and train.epochs is None:
        raise UserError("train.steps and train.epochs are both null: training would never end. Set one of them.")
    check_ranges(settings)
    at_least = {f"train.beta_sites.{site}": (weight, 0) for site, weight in train.beta_sites.items()}
    at_least |= {key: (size, 1) for key, size in _sizes(settings)}
    for key, (value, bound) in at_least.items():
        if not value >= bound:
            raise UserError(f"{key}={value}: expected at least {bound}.")
    _check_scales(settings.model)
    if not all(0 <= beta < 1 for beta in optim.betas):
        raise UserError(f"optim.betas={list(optim.betas)}: expected two numbers from 0 to below 1.")
    if train.autocast is not None and settings.dtype != "float32":
        raise UserError(f"train.autocast={train.autocast} is for dtype=float32, got {settings.dtype}. Leave one out.")


def _check_scales(model: Any) -> None:
    """Refuse bounds of deviations that are none, and weights that cannot be all components'."""
    bounds = model.scale_bounds
    if bounds is not None and not 0.0 < bounds[0] < bounds[1]:
        raise UserError(
            f"model.scale_bounds={list(bounds)}: expected the least and the largest standard deviation, both above 0, "
            "such as [0.001, 5]; null for none."
        )
    if not 0.0 <= model.weight_floor * model.components < 1.0:
        raise UserError(
            f"model.weight_floor={model.weight_floor}: expected at least 0 and below 1 / model.components="
            f"{1.0 / model.components:g}."
        )


def _check_sites(settings: Settings) -> None:
    """Refuse weights of latents that the model does not have."""
    from models.registry import model_class

    latents = model_class(settings.model.name).latents_of(settings.model)
    for site in settings.train.beta_sites:
        if site not in latents:
            raise UserError(
                f"train.beta_sites.{site}: model '{settings.model.name}' has no latent '{site}'."
                f"{nearest(site, latents)} Its latents: {', '.join(latents)}."
            )


def _check_objective(settings: Settings) -> None:
    """Refuse objectives that several draws are needed for, and what one of them cannot be had with."""
    train = settings.train
    chosen = f"train.objective={train.objective}"
    if train.objective in ("iwae", "fivo") and train.particles == 1:
        raise UserError(
            f"{chosen} with one particle is the ELBO. Say how many: train.particles=8, or leave train.objective away."
        )
    if train.free_bits.threshold is not None and train.objective not in ("elbo", "analytic"):
        raise UserError(
            f"{chosen} has no KL that free bits could hold for. Leave train.free_bits away, or take elbo or analytic."
        )
    if train.objective == "dreg" and any(weight != train.beta for weight in train.beta_sites.values()):
        raise UserError(f"{chosen} weighs all latents alike: train.beta_sites has no place in it. Take iwae.")
    if train.objective == "dreg" and train.scheduled_sampling.schedule is not None:
        raise UserError(
            f"{chosen} needs the whole gradient of the draws, and scheduled sampling stops it where the model is fed "
            "its own output. Take train.objective=iwae."
        )
    if train.objective == "fivo" and train.scheduled_sampling.schedule and train.scheduled_sampling.mix == "h":
        raise UserError(
            f"{chosen} draws latents frame by frame, and train.scheduled_sampling.mix=h needs all of them beforehand. "
            "Take mix x."
        )


def _check_segments(settings: Settings) -> None:
    """Refuse what only a model of segments, or of sequences above them, can be told."""
    from models.registry import model_class

    train, name = settings.train, settings.model.name
    idle = train.discriminative.alpha > 0.0 or train.discriminative.sequences is not None
    if idle and not model_class(name).hierarchical:
        raise UserError(
            f"train.discriminative says nothing to model '{name}': it has no latent of the sequence that z2 could tell."
            " Leave it out (train.discriminative.alpha=0), or take --model fhvae."
        )
    if model_class(name).hierarchical and train.objective not in ("elbo", "analytic"):
        raise UserError(
            f"train.objective={train.objective}: the segments of model '{name}' share latents, so a segment has no "
            "bound of several draws of its own. Take train.objective=elbo or analytic."
        )
    if settings.data.segment_starts == "random" and settings.data.sequence_frames is None:
        raise UserError(
            "data.segment_starts=random has no effect on whole utterances (data.sequence_frames=null). "
            "Set data.sequence_frames, or leave it out."
        )
    segment = getattr(settings.model, "segment", None)
    if segment is not None and settings.data.sequence_frames != segment:
        raise UserError(
            f"data.sequence_frames={settings.data.sequence_frames}: model '{name}' takes segments of model.segment="
            f"{segment} frames. Set both to the same number."
        )
    hop = settings.evaluation.segment_hop
    if hop is not None and segment is None:
        raise UserError(
            f"evaluation.segment_hop={hop} says nothing to model '{name}', which takes utterances whole. Leave it out."
        )
    if hop is not None and segment is not None and not 1 <= hop <= segment:
        raise UserError(
            f"evaluation.segment_hop={hop}: expected 1 to {segment} frames, a segment (model.segment), or frames would "
            "be left out; null is a segment."
        )


def _check_capture(settings: Settings) -> None:
    """Refuse a recorded step where steps differ in more than numbers that it is given."""
    from models.registry import model_class

    train = settings.train
    if not train.cuda_graph:
        return
    changing = {
        f"model '{settings.model.name}', whose utterances differ from batch to batch": (
            model_class(settings.model.name).hierarchical
        ),
        "train.scheduled_sampling, which goes frame by frame": train.scheduled_sampling.schedule is not None,
        "train.free_bits.halve_every, which changes its threshold": train.free_bits.halve_every is not None,
        f"train.objective={train.objective}, which looks at its weights": train.objective in ("dreg", "fivo"),
    }
    for what, found in changing.items():
        if found:
            raise UserError(
                f"train.cuda_graph=true records a step once, and cannot with {what}. Set train.cuda_graph=false."
            )


def _sizes(settings: Settings) -> Iterator[tuple[str, int]]:
    """Widths, depths and dimensions of model and guide: every whole number there is a size."""
    for part in ("model", "guide"):
        section = getattr(settings, part)
        for field in fields(section):
            value = getattr(section, field.name)
            values = {f"[{i}]": v for i, v in enumerate(value)} if isinstance(value, list) else {"": value}
            for place, number in values.items():
                if isinstance(number, int) and not isinstance(number, bool):
                    yield f"{part}.{field.name}{place}", number


def check_scheduled_sampling(settings: ScheduledSamplingSettings, parents: Parents, model: str) -> None:
    """Refuse a schedule that makes no sense, and a model that never sees the past of x.

    Args:
        settings: what was asked for.
        parents: the model's declaration.
        model: its name.

    Raises:
        UserError: if so.
    """
    section = "train.scheduled_sampling"
    if settings.schedule is None:
        return
    if not any(parent.startswith("x[") for listed in parents.values() for parent in listed):
        raise UserError(
            f"{section}.schedule={settings.schedule}: model '{model}' never looks back at x, so there is nothing to "
            f"put in its place.\nLeave {section} away, or take a model that does, such as storn, vrnn or srnn."
        )
    if settings.schedule == "linear" and settings.end_epoch <= settings.start_epoch:
        raise UserError(
            f"{section}.end_epoch={settings.end_epoch}: expected more than start_epoch={settings.start_epoch}."
        )
