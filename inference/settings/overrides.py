"""Layers of settings: dotted keys from YAML or the command line, set one by one in a typed tree.

Keys are set one by one, not merged at once, so that each error message can name the key, its source and the expected
type.
"""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # no stubs, and OmegaConf brings the package

from dvae_pyro.errors import UserError, first_line, nearest
from dvae_pyro.fields import expected_choice
from guides.registry import current_name

__all__ = [
    "absent",
    "apply_layer",
    "config_names",
    "current_names",
    "parse_overrides",
    "quoted",
    "read_config",
    "read_layer",
]

Layer = Mapping[str, Any]

ABSENT: Layer = {"model.scale_bounds": None, "model.weight_floor": 0.0, "model.activation": "tanh"}
"""Settings that older run folders lack, by dotted key, with the value that those runs were trained with, where it
differs from today's default.
"""


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` strings into a layer; values are YAML.

    Example:
        >>> parse_overrides(["optim.lr=1e-3", "model.hidden=[64, 32]", "optim.clip=null"])
        {'optim.lr': 0.001, 'model.hidden': [64, 32], 'optim.clip': None}
    """
    layer: dict[str, Any] = {}
    for item in overrides:
        key, equals, _ = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"'{item}' is not a setting: expected key=value, such as optim.lr=1e-3.")
        try:
            layer.update(read_layer(OmegaConf.from_dotlist([item])))
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"'{item}': the value is not readable as YAML: {first_line(error)}") from error
    return layer


def quoted(value: str) -> str:
    r"""Quote a string so that YAML reads it as this string, for any content.

    Example:
        >>> parse_overrides(["run=1_000", "data.root=" + quoted("1_000")])
        {'run': 1000, 'data.root': '1_000'}
    """
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def config_names() -> list[str]:
    """Names of the packaged configs, folder/row, as accepted by --config."""
    root = importlib.resources.files("configs")
    folders = [entry for entry in root.iterdir() if entry.is_dir()]
    names = [f"{d.name}/{f.name[:-5]}" for d in folders for f in d.iterdir() if f.name.endswith(".yaml")]
    return sorted(names)


def read_config(config: str | Path) -> dict[str, Any]:
    """Read a YAML file, or a packaged config by its name, as a layer.

    Raises:
        UserError: if `config` is neither, or does not hold a YAML mapping.
    """
    path = Path(config)
    if not path.is_file():
        names = config_names()
        if str(config) not in names:
            hint = nearest(str(config), names) or f" Packaged configs: {', '.join(names) or 'none'}."
            raise UserError(f"--config {config}: neither a file nor a packaged config.{hint}")
        path = Path(str(importlib.resources.files("configs").joinpath(f"{config}.yaml")))
    try:
        tree = OmegaConf.load(path)
    except (YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not readable as YAML: {first_line(error)}") from error
    if not isinstance(tree, DictConfig):
        raise UserError(f"{path} holds no settings: expected a YAML mapping such as 'model: {{name: dkf}}'.")
    return read_layer(tree)


RENAMED: Mapping[str, str] = {
    "data.short": "data.short_utterances",
    "data.noise": "data.dequantise",
    "data.domains": "data.conditions",
    "train.capture": "train.cuda_graph",
}
"""Keys of earlier versions and the keys that replace them."""
GONE: Layer = {"model.levels": 2, "guide.sessions": None}
"""Settings that no longer exist, by dotted key, with the only value that is still read."""
ALIASES: Mapping[str, str] = {"data.set": "data.subset"}
"""Alternative keys that stay valid."""


def current_names(layer: Layer, source: str) -> dict[str, Any]:
    """A layer with keys of earlier versions replaced by today's; a note on standard error lists them once.

    Example:
        >>> current_names({"data.set": "dev", "seed": 1}, "")
        {'data.subset': 'dev', 'seed': 1}
    """
    for key, value in GONE.items():
        if layer.get(key, value) != value:
            raise UserError(f"{key}={layer[key]}: this setting no longer exists; only {key}={value} can still be read.")
    layer = {key: value for key, value in layer.items() if key not in GONE}
    old = [key for key in layer if key in RENAMED]
    if old:
        _note(source, ", ".join(f"{key} is now {RENAMED[key]}" for key in old))
    current = {ALIASES.get(key, RENAMED.get(key, key)): value for key, value in layer.items()}
    if "guide.name" in current:
        current["guide.name"] = current_name(current["guide.name"])
    return current


@functools.cache
def _note(source: str, renamed: str) -> None:
    print(f"note: {source or 'the command line'} has settings of an earlier version: {renamed}", file=sys.stderr)


def absent(tree: DictConfig, layer: Layer) -> dict[str, Any]:
    """The settings that the config of an older run folder lacks, with the values that the run was trained with."""
    known = read_layer(tree)
    return {key: value for key, value in ABSENT.items() if key in known and key not in layer}


def read_layer(tree: DictConfig) -> dict[str, Any]:
    """The leaves of a tree by dotted key; lists count as values, interpolations are not resolved."""
    return dict(_leaves(OmegaConf.to_container(tree, resolve=False), ""))


def _leaves(node: object, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and (node or not key):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def apply_layer(tree: DictConfig, layer: Layer, source: str) -> None:
    """Set the keys of one layer in the tree; messages name its `source`.

    A layer that sets only one of `train.steps` and `train.epochs` sets the other to null. The names of model and guide
    are skipped: they have selected the classes of their sections already.
    """
    prefix = f"{source}: " if source else ""
    for one, other in (("train.steps", "train.epochs"), ("train.epochs", "train.steps")):
        if layer.get(one) is not None and other not in layer:
            OmegaConf.update(tree, other, None)
    for key, value in layer.items():
        if key in ("model.name", "guide.name"):
            continue
        _refuse_unknown(tree, key, prefix)
        try:
            OmegaConf.update(tree, key, value, merge=False)
        except OmegaConfBaseException as error:
            raise UserError(f"{prefix}{key} takes {_expected(tree, key)}, got {value!r}.") from error
        choices = _choices(tree, key)
        if choices and value not in choices and not OmegaConf.is_interpolation(*_place(tree, key)):
            raise UserError(f"{prefix}{key} takes {_expected(tree, key)}, got {value!r}.")


def _refuse_unknown(tree: DictConfig, key: str, prefix: str) -> None:
    known = list(read_layer(tree))
    parent = key.rpartition(".")[0]
    if key in known or _is_open(tree, parent):
        return
    inside = [name for name in known if name.startswith(f"{key}.")]
    if inside:
        raise UserError(f"{prefix}'{key}' is a section, not a value. Set its keys, such as {inside[0]}=...")
    namesakes = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f" Did you mean '{namesakes[0]}'?" if namesakes else nearest(key, known)
    hint = hint or " --print-config (with --model) lists all settings."
    raise UserError(f"{prefix}unknown setting '{key}'.{hint}")


def _is_open(tree: DictConfig, key: str) -> bool:
    """Whether a field is a mapping with arbitrary keys, such as `train.beta_sites`."""
    node = OmegaConf.select(tree, key, throw_on_missing=False) if key else None
    return isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict


def _place(tree: DictConfig, key: str) -> tuple[DictConfig, str]:
    """The section that holds a key, and the key's last part."""
    parent, _, name = key.rpartition(".")
    return (OmegaConf.select(tree, parent) if parent else tree), name


def _choices(tree: DictConfig, key: str) -> tuple[bool | str | None, ...]:
    """The values that a key takes, if its field declares them (`dvae_pyro.fields.one_of`)."""
    section, name = _place(tree, key)
    owner = OmegaConf.get_type(section)
    declared = fields(owner) if is_dataclass(owner) else ()
    return next((item.metadata.get("choices", ()) for item in declared if item.name == name), ())


def _expected(tree: DictConfig, key: str) -> str:
    """What a key takes, in words: 'int or null', 'one of adam, adamw'."""
    choices = _choices(tree, key)
    if choices:
        return expected_choice(choices)
    section, name = _place(tree, key)
    node: Any = section._get_node(name)  # OmegaConf has no public access to the type of a field that holds null
    if node is None:  # a new key of a mapping with arbitrary keys
        return str(section._metadata.element_type.__name__)
    kind = node._metadata.ref_type
    text = kind.__name__ if isinstance(kind, type) and not hasattr(kind, "__args__") else str(kind)
    return f"{text} or null" if node._metadata.optional else text
