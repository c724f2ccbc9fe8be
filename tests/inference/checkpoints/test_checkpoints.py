"""Checkpoints: whole or not there, read without running code, refused with the reason."""

from __future__ import annotations

import errno
import io
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from dvae_pyro.errors import UserError
from evaluation.reporting.audio import write_sound
from evaluation.reporting.plots import save_picture
from inference.checkpoints.files import check_names, load_checkpoint, load_weights, save_checkpoint, snapshot

STATE = {
    "model_name": "vae",
    "guide_name": "paper",
    "model": {"w": torch.arange(5000.0)},
    "guide": {},
    "step": 3,
    "epoch": 1,
    "batch": 2,
}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    state = load_checkpoint(path)
    assert state["step"] == 3 and torch.equal(state["model"]["w"], torch.arange(5000.0))
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def _refuse_fsync(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("way", ["fsync", "size limit"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if way == "fsync":
        monkeypatch.setattr(os, "fsync", _refuse_fsync)
    else:  # a limit of the system itself, so that the write stops half way
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"last\.pt.*(No space left|File too large)"):
            save_checkpoint(path, {**STATE, "step": 4})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def _checkpoint(path: Path) -> None:
    save_checkpoint(path, STATE)


def _sound(path: Path) -> None:
    write_sound(path, np.zeros(10), 8000)


def _picture(path: Path) -> None:
    save_picture(Figure(), path)


@pytest.mark.parametrize(("write", "name"), [(_checkpoint, "last.pt"), (_sound, "a.wav"), (_picture, "a.png")])
def test_a_failed_write_leaves_no_view_of_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path], None], name: str
) -> None:
    """One in the traceback, in a cycle with its stream, is a segmentation fault of CPython up to 3.12.3."""
    streams = []

    class Kept(io.BytesIO):
        def __init__(self, *args: bytes) -> None:
            super().__init__(*args)
            streams.append(self)

    monkeypatch.setattr(io, "BytesIO", Kept)
    monkeypatch.setattr(os, "fsync", _refuse_fsync)
    with pytest.raises(UserError) as error:
        write(tmp_path / name)
    assert streams and error.tb is not None
    for stream in streams:
        stream.close()  # a BufferError, where there is a view


def test_a_cut_checkpoint_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for size in (0, 1, 10, 500, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=rf"{path} .*\({size} bytes\)"):
            load_checkpoint(path)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(UserError, match=str(path)):
        load_checkpoint(path)
    path.write_text("model: dkf\n")
    with pytest.raises(UserError, match=rf"{path} .*\(11 bytes\)"):
        load_checkpoint(path)
    torch.save({"enc.weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match=f"{path}.*\n.*models.published"):
        load_checkpoint(path)
    torch.save({**STATE, "format": 99}, path)
    with pytest.raises(UserError, match=" 99.* 1"):
        load_checkpoint(path)


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, ("touch harmed",))


@pytest.mark.parametrize("plain", [False, True])
def test_a_checkpoint_that_carries_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    if plain:
        path.write_bytes(pickle.dumps(_Harmful()))
    else:
        torch.save({**STATE, "format": 1, "extra": _Harmful()}, path)
    with pytest.raises(UserError, match=rf"{path} .*(code|bytes)"):
        load_checkpoint(path)
    assert not (tmp_path / "harmed").exists()


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model 'vae'.* model 'dkf'"):
        check_names(STATE, "dkf", "paper", tmp_path / "last.pt")
    with pytest.raises(UserError, match="guide 'paper'.* guide 'all-markov'"):
        check_names(STATE, "vae", "all-markov", tmp_path / "last.pt")


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(UserError, match=r"weight .*\(3, 2\).*\(4, 2\)"):
        load_weights(torch.nn.Linear(2, 4), torch.nn.Linear(2, 3).state_dict(), "model", path)
    with pytest.raises(UserError, match="bias .*checkpoint"):
        load_weights(torch.nn.Linear(2, 4), {"weight": torch.zeros(4, 2)}, "model", path)
    with pytest.raises(UserError, match="bias .*model"):
        load_weights(torch.nn.Linear(2, 4, bias=False), torch.nn.Linear(2, 4).state_dict(), "model", path)


def test_weights_are_read_by_their_earlier_names(tmp_path: Path) -> None:
    """Those of Z-Forcing's network from z to b, in runs trained with guide.auxiliary."""
    module = torch.nn.ModuleDict({"b_head": torch.nn.Linear(2, 3)})
    weights = {"b_told.weight": torch.ones(3, 2), "b_told.bias": torch.zeros(3)}
    load_weights(module, weights, "guide", tmp_path / "last.pt")
    assert all(torch.equal(module.state_dict()[f"b_head.{k}"], weights[f"b_told.{k}"]) for k in ("weight", "bias"))


def test_a_snapshot_does_not_follow_later_steps() -> None:
    net = torch.nn.Linear(2, 2)
    copy = snapshot(net)
    with torch.no_grad():
        net.weight.add_(1.0)
    assert torch.equal(copy["weight"] + 1.0, net.weight)
