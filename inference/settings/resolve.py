"""The settings tree of a run, as typed dataclasses, and how it is filled.

Model defaults < what front end and corpus imply < YAML config < key=value. The sections `model` and `guide` come from
the classes that the names stand for, so a wrong key or type is refused by name whatever the model is. Neither torch nor
a model is imported before `resolve` is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dvae_pyro.errors import UserError, first_line
from dvae_pyro.files import write_atomically
from guides.registry import current_name
from inference.settings.overrides import absent, apply_layer, current_names, parse_overrides, read_config
from inference.settings.tree import Settings
from inference.settings.validation import check_limits, check_scheduled_sampling, refuse_idle

__all__ = ["load_run_settings", "resolve", "save_settings", "to_yaml"]

_SCHEDULE = "train.scheduled_sampling.schedule"
_SHORT = {
    "train.scheduled_sampling": _SCHEDULE,
    "train.free_bits": "train.free_bits.threshold",
    "train.discriminative": "train.discriminative.alpha",
}


def resolve(
    model: str | None = None,
    guide: str | None = None,
    config_path: str | Path | None = None,
    overrides: Sequence[str] = (),
) -> Settings:
    """Fill the settings tree: model defaults < what front end and corpus imply < YAML config < key=value.

    Args:
        model: name of the model; null takes `model.name` of the overrides or the config.
        guide: name of the guide; null takes `guide.name` of the overrides or the config, else "paper".
        config_path: path of a YAML file, or the name of a packaged config such as "benchmark/dkf".
        overrides: `key=value` strings with dotted keys.
    """
    config = read_config(config_path) if config_path is not None else {}
    return _resolve(model, guide, config, "config" if config_path is None else str(config_path), overrides)


def _resolve(
    model: str | None,
    guide: str | None,
    config: Mapping[str, Any],
    where: str,
    overrides: Sequence[str],
    *,
    of_run: bool = False,
) -> Settings:
    """`resolve` with the config read; one of a run folder may be older than a setting."""
    config = _spelled_out(current_names(config, where))
    given = _spelled_out(current_names(parse_overrides(overrides), ""))
    model_name = _choose("model", model, given, config)
    guide_name = _choose("guide", None if guide is None else current_name(guide), given, config) or "paper"
    from models.registry import model_class, model_names

    if model_name is None:
        raise UserError(f"No model is named. Add --model NAME; models are: {', '.join(model_names())}.")
    tree = OmegaConf.structured(Settings)
    cls = model_class(model_name)
    tree.model = OmegaConf.structured(cls.Settings)
    tree.model.name = model_name
    from guides.registry import guide_class

    tree.guide = OmegaConf.structured(guide_class(model_name, guide_name).Settings)
    tree.guide.name = guide_name
    scheduled = given.get(_SCHEDULE, config.get(_SCHEDULE)) is not None
    implied: dict[str, Any] = {"evaluation.mode": "gen"} if scheduled else {}
    if given.get("train.model_from", config.get("train.model_from")) is not None:
        implied["train.kl_warmup_steps"] = 0  # it keeps a model from neglecting its latents; this one is trained
    defaults = {**cls.defaults, **implied}
    from corpora.frontends.waveform import waveform_defaults
    from corpora.registry import CORPUS_DEFAULTS

    corpus = str(given.get("data.corpus", config.get("data.corpus", tree.data.corpus)))
    of_corpus = CORPUS_DEFAULTS.get(corpus, {})
    said = {**defaults, **of_corpus, **config, **given}
    of_waveform = waveform_defaults(said)
    for layer, source in (
        (defaults, f"defaults of {model_name}"),
        (of_waveform, "defaults of waveforms"),
        (cls.waveform_defaults(of_waveform["model.bins"]) if of_waveform else {}, f"{model_name} of waveforms"),
        (of_corpus, f"defaults of {corpus}"),
        (absent(tree, config) if of_run else {}, where),
        (config, where),
        (given, ""),
    ):
        apply_layer(tree, layer, source)
    refuse_idle(given if "optim.schedule" in {**given, **config} else {**config, **given}, tree.optim.schedule)
    idle = [key for key in given if key.startswith("train.scheduled_sampling.") and key != _SCHEDULE]
    if idle and not scheduled:
        raise UserError(f"{idle[0]} says nothing without a schedule. Add {_SCHEDULE}=constant, linear or staircase.")
    settings = _finish(tree)
    check_scheduled_sampling(settings.train.scheduled_sampling, cls.parents(settings.model), model_name)
    return settings


def load_run_settings(run: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a run, changed by `overrides`; `settings.run` is where the run lies now."""
    path = Path(run) / "config.yaml"
    if not Path(run).is_dir():
        raise UserError(f"No run folder at {run}. Train one with: python -m inference.svi --model dkf --run {run}")
    if not path.is_file():
        raise UserError(f"{run} is no run folder: it holds no config.yaml. Give the folder that --run named.")
    trained = current_names(read_config(path), str(path))
    given = _spelled_out(current_names(parse_overrides(overrides), ""))
    for key in ("model.name", "guide.name"):
        if key in given and given[key] != trained.get(key):
            raise UserError(
                f"{key}={given[key]} contradicts the run {run}, which is of {key}={trained.get(key)}.\n"
                "Leave it away, or train another run."
            )
    scheduled, was_scheduled = given.get(_SCHEDULE, trained.get(_SCHEDULE)), trained.get(_SCHEDULE)
    if bool(scheduled) != bool(was_scheduled) and "evaluation.mode" not in given:
        overrides = [*overrides, f"evaluation.mode={'gen' if scheduled else 'gt'}"]  # the run's is the other default
    settings = _resolve(None, None, trained, str(path), overrides, of_run=True)
    settings.run = str(run)
    return settings


def to_yaml(settings: Settings) -> str:
    """The whole tree as YAML, ready to be a --config."""
    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved tree; the file is whole or not there."""
    write_atomically(path, to_yaml(settings).encode())


def _spelled_out(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer with what may be said for short, train.scheduled_sampling=linear, under its full key."""
    return {_SHORT.get(key, key): value for key, value in layer.items()}


def _choose(part: str, flag: str | None, given: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The model's or guide's name: the command line's, else the config's."""
    key = f"{part}.name"
    if flag is not None and str(given.get(key, flag)) != flag:
        raise UserError(f"--{part} {flag} contradicts {key}={given[key]}. Give one of them.")
    name = flag or given.get(key) or config.get(key)
    return None if name is None else str(name)


def _finish(tree: DictConfig) -> Settings:
    try:
        settings = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise UserError(f"The settings do not resolve: {first_line(error)}") from error
    assert isinstance(settings, Settings)
    check_limits(settings)
    from corpora.registry import check_data

    check_data(settings.data)
    return settings
