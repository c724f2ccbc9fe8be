"""Run folders: creating them, and loading model and guide from one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from dvae_pyro.errors import UserError
from dvae_pyro.files import disk_errors
from guides.registry import build_guide
from inference.checkpoints.files import check_names, load_checkpoint, load_weights, save_checkpoint
from inference.checkpoints.shared import SHARED
from inference.checkpoints.state import TrainState, pack
from inference.settings.resolve import load_run_settings, save_settings
from inference.settings.tree import Settings
from models.nn.initialisation import glorot
from models.registry import build_model

if TYPE_CHECKING:
    from guides.core.guide import Guide
    from models.dvae import DVAE

__all__ = [
    "Run",
    "create",
    "default_folder",
    "device_name",
    "device_text",
    "find_checkpoint",
    "load_run",
    "pick_device",
    "pick_dtype",
    "recreate",
    "refuse_existing",
    "take_model",
    "write_run",
]


FEATURES = ("frontend", "rate", "window", "hop", "frame_width", "trim_db", "dequantise")
"""Settings of the data that must equal those a model was trained with."""


class Run(NamedTuple):
    """A trained run, loaded for evaluation: `model` and `guide` are in eval mode on the requested device."""

    path: Path
    settings: Settings
    model: DVAE
    guide: Guide
    checkpoint_path: Path
    state: dict[str, Any]


def create(settings: Settings) -> tuple[DVAE, Guide]:
    """The model and guide that the settings describe, initialised from `settings.seed`.

    Weights are drawn in float32 on the CPU for every dtype and device, so that the initial weights do not depend on
    them. Sets the seed of torch's global generator.
    """
    device, dtype = pick_device(settings.device), pick_dtype(settings.dtype)
    torch.manual_seed(settings.seed)
    model = build_model(settings.model)
    guide = build_guide(model, settings.model, settings.guide)
    if settings.train.initialisation == "glorot":
        glorot(nn.ModuleList([model, guide]))
    return model.to(device=device, dtype=dtype), guide.to(device=device, dtype=dtype)


def recreate(settings: Settings, state: Mapping[str, Any], path: Path) -> tuple[DVAE, Guide]:
    """The model and guide that the settings describe, with the weights of a checkpoint read from `path`."""
    check_names(state, settings.model.name, settings.guide.name, path)
    model, guide = create(settings)
    load_weights(model, state["model"], "model", path)
    load_weights(guide, state["guide"], "guide", path)
    return model, guide


def load_run(
    run: str | Path, checkpoint: str | Path | None = None, device: str = "auto", overrides: Sequence[str] = ()
) -> Run:
    """Load a run for evaluation.

    Args:
        run: the run folder.
        checkpoint: a file name in the folder, or a path; None takes `best.pt`, else `last.pt`.
        device: the device for model and guide, independent of the one that the run was trained on; "auto" takes CUDA
            where there is one.
        overrides: `key=value` changes of its settings, such as "data.root=...".
    """
    path = Path(run)
    settings = load_run_settings(path, overrides)
    settings.device = device_name(device)
    checkpoint_path = find_checkpoint(path, checkpoint)
    state = load_checkpoint(checkpoint_path)
    model, guide = recreate(settings, state, checkpoint_path)
    return Run(path, settings, model.eval(), guide.eval(), checkpoint_path, state)


def take_model(model: DVAE, settings: Settings) -> Path:
    """Load the weights of the run `train.model_from` into a model; returns the checkpoint's path.

    Raises:
        UserError: if settings of model or data differ from those that the run was trained with.
    """
    source = Path(settings.train.model_from or "")
    trained = load_run_settings(source)
    sections = (("model", vars(settings.model), None), ("data", vars(settings.data), FEATURES))
    for name, ours, keys in sections:
        theirs = vars(getattr(trained, name))
        differ = [key for key in keys or theirs if ours.get(key) != theirs[key]]
        if differ:
            got = ", ".join(f"{name}.{key}={ours.get(key)}" for key in differ)
            remedy = " ".join(f"{name}.{key}={theirs[key]}" for key in differ if key != "name")
            raise UserError(
                f"train.model_from={source}: its model was trained with settings other than {got}.\n"
                + (f"Add {remedy}" if "name" not in differ else f"Give --model {theirs['name']}.")
            )
    checkpoint = find_checkpoint(source)
    load_weights(model, load_checkpoint(checkpoint)["model"], "model", checkpoint)
    return checkpoint


def find_checkpoint(run: Path, checkpoint: str | Path | None = None) -> Path:
    """The checkpoint to evaluate: `checkpoint`, else the run's `best.pt`, `last.pt`, or the file of a shared run."""
    names = (
        [run / "best.pt", run / "last.pt", run / SHARED] if checkpoint is None else [run / checkpoint, Path(checkpoint)]
    )
    for path in names:
        if path.is_file():
            return path
    if checkpoint is not None:
        raise UserError(f"No checkpoint {checkpoint}: there is no such file in {run}, nor at this path.")
    raise UserError(
        f"{run} has no checkpoint (best.pt or last.pt).\nTrain it first: python -m inference.svi --run {run} ..."
    )


def write_run(path: Path, settings: Settings, model: DVAE, guide: Guide) -> None:
    """Write a run folder for weights from another source; it can be evaluated, and trained further from step 0."""
    refuse_existing(path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        (path / "metrics.jsonl").write_bytes(b"")
    save_settings(settings, path / "config.yaml")
    rng = torch.Generator().manual_seed(settings.seed).get_state()
    contents = pack(TrainState(), settings, model, guide, rng=rng)
    save_checkpoint(path / "last.pt", contents)
    save_checkpoint(path / "best.pt", contents)


def refuse_existing(run: Path) -> None:
    """Refuse a run folder that already holds a run, or a path that is a file."""
    if run.exists() and not run.is_dir():
        raise UserError(f"--run {run} is a file, not a folder. Give another --run.")
    for name in ("last.pt", "best.pt"):
        if (run / name).exists():
            raise UserError(
                f"{run} already holds a run ({name}). Resume it: python -m inference.svi --resume {run}\n"
                "or give another --run."
            )


def default_folder(settings: Settings) -> Path:
    """A new folder for a training: runs/MODEL-GUIDE-DATE-TIME."""
    name = f"{settings.model.name}-{settings.guide.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path, count = Path("runs") / name, 1
    while path.exists():
        count += 1
        path = Path("runs") / f"{name}-{count}"
    return path


def device_name(name: str) -> str:
    """The device that a setting names: "auto" is "cuda" where PyTorch finds a CUDA device, else "cpu"."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def device_text(name: str) -> str:
    """A device as it is printed: ``cpu``, or ``cuda (NVIDIA H100)``."""
    device = pick_device(name)
    return f"{name} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else name


def pick_device(name: str) -> torch.device:
    """The device of this name, or the one that "auto" stands for.

    Raises:
        UserError: for an unknown device, or one that is not available.
    """
    try:
        device = torch.device(device_name(name))
    except RuntimeError as error:
        raise UserError(f"unknown device '{name}': expected auto, cpu, cuda or cuda:0 and so on.") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device '{name}' is not available: PyTorch {torch.__version__} finds {count} CUDA devices.\n"
                "Use --device cpu, or install the CUDA build of PyTorch on a machine with an NVIDIA GPU."
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' is not available: it needs a Mac with Apple silicon. Use --device cpu.")
    elif device.type not in ("cpu", "mps"):
        raise UserError(f"unknown device '{name}': expected auto, cpu, cuda or cuda:0 and so on.")
    return device


def pick_dtype(name: str) -> torch.dtype:
    """The floating-point type of weights and data."""
    return {"float32": torch.float32, "float64": torch.float64}[name]
