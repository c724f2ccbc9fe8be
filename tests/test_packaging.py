"""What is shipped: the wheel runs elsewhere, the configs are the papers', README and checks agree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from inference.runs import create
from inference.settings import config_names, resolve, to_yaml

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("configs", "corpora", "evaluation", "guides", "inference", "models")
PARAMETERS = {
    "benchmark2021/vae": 220_385,
    "benchmark2021/dkf": 397_729,
    "benchmark2021/dkf_equal_kl": 397_729,
    "light2023/vae_wsj0": 138_273,
    "light2023/vae_vb": 138_273,
    "light2023/dkf_wsj0": 516_641,
    "light2023/dkf_vb": 516_641,
}
"""Published counts: of the released weights at 257 bins, of the authors' corrected benchmark at 513."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built from a copy so that nothing is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "tests", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))"
    run = subprocess.run(
        [sys.executable, "-c", build, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return folder / run.stdout.split()[-1]


def test_wheel_holds_the_packages_typed_and_the_configs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"{package}/py.typed" for package in PACKAGES}
    expected |= {str(f.relative_to(ROOT)) for p in PACKAGES for f in (ROOT / p).rglob("*.py")}
    expected |= {str(f.relative_to(ROOT)) for f in (ROOT / "configs").rglob("*.yaml")}
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("LICENSE") for name in names)


def test_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    command = [sys.executable, "-W", "error", "-m", "inference.svi", "--print-config"]
    run = subprocess.run(
        [*command, "--config", "benchmark2021/dkf"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout == to_yaml(resolve(config_path="benchmark2021/dkf"))


@pytest.mark.parametrize("name", config_names())
def test_config_gives_the_published_number_of_parameters(name: str) -> None:
    settings = resolve(config_path=name)
    modules = create(settings)
    unique = {id(p): p.numel() for module in modules for p in module.parameters()}
    assert sum(unique.values()) == PARAMETERS[name]
    assert (settings.data.corpus, settings.data.root) == ("synthetic", None), "the corpus is the user's to give"
    assert settings.data.window == 2 * (settings.model.bins - 1)


def test_every_config_has_its_row() -> None:
    assert sorted(PARAMETERS) == config_names()


def test_historical_and_equal_kl_weights_differ_in_nothing_else() -> None:
    historical = resolve(config_path="benchmark2021/dkf")
    equal = resolve(config_path="benchmark2021/dkf_equal_kl")
    assert historical.train.beta == pytest.approx(1 / (150 * 32), rel=1e-12)
    assert equal.train.beta == 1.0
    historical.train.beta = equal.train.beta
    assert historical == equal


def test_readme_begins_with_two_commands_and_the_checks_run_the_second() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = readme.split("```")[1].splitlines()[1:]
    assert len(lines) == 2, "the first fenced block is two commands, one line each"
    first, second = lines
    assert "python -m inference.svi --model dkf" in first and "-m evaluation.resynthesis" in first
    install, _, test = second.rpartition(" && ")
    assert "pip install -c constraints.txt" in install and ".[dev]" in install
    assert re.fullmatch(r"\.venv/bin/python -m pytest( -n \d+)?", test)
    checks = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "README.md | sed -n 2p" in checks, ".ci/run takes the second command from README.md"
    script = checks[checks.index("readme=") : checks.index("\n\n", checks.index("readme="))]
    shown = subprocess.run(
        ["bash", "-c", f'work=/w\n{script}\nprintf "%s\\n" "$install" "$tests"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.splitlines() == [part.replace(".venv", "/w/venv") for part in (install, test)]


def test_constraints_pin_every_dependency_and_no_build_tag() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {pin.partition("==")[0].lower().replace("_", "-") for pin in pins}
    assert {re.split(r"[<>=]", want)[0] for want in wanted} <= pinned
