"""Writers of numbers, sounds and pictures of a training: TensorBoard, Weights & Biases, MLflow (`train.logger`)."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from dvae_pyro.errors import UserError, nearest

__all__ = ["Writer", "logger_names", "open_writers"]

Pixels = NDArray[np.uint8]


class Writer(Protocol):
    """A place that gets numbers, sounds and pictures of steps."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, such as ``valid/kl_z``."""

    def sound(self, name: str, samples: NDArray[np.float32], rate: int, step: int) -> None:
        """A sound, full scale 1."""

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        """A picture (height, width, 3)."""

    def flush(self) -> None:
        """Write buffered data."""

    def close(self) -> None:
        """Close the writer."""


class TensorBoard:
    """Event files in the run folder.

    Args:
        run: the run folder.
        step: the last step that is kept; TensorBoard hides events after it.
    """

    def __init__(self, run: Path, step: int) -> None:
        with warnings.catch_warnings():
            # TensorBoard imports deprecated names of protobuf and NumPy, which users cannot fix.
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter
        self._writer: Any = SummaryWriter(str(run), purge_step=step + 1)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def sound(self, name: str, samples: NDArray[np.float32], rate: int, step: int) -> None:
        self._writer.add_audio(name, torch.from_numpy(samples)[None], step, sample_rate=rate)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._writer.add_image(name, pixels, step, dataformats="HWC")

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """Weights & Biases; a resumed run continues there. Its environment variables choose project and mode."""

    def __init__(self, run: Path, step: int) -> None:
        self._package = _package("wandb")
        identity = hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:16]
        self._run = self._package.init(dir=str(run), name=run.name, id=identity, resume="allow")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def sound(self, name: str, samples: NDArray[np.float32], rate: int, step: int) -> None:
        self._run.log({name: self._package.Audio(samples, sample_rate=rate)}, step=step)

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._run.log({name: self._package.Image(pixels)}, step=step)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._run.finish()


class Mlflow:
    """MLflow. Its environment variables choose server and experiment."""

    def __init__(self, run: Path, step: int) -> None:
        self._package = _package("mlflow")
        self._package.start_run(run_name=run.name)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        self._package.log_metrics(dict(values), step=step)

    def sound(self, name: str, samples: NDArray[np.float32], rate: int, step: int) -> None:
        import soundfile  # only where sounds are logged as files

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{name.replace('/', '-')}-{step}.wav"
            soundfile.write(file, samples, rate)
            self._package.log_artifact(str(file), "examples")

    def picture(self, name: str, pixels: Pixels, step: int) -> None:
        self._package.log_image(pixels, f"{name.replace('/', '-')}-{step}.png")

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._package.end_run()


WRITERS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": Wandb, "mlflow": Mlflow}


def logger_names(logger: str) -> list[str]:
    """The names in a value of `train.logger`.

    Raises:
        UserError: for an unknown name.

    Example:
        >>> logger_names("tensorboard,wandb"), logger_names("none")
        (['tensorboard', 'wandb'], [])
    """
    names = [name.strip() for name in logger.split(",") if name.strip() not in ("", "none")]
    for name in names:
        if name not in WRITERS:
            known = f"Known: {', '.join(WRITERS)}, separated by commas, or none."
            raise UserError(f"train.logger={logger}: unknown '{name}'.{nearest(name, list(WRITERS))} {known}")
    return list(dict.fromkeys(names))


def open_writers(names: Sequence[str], run: Path, step: int) -> list[Writer]:
    """Open writers by name; those that were opened are closed again if one cannot be.

    Args:
        names: names of `WRITERS`.
        run: the run folder.
        step: the step of the last line of the log that is kept.

    Raises:
        UserError: the package of one is not installed.
    """
    opened: list[Writer] = []
    try:
        for name in names:
            opened.append(WRITERS[name](run, step))
    except BaseException:
        for writer in opened:
            writer.close()
        raise
    return opened


def _package(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise UserError(f"train.logger={name}: package {name} is not installed: pip install {name}, or omit it.")
    return importlib.import_module(name)
