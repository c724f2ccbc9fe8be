"""Public DVAE checkpoints as runs: ``python -m models.published CHECKPOINT CONFIG.ini --run RUN``.

Reads a checkpoint of the public DVAE code (a ``.pt`` state dict, or its arrays as ``.npz``) with the ``.ini`` that it
was trained with, and writes a run folder that every command accepts. The networks equal the published ones exactly:
the tests compare them with figures of the authors' code.

Two generations of that code differ in the constant added to a variance: 0 in DVAE-speech (2020), 1e-10 in DVAE_SE
(2023), which is `model.variance_floor` here. A model trained with scheduled sampling is evaluated free running
(`evaluation.mode=gen`), all others with the true past.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dvae_pyro.command_line import Parser, guarded
from dvae_pyro.errors import UserError
from dvae_pyro.program_names import program
from models.published.ini import Ini, read_ini
from models.published.mappings import FAMILIES, Place

if TYPE_CHECKING:
    from torch import Tensor, nn

    from inference.settings.tree import Settings

__all__ = ["convert", "main", "read_arrays", "settings_of"]

_LATER_SOURCE = {"User": ("print_model",), "Training": ("kl_warm_step", "ss_start", "ss_end")}
"""Keys that only ini files of DVAE_SE have."""


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read the arrays of a checkpoint by their published names, from a ``.npz`` or a state dict saved by
    ``torch.save``.

    No code in the file is executed.

    Raises:
        UserError: for a file that is missing, damaged, or holds anything but named arrays.
    """
    import numpy as np  # heavy, like all imports inside functions here: --help does not wait for them
    import torch

    if not path.is_file():
        raise UserError(f"{path}: no such file. Give a published checkpoint, .pt or .npz.")
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {name: torch.from_numpy(np.array(file[name])) for name in file.files}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as a checkpoint: {_first_line(error)} Is it complete?") from error
    except Exception as error:  # errors of unpickling have no common base class
        raise UserError(f"{path} is refused: it holds more than arrays. {_first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise UserError(
            f"{path} is not a state dict: expected tensors by name, as written by torch.save(model.state_dict(), ...)."
        )
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def settings_of(ini: Ini) -> Settings:
    """The settings tree that a public config describes.

    Raises:
        UserError: for a network, an activation or a front end that the library does not have.
    """
    from inference.settings.resolve import resolve

    name = ini.text("Network", "name")
    if name.lower() not in FAMILIES:
        raise UserError(f"{ini.path}: [Network] name = {name}; known: {', '.join(f.upper() for f in FAMILIES)}.")
    if ini.text("Network", "activation", "tanh").lower() != "tanh":
        raise UserError(
            f"{ini.path}: [Network] activation = {ini.text('Network', 'activation')}: only tanh is supported."
        )
    if ini.number("STFT", "zp_percent", 0) != 0:
        raise UserError(f"{ini.path}: [STFT] zp_percent must be 0: zero-padded FFTs are not supported.")
    later = any(ini.has(section, key) for section, keys in _LATER_SOURCE.items() for key in keys)
    scheduled = ini.has("Training", "ss_start") or ini.has("Training", "ss_end")
    rate = ini.integer("STFT", "fs", 16000)
    window = round(ini.number("STFT", "wlen_sec") * rate)
    bins = ini.integer("Network", "x_dim")
    if bins != window // 2 + 1:
        raise UserError(
            f"{ini.path}: [Network] x_dim = {bins} does not fit [STFT] wlen_sec: "
            f"a window of {window} samples has {window // 2 + 1} bins."
        )
    values: dict[str, object] = {
        "model.bins": bins,
        "model.z_dim": ini.integer("Network", "z_dim"),
        "model.input": "raw",
        "model.variance_floor": 1e-10 if later else 0.0,
        "data.rate": rate,
        "data.window": window,
        "data.hop": round(ini.number("STFT", "hop_percent") * window),
        "data.trim_db": 30.0 if ini.flag("STFT", "trim", True) else "null",
        "data.sequence_frames": ini.integer("DataFrame", "sequence_len", 150),
        "optim.lr": ini.number("Training", "lr", 1e-3),
        "optim.clip": "null",
        "train.kl_warmup_steps": 0,
        "train.batch_size": ini.integer("Training", "batch_size", 32),
        "train.epochs": ini.integer("Training", "epochs", 500),
        "train.patience": ini.integer("Training", "early_stop_patience", 20),
        "train.beta": ini.number("Training", "beta", 1.0),
        "evaluation.mode": "gen" if scheduled else "gt",
        **(_scheduled_sampling(ini) if name.lower() == "srnn" else {}),
        **FAMILIES[name.lower()].settings(ini),
    }
    return resolve(name.lower(), overrides=[f"{key}={value}" for key, value in values.items()])


def _scheduled_sampling(ini: Ini) -> dict[str, object]:
    """The scheduled sampling of the public code, for the case that the run is trained further."""
    start, end = ini.integer("Training", "ss_start", 0), ini.integer("Training", "ss_end", 0)
    schedule = {"schedule": "linear", "start_epoch": start, "end_epoch": end, "mix": "h", "coin": "batch"}
    return {f"train.scheduled_sampling.{key}": value for key, value in schedule.items()} if end > start >= 0 else {}


def convert(checkpoint: Path, config: Path, run: Path) -> Settings:
    """Write the run folder; returns its settings.

    Raises:
        UserError: if checkpoint and config do not belong together, or the folder holds a run.
    """
    import torch

    from inference.runs import create, write_run

    ini = read_ini(config)
    settings = settings_of(ini)
    arrays = read_arrays(checkpoint)
    model, guide = create(replace(settings, device="cpu"))
    places = FAMILIES[settings.model.name].places(settings)
    wanted = {name: _shape(model, guide, place) for name, place in places.items()}
    missing, unknown = sorted(set(wanted) - set(arrays)), sorted(set(arrays) - set(wanted))
    if missing or unknown:
        raise UserError(
            f"{checkpoint} is not the checkpoint of {config} ({settings.model.name}):"
            + (f" it lacks {_some(missing)}." if missing else "")
            + (f" It has unexpected keys {_some(unknown)}." if unknown else "")
        )
    for name, array in arrays.items():
        if not bool(torch.isfinite(array).all()):
            raise UserError(f"{checkpoint}: {name} has NaN or infinite values. Is the file complete?")
        if tuple(array.shape) != wanted[name]:
            raise UserError(
                f"{checkpoint}: {name} has shape {tuple(array.shape)}, {config} says {wanted[name]}. "
                "Give the .ini of this checkpoint."
            )
    with torch.no_grad():
        for name, place in places.items():
            place.of(model, guide).copy_(arrays[name])
    write_run(run, settings, model, guide)
    return settings


def _shape(model: nn.Module, guide: nn.Module, place: Place) -> tuple[int, ...]:
    return tuple(place.of(model, guide).shape)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return (text[0] if text else type(error).__name__).rstrip(".") + "."


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = Parser("models.published", "Convert a public DVAE checkpoint and its .ini to a run folder.")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="state dict (.pt) or arrays (.npz)")
    parser.add_argument("config", type=Path, metavar="CONFIG.ini", help="the config that it was trained with")
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="run folder to create")

    def command() -> None:
        args = parser.parse(argv)
        settings = convert(args.checkpoint, args.config, args.run)
        model = settings.model
        print(
            f"{args.run}: {model.name}, {model.bins} bins, z_dim {model.z_dim}, evaluation.mode "
            f"{settings.evaluation.mode}"
        )
        print(f"next: {program('evaluation.resynthesis')} {args.run} --corpus folder --root DIR")

    return guarded(command)
