"""What TensorBoard, Weights & Biases and MLflow get; the last two as packages made up for the purpose."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile

from dvae_pyro.errors import UserError
from inference.runs import load_run
from inference.settings.resolve import resolve
from inference.training.monitor import examples as monitor
from inference.training.monitor.examples import pixels
from inference.training.monitor.writers import logger_names, open_writers
from inference.training.session import start
from tests.sounds import voice
from tests.support.runs import write_sounds

SMALL = ["data.corpus=folder", "model.bins=65", "data.hop=64", "model.z_dim=2", "model.z_x=[8]", "guide.x_z=[8]"]
SMALL += ["data.sequence_frames=50", "train.batch_size=4", "optim.lr=1e-2", "model.input=log"]


def trained(folder: Path, *overrides: str) -> Path:
    """A VAE trained for two epochs on sounds of five utterances."""
    sounds = {f"{split}/s{i}/{i}.wav": voice(0.5) for split in ("train", "valid") for i in range(5)}
    root = folder / "sounds"
    if not root.exists():
        write_sounds(root, sounds)
    run = folder / "run"
    settings = resolve("vae", overrides=[*SMALL, f"data.root={root}", f"run={run}", "train.epochs=2", *overrides])
    start(settings, lambda _: None)
    return run


def events_of(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run), size_guidance={"images": 0, "audio": 0})
    events.Reload()
    return events


def test_tensorboard_has_three_recordings_and_a_reconstruction_of_each_at_each_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "SHARE", 1.0)  # whatever the time that they take
    run = trained(tmp_path)
    valid = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines() if '"valid"' in line]
    best, steps = -np.inf, []
    for line in valid:
        if line["elbo"] > best:
            best = line["elbo"]
            steps.append(line["step"])
    events = events_of(run)
    names = {f"examples/{n}-{kind}" for n in (1, 2, 3) for kind in ("recording", "reconstruction")}
    assert set(events.Tags()["audio"]) == set(events.Tags()["images"]) == names
    for name in names:
        expected = steps if name.endswith("reconstruction") else steps[:1]
        assert [event.step for event in events.Audio(name)] == expected
        assert [event.step for event in events.Images(name)] == expected
    sound = events.Audio("examples/1-recording")[0]
    samples, rate = soundfile.read(io.BytesIO(sound.encoded_audio_string))
    assert rate == 16000 and len(samples) == pytest.approx(50 * 64, abs=130) and np.abs(samples).max() > 0.1
    picture = matplotlib.image.imread(io.BytesIO(events.Images("examples/1-recording")[0].encoded_image_string))
    assert picture.shape[:2] == (65, 50)
    assert "valid/kl_z" in events.Tags()["scalars"]


def test_examples_leave_the_training_as_it_is(tmp_path: Path) -> None:
    with_them = load_run(trained(tmp_path / "a")).model.state_dict()
    without = load_run(trained(tmp_path / "b", "train.examples=0", "train.tensorboard=false")).model.state_dict()
    assert all(value.equal(without[name]) for name, value in with_them.items())
    assert not list((tmp_path / "b" / "run").glob("events*"))


def test_examples_take_at_most_their_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "SHARE", 0.0)
    events = events_of(trained(tmp_path))
    assert {len(events.Audio(name)) for name in events.Tags()["audio"]} == {1}, "the first is always there"


def test_pixels_have_time_to_the_right_and_the_last_feature_on_top() -> None:
    frames = np.zeros((4, 3))
    frames[1, 2] = 1.0
    brightness = pixels(frames, 0.0, 1.0).astype(int).sum(-1)
    assert brightness.shape == (3, 4) and np.unravel_index(brightness.argmax(), (3, 4)) == (0, 1)


def test_wandb_and_mlflow_get_the_same_numbers_sounds_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, list[Any]] = {"wandb": [], "mlflow": []}
    run_of_wandb = SimpleNamespace(
        log=lambda values, step: logged["wandb"].append((step, values)), finish=lambda: logged["wandb"].append("finish")
    )

    def init(**more: Any) -> SimpleNamespace:
        logged["wandb"].append(more)
        return run_of_wandb

    wandb = SimpleNamespace(
        init=init,
        Audio=lambda samples, sample_rate: ("audio", len(samples), sample_rate),
        Image=lambda picture: ("image", picture.shape),
    )
    mlflow = SimpleNamespace(
        start_run=lambda run_name: logged["mlflow"].append(run_name),
        log_metrics=lambda values, step: logged["mlflow"].append((step, values)),
        log_artifact=lambda file, folder: logged["mlflow"].append((folder, soundfile.read(file)[1])),
        log_image=lambda picture, file: logged["mlflow"].append((file, picture.shape)),
        end_run=lambda: logged["mlflow"].append("end"),
    )
    for name, package in (("wandb", wandb), ("mlflow", mlflow)):
        monkeypatch.setitem(sys.modules, name, package)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    for writer in open_writers(["wandb", "mlflow"], tmp_path / "run", 3):
        writer.scalars({"train/elbo": 1.5}, 4)
        writer.sound("examples/1-recording", np.zeros(100, np.float32), 16000, 4)
        writer.picture("examples/1-recording", np.zeros((5, 7, 3), np.uint8), 4)
        writer.flush()
        writer.close()
    begun, *rest = logged["wandb"]
    assert begun["name"] == "run" and begun["resume"] == "allow" and begun["dir"] == str(tmp_path / "run")
    assert rest == [
        (4, {"train/elbo": 1.5}),
        (4, {"examples/1-recording": ("audio", 100, 16000)}),
        (4, {"examples/1-recording": ("image", (5, 7, 3))}),
        "finish",
    ]
    assert logged["mlflow"] == [
        "run",
        (4, {"train/elbo": 1.5}),
        ("examples", 16000),
        ("examples-1-recording-4.png", (5, 7, 3)),
        "end",
    ]


def test_loggers_are_named_and_missing_packages_are_said(tmp_path: Path) -> None:
    assert logger_names("tensorboard, mlflow,tensorboard") == ["tensorboard", "mlflow"] and logger_names("none") == []
    with pytest.raises(UserError, match="unknown 'tensorbord'.*tensorboard"):
        logger_names("tensorbord")
    with pytest.raises(UserError, match="pip install wandb"):
        open_writers(["wandb"], tmp_path, 0)
