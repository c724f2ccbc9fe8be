"""How the settings tree of a run is filled: layers in increasing precedence.

Model defaults < defaults of front end and corpus < YAML config < key=value. The sections `model` and `guide` have the
settings classes of the named model and guide, so wrong keys and types are reported for every model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from corpora.frontends.waveform import waveform_defaults
from corpora.registry import CORPUS_DEFAULTS, check_data
from dvae_pyro.command_line import nearest_path
from dvae_pyro.errors import UserError, first_line
from dvae_pyro.files import write_atomically
from guides.registry import current_name, guide_class
from inference.settings.overrides import absent, apply_layer, current_names, parse_overrides, read_config, read_layer
from inference.settings.tree import Settings
from inference.settings.validation import check_limits, check_scheduled_sampling, refuse_unused
from models.registry import model_class, model_names

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
    """Fill the settings tree: model defaults < defaults of front end and corpus < YAML config < key=value.

    Args:
        model: name of the model; None takes `model.name` of the overrides or the config.
        guide: name of the guide; None takes `guide.name` of the overrides or the config, else "paper".
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
    """`resolve` for a config that is read already; the config of a run folder may lack newer settings."""
    config = _full_keys(current_names(config, where))
    command_line = _full_keys(current_names(parse_overrides(overrides), ""))
    model_name = _choose("model", model, command_line, config)
    guide_name = _choose("guide", None if guide is None else current_name(guide), command_line, config) or "paper"
    if model_name is None:
        raise UserError(f"No model was given. Add --model NAME; models are: {', '.join(model_names())}.")
    tree = OmegaConf.structured(Settings)
    cls = model_class(model_name)
    tree.model = OmegaConf.structured(cls.Settings)
    tree.model.name = model_name
    for given in (config, command_line):
        if "train.kl_warmup_epochs" in given:
            given.setdefault("train.kl_warmup_steps", None)  # steps of a layer below would replace these epochs
    scheduled = command_line.get(_SCHEDULE, config.get(_SCHEDULE)) is not None
    implied: dict[str, Any] = {"evaluation.mode": "gen"} if scheduled else {}
    if command_line.get("train.model_from", config.get("train.model_from")) is not None:
        implied["train.kl_warmup_steps"] = 0  # warm-up prevents unused latents, and this model is trained already
    defaults = {**cls.defaults, **implied}
    corpus = str(command_line.get("data.corpus", config.get("data.corpus", tree.data.corpus)))
    corpus_layer = CORPUS_DEFAULTS.get(corpus, {})
    waveform_layer = waveform_defaults({**defaults, **corpus_layer, **config, **command_line})
    model_waveform_layer = cls.waveform_defaults(waveform_layer["model.bins"]) if waveform_layer else {}
    layers = [
        (defaults, f"defaults of {model_name}"),
        (waveform_layer, "defaults of waveforms"),
        (model_waveform_layer, f"waveform defaults of {model_name}"),
        (corpus_layer, f"defaults of {corpus}"),
        (absent(tree, config) if of_run else {}, where),
        (config, where),
        (command_line, ""),
    ]
    # The guide's class depends on settings of the model, and the keys of its section on that class: layers are applied
    # without that section first, then with it.
    known = read_layer(tree)
    for layer, source in layers:
        apply_layer(tree, {key: value for key, value in layer.items() if key in known}, source)
    tree.guide = OmegaConf.structured(guide_class(_object(tree.model), guide_name).Settings)
    tree.guide.name = guide_name
    for layer, source in layers:
        apply_layer(tree, layer, source)
    both = {**config, **command_line}
    refuse_unused(command_line if "optim.schedule" in both else both, tree.optim.schedule)
    unused = [key for key in command_line if key.startswith("train.scheduled_sampling.") and key != _SCHEDULE]
    if unused and not scheduled:
        raise UserError(f"{unused[0]} has no effect without a schedule. Add {_SCHEDULE}=constant, linear or staircase.")
    settings = _finish(tree)
    check_scheduled_sampling(settings.train.scheduled_sampling, cls.parents(settings.model), model_name)
    return settings


def load_run_settings(run: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a run, changed by `overrides`; `settings.run` is the run folder's present path."""
    path = Path(run) / "config.yaml"
    if not Path(run).is_dir():
        raise UserError(
            f"No run folder at {run}.{nearest_path(Path(run))}\n"
            f"Train one with: python -m inference.svi --model dkf --run {run}"
        )
    if not path.is_file():
        raise UserError(f"{run} is not a run folder: it has no config.yaml. Give the folder that --run named.")
    trained = current_names(read_config(path), str(path))
    changed = _full_keys(current_names(parse_overrides(overrides), ""))
    for key in ("model.name", "guide.name"):
        if key in changed and changed[key] != trained.get(key):
            raise UserError(
                f"{key}={changed[key]} contradicts the run {run}, which has {key}={trained.get(key)}.\n"
                f"Omit {key}, or train another run."
            )
    scheduled, was_scheduled = changed.get(_SCHEDULE, trained.get(_SCHEDULE)), trained.get(_SCHEDULE)
    if bool(scheduled) != bool(was_scheduled) and "evaluation.mode" not in changed:
        # config.yaml has the default mode of the run's earlier schedule
        overrides = [*overrides, f"evaluation.mode={'gen' if scheduled else 'gt'}"]
    settings = _resolve(None, None, trained, str(path), overrides, of_run=True)
    settings.run = str(run)
    return settings


def to_yaml(settings: Settings) -> str:
    """The whole tree as YAML, usable as a --config."""
    return OmegaConf.to_yaml(OmegaConf.structured(settings))


def save_settings(settings: Settings, path: Path) -> None:
    """Write the resolved tree to a YAML file, atomically."""
    write_atomically(path, to_yaml(settings).encode())


def _full_keys(layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer with abbreviations such as train.scheduled_sampling=linear under their full keys."""
    return {_SHORT.get(key, key): value for key, value in layer.items()}


def _choose(part: str, flag: str | None, command_line: Mapping[str, Any], config: Mapping[str, Any]) -> str | None:
    """The name of the model or guide: from the command line, else from the config."""
    key = f"{part}.name"
    if flag is not None and str(command_line.get(key, flag)) != flag:
        raise UserError(f"--{part} {flag} contradicts {key}={command_line[key]}. Give only one of them.")
    name = flag or command_line.get(key) or config.get(key)
    return None if name is None else str(name)


def _object(tree: DictConfig) -> Any:
    """The dataclass of a section, with interpolations resolved."""
    try:
        return OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise UserError(f"The settings do not resolve: {first_line(error)}") from error


def _finish(tree: DictConfig) -> Settings:
    settings = _object(tree)
    assert isinstance(settings, Settings)
    _tuples(settings)
    check_limits(settings)
    check_data(settings.data)
    return settings


def _tuples(settings: Any) -> None:
    """Turn lists into the tuples that the fields declare; OmegaConf does so itself from 2.4 on."""
    for item in fields(settings):
        value = getattr(settings, item.name)
        if is_dataclass(value):
            _tuples(value)
        elif isinstance(value, list) and str(item.type).startswith("tuple"):
            setattr(settings, item.name, tuple(value))
