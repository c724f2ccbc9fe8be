"""Ini files of the public DVAE code; errors name file, section and key."""

from __future__ import annotations

import configparser
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvae_pyro.errors import UserError

__all__ = ["Ini", "read_ini"]


@dataclass(frozen=True)
class Ini:
    """A public config."""

    path: Path
    parser: configparser.ConfigParser

    def has(self, section: str, key: str) -> bool:
        return self.parser.has_option(section, key)

    def text(self, section: str, key: str, default: str | None = None) -> str:
        if not self.has(section, key):
            if default is None:
                raise UserError(
                    f"{self.path} lacks '{key}' in section [{section}]: it is not a config of the public DVAE code."
                )
            return default
        return self.parser.get(section, key).strip()

    def _as(self, kind: Callable[[str], Any], what: str, section: str, key: str, default: object) -> Any:
        text = self.text(section, key, None if default is None else str(default))
        try:
            return kind(text)
        except ValueError as error:
            raise UserError(f"{self.path}: [{section}] {key} = {text}: expected {what}.") from error

    def number(self, section: str, key: str, default: float | None = None) -> float:
        value: float = self._as(float, "a number", section, key, default)
        return value

    def integer(self, section: str, key: str, default: int | None = None) -> int:
        value: int = self._as(int, "a whole number", section, key, default)
        return value

    def flag(self, section: str, key: str, default: bool) -> bool:
        def read(text: str) -> bool:
            return (
                {"true": True, "false": False}[text.lower()] if text.lower() in ("true", "false") else bool(int(text))
            )

        value: bool = self._as(read, "True or False", section, key, default)
        return value

    def widths(self, key: str) -> list[int]:
        """A ``dense_*`` list of layer widths; an empty list is the identity."""

        def read(text: str) -> list[int]:
            return [int(part) for part in text.split(",") if part.strip()]

        value: list[int] = self._as(read, "whole numbers separated by commas", "Network", key, "")
        return value


def read_ini(path: Path) -> Ini:
    """Read a public config.

    Raises:
        UserError: for a file that is missing or is not an ini file.
    """
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=("#", ";"))
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}. Give the .ini that the checkpoint was trained with."
        ) from error
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not an ini file: {str(error).splitlines()[0]}") from error
    return Ini(path, parser)
