"""What README and docs show is run: models, doctests, command lines. Generated pages are whole."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

import pytest

from corpora.frontends.registry import FRONT_ENDS
from corpora.registry import CORPORA
from docs import generator
from docs.generator import badges
from dvae_pyro.fields import bounded, one_of
from guides.registry import compliant
from inference import svi
from inference.settings.overrides import config_names
from inference.settings.resolve import resolve
from models.likelihoods.base import LIKELIHOODS
from models.registry import MODELS, model_class
from tests.support.contract import CLAUSES, keep

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def shown_commands() -> list[str]:
    """Every ``python -m ...`` of a fenced or indented block, without what leads up to it."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"^(?: {4})?(?:.*/)?python (-m [^#\n]+?)(?: #.*)?$", text, flags=re.MULTILINE)
    return sorted({command.strip() for line in found for command in re.split(r" && \S*python ", line)})


@pytest.fixture
def arvae(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The model of docs/how-to/adding_a_model.md, registered as the page says."""
    page = (ROOT / "docs" / "how-to" / "adding_a_model.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(code) == 1
    (tmp_path / "arvae_of_the_docs.py").write_text(code[0], encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(MODELS, "arvae", "arvae_of_the_docs:ARVAE")
    monkeypatch.delitem(sys.modules, "arvae_of_the_docs", raising=False)
    return "arvae"


@pytest.mark.parametrize("owed", CLAUSES)
@pytest.mark.parametrize("guide", ["paper", "future-markov"])
def test_the_model_on_one_page_keeps_the_contract(arvae: str, guide: str, owed: str) -> None:
    keep(owed, arvae, guide)


def test_its_guides_are_as_the_page_says(arvae: str) -> None:
    assert compliant(model_class(arvae).Settings(name=arvae)) == "past-meanfield"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_in_python_is_what_happens(page: Path) -> None:
    result = doctest.testfile(str(page), module_relative=False)
    assert result.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        assert path.exists() or path.relative_to(ROOT / "docs").as_posix() in generator.PAGES, target


def test_no_text_has_control_characters() -> None:
    """Such as the bell for the ``\\a`` of a formula that a program has interpreted."""
    folders = ("dvae_pyro", "models", "guides", "inference", "evaluation", "corpora", "benchmarks", "tests", "docs")
    sources = [file for folder in folders for end in ("py", "md") for file in (ROOT / folder).rglob(f"*.{end}")]
    control = re.compile(r"[\x00-\x08\x0b-\x1f]")
    assert len(sources) > 500 and not [file for file in sources if control.search(file.read_text(encoding="utf-8"))]


def test_every_page_is_in_the_navigation() -> None:
    shown = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE))
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert shown == written | set(generator.PAGES)


@pytest.mark.parametrize(
    ("prefix", "cls"),
    [pytest.param(prefix, cls, id=heading) for heading, prefix, cls, _ in generator.settings.classes()],
)
def test_every_setting_has_a_meaning(prefix: str, cls: type) -> None:
    unexplained = [one.key for one in generator.settings.settings_of(cls, prefix) if not one.meaning]
    assert not unexplained, f"add a line to the section Attributes of {cls.__name__} or of the class it nests"


@pytest.mark.parametrize("cls", [pytest.param(cls, id=heading) for heading, _, cls, _ in generator.settings.classes()])
def test_meanings_are_of_settings_that_exist(cls: type) -> None:
    assert set(generator.settings.meanings(cls)) <= {item.name for item in fields(cls)}


def test_a_setting_without_a_meaning_is_found() -> None:
    @dataclass
    class Documented:
        """Settings.

        Attributes:
            known: What it means,
                in two lines.
        """

        known: int = bounded(1, at_least=1)
        unknown: float | None = None
        choice: str | None = one_of(None, "a", "b")

    known, unknown, choice = generator.settings.settings_of(Documented, "part.")
    assert known == ("part.known", "int", "1", "at least 1", "What it means, in two lines.")
    assert unknown == ("part.unknown", "float | null", "null", "", None)
    assert choice == ("part.choice", "a | b | null", "null", "", None)


def test_generated_pages_hold_every_command_and_setting() -> None:
    pages = generator.pages()
    assert {"inference.svi", "evaluation.resynthesis", "evaluation.traverse"} <= set(generator.commands.commands())
    assert pages["reference/commands.md"].count("usage: python -m ") == len(generator.commands.commands())
    for registry in (MODELS, CORPORA, FRONT_ENDS, LIKELIHOODS, config_names()):
        for name in registry:
            assert re.search(rf"^\| `{name}` \| \S", pages["reference/names.md"], flags=re.MULTILINE), name
    keys = re.findall(r"^\| `([\w.]+)` \|", pages["reference/settings.md"], flags=re.MULTILINE)
    assert set(_keys(resolve("srnn", "all-markov", None, []))) <= set(keys)


@pytest.mark.parametrize("name", badges.badges())
def test_badges_are_of_this_version(name: str) -> None:
    written = (badges.FOLDER / name).read_text(encoding="utf-8")
    assert written == badges.badges()[name], "run python -m docs.generator.badges"
    assert f"(docs/images/badges/{name})" in (ROOT / "README.md").read_text(encoding="utf-8")


def _keys(settings: object, prefix: str = "") -> Iterator[str]:
    for item in fields(settings):  # type: ignore[arg-type]  # any dataclass
        value = getattr(settings, item.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{item.name}.")
        else:
            yield f"{prefix}{item.name}"


def test_commands_are_found() -> None:
    assert len(shown_commands()) > 10


@pytest.mark.parametrize("command", shown_commands())
def test_commands_exist_and_training_takes_its_settings(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, module, *arguments = shlex.split(command)
    assert importlib.util.find_spec(module) is not None
    if module == "inference.svi" and "--resume" not in arguments:
        assert svi.main([*arguments, "--print-config"]) == 0, capsys.readouterr().err
