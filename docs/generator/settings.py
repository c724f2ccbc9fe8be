"""reference/settings.md: every setting with its meaning, default, type and range, from the dataclasses."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field
from typing import Any, NamedTuple

from evaluation.restoration.settings import RestorationSettings
from guides.core.guide import GuideSettings
from guides.registry import guide_class, guide_names
from inference.settings.tree import Settings
from models.dvae import ModelSettings
from models.registry import MODELS, model_class

__all__ = ["Setting", "classes", "meanings", "page", "settings_of"]


class Setting(NamedTuple):
    """A setting of a run.

    Attributes:
        key: dotted key, as on the command line.
        type: its annotation.
        default: its default, as YAML has it.
        range: limits on its value; empty where there are none.
        meaning: its text in the section Attributes of its class; None where that has none.
    """

    key: str
    type: str
    default: str
    range: str
    meaning: str | None


def settings_of(cls: type, prefix: str, own: bool = False) -> list[Setting]:
    """The settings of a dataclass and of the dataclasses nested in it.

    Args:
        cls: the dataclass.
        prefix: dotted key of the section, with a dot at its end.
        own: leave out fields that a base class declares with the same default.
    """
    texts = meanings(cls)
    listed: list[Setting] = []
    for item in dataclasses.fields(cls):
        nested = item.default_factory if isinstance(item.default_factory, type) else None
        if nested is not None and dataclasses.is_dataclass(nested):
            listed += settings_of(nested, f"{prefix}{item.name}.")
        elif not (own and _inherited(cls, item)):
            limits = item.metadata.get("range", {})
            listed.append(
                Setting(
                    key=f"{prefix}{item.name}",
                    type=_type_text(item),
                    default=_yaml(_default(item)),
                    range=" and ".join(f"{word.replace('a number ', '')} {bound}" for word, bound in limits.items()),
                    meaning=texts.get(item.name),
                )
            )
    return listed


def classes() -> Iterator[tuple[str, str, type, bool]]:
    """Heading, prefix of keys, settings class, and whether only its own fields count, of every section."""
    yield "Run", "", Settings, False
    yield "Enhancement, separation and inpainting", "", RestorationSettings, False
    yield "Every model", "model.", ModelSettings, False
    for name in MODELS:
        yield f"Model `{name}`", "model.", model_class(name).Settings, True
    yield "Every guide", "guide.", GuideSettings, False
    seen: dict[type, tuple[list[str], str]] = {}
    for model in MODELS:
        for guide in guide_names():
            if guide == "compliant" or (guide != "paper" and model not in {"dkf", "ms_stcn"}):
                continue  # the family and the ladder have one class each
            try:
                cls = guide_class(model, guide)
            except ValueError:
                continue  # the guide does not support the model
            owner = f"paper guide of {model}" if guide == "paper" else guide
            seen.setdefault(cls.Settings, ([], cls.__name__))[0].append(owner)
    for settings, (owners, _) in seen.items():
        if settings is not GuideSettings:
            yield f"Guide: {', '.join(owners)}", "guide.", settings, True


def page() -> str:
    """The page in Markdown."""
    parts = [_HEAD]
    for heading, prefix, cls, own in classes():
        listed = [s for s in settings_of(cls, prefix, own) if s.key not in {"model", "guide"}]
        listed = [s for s in listed if not (own and s.key.endswith(".name"))]
        groups: dict[str, list[Setting]] = {}
        for setting in listed:
            section = setting.key.rpartition(".")[0] if not own and not prefix else ""
            groups.setdefault(section, []).append(setting)
        parts.append(f"## {heading}\n")
        if not listed:
            parts.append("No settings of its own.\n")
        for section, members in groups.items():
            if section:
                parts.append(f"### `{section}`\n")
            parts.append(_table(members))
    return "\n".join(parts)


_HEAD = """# Settings

This page is written from the settings classes when the site is built. Every key can be given on the command line as
`key=value`, or in a YAML file given by `--config`. The settings of a run are the defaults of its model,
then `--config`, then `key=value`; an unknown key, a wrong type or a value outside its range is an error that names the
key. `python -m inference.svi --model NAME --print-config` prints the resolved settings of a model;
the run folder has them in `config.yaml`.

Some models and corpora imply other values than the defaults below (`defaults` of the model's class, and
`corpora.registry.CORPUS_DEFAULTS`): `--print-config` shows what applies. Earlier names of renamed
keys are read with a note.
"""


def _table(settings: list[Setting]) -> str:
    rows = ["| key | default | type and range | meaning |", "|---|---|---|---|"]
    for one in settings:
        kind = f"`{one.type}`" + (f"; {one.range}" if one.range else "")
        cells = (f"`{one.key}`", f"`{one.default}`", kind, one.meaning or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def meanings(cls: type) -> dict[str, str]:
    """The texts of the sections Attributes of a class and of its bases, by field."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        section = re.search(r"^Attributes:\n((?:    .*\n?|\n)*)", inspect.cleandoc(base.__doc__ or ""), re.MULTILINE)
        if section:
            for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section[1], re.MULTILINE):
                texts |= {name.strip(): " ".join(text.split()) for name in names.split(",")}
    return {name: _in_yaml(text[0].upper() + text[1:]) for name, text in texts.items()}


def _in_yaml(text: str) -> str:
    """Python's None and reStructuredText's literals, as YAML and Markdown have them."""
    return re.sub(r"\bNone\b", "null", text.replace("``", "`"))


def _inherited(cls: type, item: Field[Any]) -> bool:
    for base in cls.__mro__[1:]:
        declared = base.__dict__.get("__dataclass_fields__", {}).get(item.name)
        if declared is not None:
            return bool(_yaml(_default(declared)) == _yaml(_default(item)))
    return False


def _default(item: Field[Any]) -> Any:
    if item.default is not MISSING:
        return item.default
    return item.default_factory() if item.default_factory is not MISSING else None


def _yaml(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_yaml, value))}]"
    return str(value)


def _type_text(item: Field[Any]) -> str:
    choices = item.metadata.get("choices", ())
    if choices:
        return " | ".join(_yaml(choice) for choice in sorted(choices, key=lambda choice: choice is None))
    annotation = item.type
    text = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    return text.replace("None", "null")
