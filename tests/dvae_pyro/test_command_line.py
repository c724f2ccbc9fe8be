"""The parser that all commands share, how a command ends, and the scripts beside folders of the user's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from docs.generator.commands import commands, script
from dvae_pyro.command_line import Parser, guarded, nearest_path, refuse_shadowed
from dvae_pyro.commands import commands_of, run_package
from dvae_pyro.errors import UserError
from dvae_pyro.program_names import SCRIPTS, as_called, own_process, program
from evaluation.reporting.command_line import evaluation_parser

ROOT = Path(__file__).resolve().parents[2]
ENTRIES: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
START = "import sys, runpy; from importlib.metadata import EntryPoint; sys.argv[0] = {name!r}; sys.path.remove(''); "
"""A console script: its folder, and not the present one, is searched for packages."""


def run_script(name: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Start a console script of pyproject.toml as an installed one starts, in a folder."""
    code = START + "sys.exit(EntryPoint({name!r}, {value!r}, 'console_scripts').load()())"
    return subprocess.run(
        [sys.executable, "-c", code.format(name=name, value=ENTRIES[name]), *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """A folder of a user who has packages of the same names."""
    for name in ("models", "inference", "evaluation"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the package of the user')")
    return tmp_path


def test_every_command_has_a_script_that_loads() -> None:
    assert set(ENTRIES) == set(SCRIPTS.values())
    for name, value in ENTRIES.items():
        assert callable(EntryPoint(name, value, "console_scripts").load())
    assert {script(command).split()[0] for command in commands()} == set(ENTRIES)


def test_scripts_work_beside_folders_of_the_same_names(beside: Path) -> None:
    described = run_script("dvae-describe", "--model", "vae", cwd=beside)
    assert described.returncode == 0 and described.stdout.startswith("model vae"), described.stderr
    listed = run_script("dvae-eval", "resynthesis", "--help", cwd=beside)
    assert listed.returncode == 0 and listed.stdout.startswith("usage: dvae-eval resynthesis RUN"), listed.stderr


def test_python_m_takes_the_users_there_and_says_so_where_it_can(beside: Path) -> None:
    (beside / "inference" / "__init__.py").unlink()
    (beside / "inference").rmdir()
    found = subprocess.run(
        [sys.executable, "-m", "inference.svi", "--model", "vae"],
        cwd=beside,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode != 0
    assert str(beside / "models") in found.stderr and "dvae-train" in found.stderr
    assert "Traceback" not in found.stderr


def test_processes_of_ours_find_our_packages_there_too(beside: Path) -> None:
    command, environment = own_process("inference")
    found = subprocess.run(command, cwd=beside, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "svi" in found.stdout, found.stderr


def test_our_own_packages_are_not_refused() -> None:
    refuse_shadowed()
    with pytest.raises(UserError, match=f"{Path(json.__file__).parent}.*'json'"):
        refuse_shadowed(["json"])


def test_packages_list_their_commands_and_run_them(capsys: pytest.CaptureFixture[str]) -> None:
    for package, name in (("evaluation", "likelihood"), ("inference", "svi")):
        assert run_package(package, []) == 0
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line.strip().startswith(name + " ")]
        assert line.endswith(commands_of(package)[name].summary)
        assert run_package(package, ["liklihood" if name == "likelihood" else "svj"]) == 2
        assert f"'{name}'" in capsys.readouterr().err
        with pytest.raises(SystemExit) as ended:
            run_package(package, [name, "--help"])
        assert ended.value.code == 0 and f"{package}.{name}" in capsys.readouterr().out
    summaries = [
        command.summary for package in ("evaluation", "inference") for command in commands_of(package).values()
    ]
    assert all(summaries) and len(set(summaries)) == len(summaries), "each says in one line what it does"


def parser() -> Parser:
    made = Parser("evaluation.test", "A test.")
    made.add_argument("run", metavar="RUN")
    made.add_argument("--noisy", required=True, metavar="PATH")
    made.add_argument("--only", nargs="+")
    made.add_argument("--particles", type=int, default=3)
    made.add_settings()
    return made


def test_a_list_of_values_ends_at_a_setting() -> None:
    read = parser().parse(["RUN", "--only", "a", "b", "optim.lr=1", "dtype=x", "--noisy", "c=d", "seed=2"])
    assert (read.only, read.noisy, read.run) == (["a", "b"], "c=d", "RUN")
    assert sorted(read.settings) == ["dtype=x", "optim.lr=1", "seed=2"]
    assert parser().parse(["RUN", "--noisy", "n", "seed=2"]).settings == ["seed=2"]
    assert parser().parse(["RUN", "--noisy", "n"]).settings == []


def test_a_list_of_values_ends_at_a_run_folder(tmp_path: Path) -> None:
    runs = [str(tmp_path / name) for name in ("first", "second", "third")]
    for run in runs:
        Path(run).mkdir()
        (Path(run) / "config.yaml").touch()
    read = parser().parse(["--noisy", "n", "--only", "a", "b", runs[0]])
    assert (read.run, read.only, read.settings) == (runs[0], ["a", "b"], [])
    read = parser().parse([runs[0], "--noisy", "n", "--only", "a", runs[1], runs[2], "--particles", "2"])
    assert (read.run, read.only, read.settings) == (runs[0], ["a"], runs[1:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN", "--nosy", "x"], "unknown option --nosy. Did you mean '--noisy'?"),
        (["RUN", "--noisy", "x", "--part", "3"], "unknown option --part. Did you mean '--particles'?"),
        (["RUN", "--noisy", "x", "--draws=3"], "unknown option --draws. It is called --particles."),
        (["RUN", "--noisy", "x", "--split", "test"], "unknown option --split.\n"),
        (["RUN"], "required: --noisy"),
        (["--noisy", "x"], "required: RUN\n"),
    ],
)
def test_wrong_options_are_named_with_the_right_ones(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse(words)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and message in said
    assert said.startswith("usage: python -m evaluation.test RUN --noisy PATH [options] [key=value ...]\n")


def test_the_program_is_the_one_that_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/dvae-eval"])
    assert program("evaluation.likelihood") == "dvae-eval likelihood" and program("inference.svi") == "dvae-train"
    assert evaluation_parser("likelihood", "").prog == "dvae-eval likelihood"
    message = "Train: python -m inference.svi --run r\nthen (python -m evaluation.enhance) or python -m pip install x"
    assert as_called(message) == "Train: dvae-train --run r\nthen (dvae-eval enhance) or python -m pip install x"
    monkeypatch.setattr(sys, "argv", ["svi.py"])
    assert program("inference.svi") == "python -m inference.svi" and as_called(message) == message


def test_a_missing_folder_is_answered_by_the_one_that_was_meant(tmp_path: Path) -> None:
    (tmp_path / "vrnn-paper").mkdir()
    assert nearest_path(tmp_path / "vrnn-papr") == f" Did you mean '{tmp_path}/vrnn-paper'?"
    assert nearest_path(tmp_path / "none" / "x") == nearest_path(tmp_path / "quite-other") == ""


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_how_a_command_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(lambda: None) == 0
    assert guarded(raising(UserError("no such run"))) == 2
    assert capsys.readouterr().err == "error: no such run\n"
    assert guarded(raising(KeyboardInterrupt())) == 130
    assert "nothing was written" in capsys.readouterr().err
    assert guarded(raising(KeyboardInterrupt("saved at step 3"))) == 130
    assert "saved at step 3" in capsys.readouterr().err
    with pytest.raises(BrokenPipeError):  # of a process that computes, while our reader is there
        guarded(raising(BrokenPipeError()))


@pytest.mark.parametrize(("arguments", "status"), [(["inference.svi", "--help"], 0), (["evaluation"], 141)])
def test_output_that_nobody_reads_any_more_ends_quietly(arguments: list[str], status: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (found.returncode, found.stderr) == (status, "")
