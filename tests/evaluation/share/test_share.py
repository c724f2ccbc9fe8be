"""A shared run computes what the run computes, names no path of the machine, and comes back from a hub."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from omegaconf import OmegaConf

import dvae_pyro as dvae
from dvae_pyro.errors import UserError
from evaluation.likelihood.__main__ import main as likelihood_command
from evaluation.resynthesis.__main__ import main as resynthesis_command
from evaluation.share.__main__ import main
from inference.checkpoints.files import load_checkpoint
from inference.checkpoints.shared import save_shared
from tests.sounds import noise, voice
from tests.support.runs import SMALL_FHVAE, SMALL_SPECTRA, saved_run, write_sounds

SMALL = {"vrnn": ["model.h_dim=4"], "fhvae": SMALL_FHVAE}


def run_of(tmp_path: Path, model: str, *overrides: str) -> Path:
    """A run of initial weights with a corpus, and with a path of this machine wherever settings hold one."""
    root = write_sounds(tmp_path / "corpus", {f"test/{n}/{n}.wav": 0.5 * voice(0.3) + noise(4800) for n in "ab"})
    settings = [*SMALL_SPECTRA, "data.corpus=folder", f"data.root={root}", *SMALL[model], *overrides]
    bins = 64 if model == "fhvae" else 65
    return saved_run(tmp_path / "run", model, *settings, fit=torch.rand(20, bins, dtype=torch.float64)).path


def shared(run: Path, out: Path, *more: str) -> int:
    return main([str(run), "--out", str(out), "--licence", "cc-by-4.0", *more])


@pytest.mark.parametrize("model", SMALL)
def test_a_shared_run_computes_what_the_run_computes(model: str, tmp_path: Path) -> None:
    run, out = run_of(tmp_path, model, f"data.cache={tmp_path / 'cache'}"), tmp_path / "shared"
    assert shared(run, out) == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path.name
    ours, theirs = dvae.load(run), dvae.load(out)
    x = torch.rand(15, 2, ours.model.x_dim)
    before, after = ours.encode(x), theirs.encode(x)
    assert all(torch.equal(before[site], after[site]) for site in before)
    lengths = torch.tensor([15, 15])
    assert torch.equal(ours.decode(before, x, lengths), theirs.decode(after, x, lengths))
    assert theirs.step == ours.step and theirs.settings.data.root is None


def test_commands_take_a_shared_folder(tmp_path: Path) -> None:
    run, out = run_of(tmp_path, "vrnn"), tmp_path / "shared"
    assert shared(run, out) == 0
    arguments = ["--estimator", "elbo", "--particles", "3"]
    assert likelihood_command([str(run), *arguments, "--json", str(tmp_path / "ours.json")]) == 0
    root = str(tmp_path / "corpus")
    assert likelihood_command([str(out), "--root", root, *arguments, "--json", str(tmp_path / "theirs.json")]) == 0
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text())["metrics"] for name in ("ours", "theirs"))
    assert ours == theirs


def test_the_card_has_the_figures_of_the_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "vrnn")
    assert shared(run, tmp_path / "early") == 0
    assert "the card has no figures" in capsys.readouterr().err
    assert "The run has not been evaluated." in (tmp_path / "early" / "README.md").read_text()
    assert resynthesis_command([str(run), "--without-pesq", "--jobs", "0"]) == 0
    assert likelihood_command([str(run), "--estimator", "elbo", "--particles", "3"]) == 0
    assert shared(run, tmp_path / "late") == 0
    card = (tmp_path / "late" / "README.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines() if line.startswith("| ")]
    figures = {(row[0], row[3]): row for row in rows}
    resynthesis = json.loads((run / "resynthesis.json").read_text())["metrics"]["si_sdr"]
    assert figures["resynthesis", "SI-SDR dB"] == [
        *("resynthesis", "folder, test", "gt", "SI-SDR dB"),
        f"{resynthesis['mean']:.2f} ±{resynthesis['stderr']:.2f}",
        "2",
    ]
    elbo = json.loads((run / "likelihood.json").read_text())["metrics"]["elbo"]["per_frame"]
    expected = f"{elbo['mean']:.3f} ±{elbo['stderr']:.3f}"
    assert figures["likelihood", "ELBO, from samples, nats per frame"][4:] == [expected, "2"]
    assert not any("PESQ" in name for _, name in figures)  # not computed
    assert "compared with rows in mode gen" in card  # vrnn, given the true past
    front: Any = OmegaConf.create(card.split("---")[1])
    assert front["license"] == "cc-by-4.0" and {"vrnn", "speech"} <= set(front["tags"])
    assert "p(x_t | x_{1:t-1}, z_{1:t})" in card and "@inproceedings{vrnn," in card


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Path], list[dict[str, object]]]:
    """A hub with one repository, which is a local folder; returns what the client is asked for."""

    def with_repository(name: str, folder: Path) -> list[dict[str, object]]:
        calls: list[dict[str, object]] = []

        def snapshot_download(repo_id: str, **how: object) -> str:
            calls.append({"repo_id": repo_id, **how})
            if repo_id != name:
                raise huggingface_hub.errors.LocalEntryNotFoundError(f"no repository {repo_id}")
            return str(folder)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        return calls

    return with_repository


def test_a_run_comes_back_from_a_hub_as_its_card_says(
    tmp_path: Path, hub: Callable[[str, Path], list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = run_of(tmp_path, "vrnn"), tmp_path / "small-vrnn"
    assert shared(run, out) == 0
    calls = hub("someone/small-vrnn", out)
    (block,) = re.findall(r"^```python\n(.*?)^```", (out / "README.md").read_text(), re.M | re.S)
    import soundfile

    soundfile.write(tmp_path / "a.wav", voice(0.3), 16000)
    monkeypatch.chdir(tmp_path)
    names: dict[str, dvae.Run] = {}
    exec(block.replace("USER", "someone"), names)
    assert calls[0]["repo_id"] == "someone/small-vrnn" and calls[0]["revision"] is None
    for ours, theirs in zip(dvae.load(run).model.parameters(), names["run"].model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    dvae.load("hf:someone/small-vrnn@v1.0")
    assert calls[-1]["revision"] == "v1.0"
    with pytest.raises(UserError, match="hf:someone/else: no repository someone/else"):
        dvae.load("hf:someone/else")
    hub("someone/text", tmp_path)
    with pytest.raises(UserError, match=r"hf:someone/text .*config\.yaml"):
        dvae.load("hf:someone/text")


def test_nothing_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = run_of(tmp_path, "vrnn"), tmp_path / "shared"
    out.mkdir()
    assert shared(run, out) == 0
    assert shared(run, out) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(run), "--out", str(tmp_path / "other")])
    assert "--licence" in capsys.readouterr().err


def test_files_that_are_no_shared_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other, cut = tmp_path / "other.safetensors", tmp_path / "cut.safetensors"
    save_file({"weight": torch.ones(3)}, other)
    with pytest.raises(UserError, match=r"other\.safetensors .*evaluation\.share"):
        load_checkpoint(other)
    run = run_of(tmp_path, "vrnn")
    save_shared(cut, load_checkpoint(run / "best.pt"))
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut\.safetensors .*safetensors: "):
        load_checkpoint(cut)


@pytest.mark.parametrize("package", ["safetensors", "safetensors.torch", "huggingface_hub"])
def test_without_the_extra_it_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = run_of(tmp_path, "vrnn"), tmp_path / "shared"
    assert shared(run, out) == 0
    monkeypatch.setitem(sys.modules, package, None)
    if package == "safetensors.torch":
        assert shared(run, tmp_path / "again") == 2
        assert "pip install -e '.[hub]'" in capsys.readouterr().err
        return
    with pytest.raises(UserError, match=re.escape("pip install -e '.[hub]'")):
        dvae.load("hf:someone/run" if package == "huggingface_hub" else out)
