"""Layers of settings: dotted keys from YAML or the command line, set one by one in a typed tree.

Going key by key, and not by one merge, lets every refusal name its key, its source and what was expected.
"""

from __future__ import annotations

import functools
import importlib.resources
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]  # no stubs, and OmegaConf brings the package

from dvae_pyro.errors import UserError, first_line, nearest
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

ABSENT: Layer = {"model.scale_bounds": None, "model.activation": "tanh"}
"""Settings that are younger than some run folders, by dotted key, with what these runs were trained with, where the
default is another.
"""


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` strings into a layer; values are YAML.

    Example:
        >>> parse_overrides(["optim.lr=1e-3", "model.hidden=[64, 32]", "optim.clip=null"])
        {'optim.lr': 0.001, 'model.hidden': [64, 32], 'optim.clip': None}
    """
    given: dict[str, Any] = {}
    for item in overrides:
        key, equals, _ = item.partition("=")
        if not equals or not key.strip():
            raise UserError(f"'{item}' is no setting: expected key=value, such as optim.lr=1e-3.")
        try:
            given.update(read_layer(OmegaConf.from_dotlist([item])))
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"'{item}': the value is not readable as YAML: {first_line(error)}") from error
    return given


def quoted(value: str) -> str:
    r"""A string that YAML reads as this string, whatever is in it.

    Example:
        >>> parse_overrides(["run=1_000", "data.root=" + quoted("1_000")])
        {'run': 1000, 'data.root': '1_000'}
    """
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def config_names() -> list[str]:
    """Names of the packaged configs: folder/row, as --config takes them."""
    root = importlib.resources.files("configs")
    folders = [entry for entry in root.iterdir() if entry.is_dir()]
    names = [f"{d.name}/{f.name[:-5]}" for d in folders for f in d.iterdir() if f.name.endswith(".yaml")]
    return sorted(names)


def read_config(config: str | Path) -> dict[str, Any]:
    """The layer of a YAML file, or of a packaged config by its name.

    Raises:
        UserError: for neither, and for what is no mapping in YAML.
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
"""Settings by the names that they had in runs and configs of earlier versions."""
ALIASES: Mapping[str, str] = {"data.set": "data.subset"}
"""Further names of settings, by dotted key."""


def current_names(layer: Layer, source: str) -> dict[str, Any]:
    """A layer under the names that its settings have now; earlier ones are named once, on standard error.

    Example:
        >>> current_names({"data.set": "dev", "seed": 1}, "")
        {'data.subset': 'dev', 'seed': 1}
    """
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
    """The settings of a tree that the layer of a run folder lacks because it is older than these, as it was trained."""
    known = read_layer(tree)
    return {key: value for key, value in ABSENT.items() if key in known and key not in layer}


def read_layer(tree: DictConfig) -> dict[str, Any]:
    """The leaves of a tree by dotted key; lists are values, interpolations stay as written."""
    return dict(_leaves(OmegaConf.to_container(tree, resolve=False), ""))


def _leaves(node: object, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and (node or not key):
        for name, value in node.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def apply_layer(tree: DictConfig, layer: Layer, source: str) -> None:
    """Set the keys of one layer, which says where it is from by `source`.

    A layer that gives only `train.steps` or only `train.epochs` lifts the other limit. The names of model
    and guide were used to choose their classes, so they are set already.
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
    """Whether a field is a mapping of the user's own keys."""
    node = OmegaConf.select(tree, key, throw_on_missing=False) if key else None
    return isinstance(node, DictConfig) and OmegaConf.get_type(node) is dict


def _expected(tree: DictConfig, key: str) -> str:
    """The type a key takes, in words: 'int or null', 'one of adam, adamw'."""
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(tree, parent) if parent else tree
    node: Any = section._get_node(name)  # the only way to the declared type of a field that holds null
    kind = node._metadata.ref_type
    choices = getattr(kind, "__args__", ())
    if choices and all(isinstance(choice, str) for choice in choices):
        text = "one of " + ", ".join(choices)
    else:
        text = str(kind) if choices or not isinstance(kind, type) else kind.__name__
    return f"{text} or null" if node._metadata.optional else text
