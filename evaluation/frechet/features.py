"""Feature vectors of sounds, from a given network or from log-mel bands."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dvae_pyro.errors import UserError, first_line

__all__ = ["LOG_MEL", "SPEAKER", "Extractor", "extract", "open_extractor"]

LOG_MEL, SPEAKER = "log_mel", "speaker"
BANDS = 80
FLOOR = 1e-6
"""Added to the power in a mel band: about that of noise 75 dB below a tone of full scale."""


class Extractor(NamedTuple):
    """Waveforms (N, samples) to features (N, d), or (N, t, d), which are averaged over t."""

    name: str
    features: Callable[[Tensor], Tensor]


def open_extractor(which: str, rate: int, device: str) -> Extractor:
    """The extractor with this name, or from this file.

    Args:
        which: ``"log_mel"``; ``"speaker"`` (`evaluation.frechet.speaker`); or a file: TorchScript (.pt, .ts, .jit), a
            program of `torch.export` (.pt2), or ONNX (.onnx). These files are executable programs: use only those that
            you trust.
        rate: sampling rate of the waveforms in Hz.
        device: device to compute on.

    Raises:
        UserError: the file does not exist or cannot be read.
    """
    if which == LOG_MEL:
        return Extractor("log-mel statistics", _LogMel(rate, device))
    if which == SPEAKER:
        from evaluation.frechet.speaker import SpeakerEncoder  # its weights are an optional package

        return Extractor("speaker embeddings (resemblyzer)", SpeakerEncoder(rate, device))
    path = Path(which)
    readers = {".pt": _torchscript, ".ts": _torchscript, ".jit": _torchscript, ".pt2": _exported, ".onnx": _onnx}
    if path.suffix not in readers:
        raise UserError(f"--features {which}: expected {LOG_MEL}, {SPEAKER} or a file ending in {', '.join(readers)}.")
    if not path.is_file():
        raise UserError(f"--features {which}: no such file.")
    return Extractor(path.name, readers[path.suffix](path, device))


@torch.no_grad()
def extract(extractor: Extractor, waveforms: Iterable[Tensor], what: str = "sounds") -> NDArray[np.float64]:
    """Features (N, d) of batches of waveforms (N, samples), which reach the extractor in float32.

    Args:
        extractor: the extractor.
        waveforms: the batches.
        what: what the waveforms are, for the message when there are fewer than two.

    Raises:
        UserError: there are fewer than two waveforms, or the output is not one vector for each.
    """
    vectors = []
    for batch in waveforms:
        features = extractor.features(batch.float())
        if features.dim() == 3:
            features = features.mean(1)
        if features.dim() != 2 or len(features) != len(batch):
            raise UserError(
                f"--features {extractor.name} made {tuple(features.shape)} of waveforms {tuple(batch.shape)}: expected "
                "(sounds, dimension), or (sounds, time, dimension)."
            )
        vectors.append(features.double().cpu().numpy())
    count = sum(map(len, vectors))
    if count < 2:
        raise UserError(f"{count} {what}: expected 2 or more. Give fewer --seconds, or more --sequences.")
    return np.concatenate(vectors)


class _LogMel:
    """Mean and standard deviation over time of 80 log-mel bands and of their differences from frame to frame.

    Hann windows of 64 ms every 10 ms, Slaney's mel bands up to half the rate, logarithm of power + `FLOOR`.
    """

    def __init__(self, rate: int, device: str) -> None:
        import librosa  # heavy, and only needed for log-mel features

        self.window = 2 * round(0.032 * rate)
        self.hop = max(1, round(0.010 * rate))
        bands = librosa.filters.mel(sr=rate, n_fft=self.window, n_mels=BANDS)
        self.bands = torch.from_numpy(bands).to(device)
        self.taper = torch.hann_window(self.window, device=device)

    def __call__(self, waveforms: Tensor) -> Tensor:
        least = self.window // 2 + 1
        if waveforms.shape[-1] < least:
            raise UserError(
                f"sounds of {waveforms.shape[-1]} samples are too short for {LOG_MEL}: give {least} or more."
            )
        spectrum = torch.stft(
            waveforms.to(self.taper.device), self.window, self.hop, window=self.taper, return_complex=True
        )
        level = torch.log(self.bands @ (spectrum.abs().square() / self.taper.square().sum()) + FLOOR)
        parts = (level, level.diff(dim=-1))
        return torch.cat([f(part) for part in parts for f in (_mean, _deviation)], dim=-1)


def _mean(x: Tensor) -> Tensor:
    return x.mean(-1)


def _deviation(x: Tensor) -> Tensor:
    return x.std(-1, correction=0)


def _torchscript(path: Path, device: str) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript is deprecated, but common
        try:
            module: Any = torch.jit.load(str(path), map_location=device)
        except RuntimeError as error:
            raise UserError(
                f"--features {path} is not TorchScript ({first_line(error)}).\nSave the network with torch.jit.save, "
                "or with torch.export.save as .pt2; a file of weights alone is not enough."
            ) from error
    module.eval()
    return lambda waveforms: _tensor(module(waveforms.to(device)), path)


def _exported(path: Path, device: str) -> Callable[[Tensor], Tensor]:
    try:
        program = torch.export.load(path)
    except Exception as error:  # the type depends on the damage
        raise UserError(f"--features {path} is not a program of torch.export ({error}).") from error
    module: Any = program.module().to(device)
    return lambda waveforms: _tensor(module(waveforms.to(device)), path)


def _onnx(path: Path, device: str) -> Callable[[Tensor], Tensor]:
    try:
        runtime: Any = importlib.import_module("onnxruntime")
    except ImportError as error:
        raise UserError(f"--features {path} needs onnxruntime: pip install onnxruntime") from error
    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    session = runtime.InferenceSession(str(path), providers=[wanted])
    name = session.get_inputs()[0].name
    return lambda waveforms: torch.from_numpy(session.run(None, {name: waveforms.cpu().numpy()})[0])


def _tensor(out: Any, path: Path) -> Tensor:
    if isinstance(out, (tuple, list)) and out:
        out = out[0]
    if not isinstance(out, Tensor):
        raise UserError(f"--features {path} gave a {type(out).__name__}: expected a tensor.")
    return out
