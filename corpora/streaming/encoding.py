"""Sequences stored as 16-bit samples, and computation of the features of a batch from them.

A power spectrum of 257 float32 values every 256 samples is twice as large as the samples. Sequences are therefore
queued, and copied to a GPU, as the samples that their frames cover. For recordings with 16 bits, one channel and the
rate of the front end, features are bitwise those of `FrontEnd.features` on a CPU; others are rounded to 16 bits
relative to their largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.base import FrontEnd, mono
from corpora.frontends.stft import Stft, windowed_spectra
from corpora.frontends.waveform import Waveform
from corpora.types import Frames, Sound

__all__ = ["Encoding", "EncodedSequence", "encoding_of"]

FULL_SCALE = 32768.0


class EncodedSequence(NamedTuple):
    """One sequence before its features are computed.

    Attributes:
        data: int16 samples, or float32 features (T, D) if features are computed when the recording is read.
        scale: Divisor of the samples.
        frames: T.
        file: Name of the utterance.
        speaker: Name of the speaker.
        start: Index of the first frame in the (trimmed) utterance.
    """

    data: NDArray[np.int16] | NDArray[np.float32]
    scale: float
    frames: int
    file: str
    speaker: str
    start: int


class Encoding(Protocol):
    """The representation of queued sequences of a front end, and the computation of their features."""

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.int16] | NDArray[np.float32], float, int]:
        """Data of a recording, their divisor, and the number of frames; raises `AudioFault` like the front end."""
        ...

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        """The data for `frames` frames from `start` on."""
        ...

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        """Features (T, N, D) of segments, zero after the end of each."""
        ...


def encoding_of(frontend: FrontEnd) -> Encoding:
    """The encoding of a front end."""
    if type(frontend) is Stft:
        return _Spectra(frontend)
    if isinstance(frontend, Waveform):
        return _Samples(frontend)
    return _Computed(frontend)


def _sound(recording: Sound | Frames, frontend: FrontEnd) -> Sound:
    """The recording of a front end that takes samples, which refuses frames."""
    if isinstance(recording, Frames):
        frontend.prepare(recording)
        raise AssertionError
    return recording


class _Spectra:
    """Sequences of `Stft`: samples, extended by half a window at both ends."""

    def __init__(self, frontend: Stft) -> None:
        self.frontend = frontend

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.int16], float, int]:
        stft = self.frontend
        samples, scale = _sixteen_bits(mono(_sound(recording, stft), stft.rate, stft.trim_db, stft.window))
        return np.pad(samples, stft.window // 2, mode="reflect"), scale, 1 + len(samples) // stft.hop

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        stft = self.frontend
        return data[start * stft.hop : (start + frames - 1) * stft.hop + stft.window].astype(np.int16)

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        stft, longest = self.frontend, max(segment.frames for segment in segments)
        x = _on_device(segments, (longest - 1) * stft.hop + stft.window, device)
        spectra = windowed_spectra(x, torch.from_numpy(stft.taper).to(device), stft.hop)
        power = (spectra.real**2 + spectra.imag**2).float().transpose(0, 1)
        frames = torch.tensor([segment.frames for segment in segments]).to(device)
        inside = torch.arange(longest, device=device)[:, None] < frames
        return power.mul(inside[..., None]).contiguous()


class _Samples:
    """Sequences of `Waveform`: their samples."""

    def __init__(self, frontend: Waveform) -> None:
        self.frontend = frontend

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.int16], float, int]:
        front = self.frontend
        samples = mono(_sound(recording, front), front.rate, front.trim_db, front.dim)
        integers, scale = _sixteen_bits(samples, peak=FULL_SCALE)
        return integers, scale, len(integers) // front.dim

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        return data[start * self.frontend.dim : (start + frames) * self.frontend.dim].astype(np.int16)

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        width, longest = self.frontend.dim, max(segment.frames for segment in segments)
        x = _on_device(segments, longest * width, device)
        return x.float().view(len(segments), longest, width).transpose(0, 1).contiguous()


class _Computed:
    """Sequences of other front ends: their features, computed when the recording is read."""

    def __init__(self, frontend: FrontEnd) -> None:
        self.frontend = frontend

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.float32], float, int]:
        features = self.frontend.features(self.frontend.prepare(recording))
        return features, 1.0, len(features)

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        return data[start : start + frames].copy()  # type: ignore[return-value]  # float32 here

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        longest = max(segment.frames for segment in segments)
        x = np.zeros((longest, len(segments), self.frontend.dim), np.float32)
        for n, segment in enumerate(segments):
            x[: segment.frames, n] = segment.data
        return torch.from_numpy(x).to(device, non_blocking=True)


def _sixteen_bits(samples: NDArray[np.float64], peak: float | None = None) -> tuple[NDArray[np.int16], float]:
    """Samples as 16-bit integers, and their divisor; exact if the samples have 16 bits.

    Args:
        samples: Mono, full scale 1.
        peak: The divisor for a full scale of 1; None divides by the largest absolute value.
    """
    rounded = np.rint(samples * FULL_SCALE)
    in_range = -FULL_SCALE <= rounded.min() and rounded.max() < FULL_SCALE
    exact = bool((rounded == samples * FULL_SCALE).all()) and in_range
    if not exact:
        loudest = float(np.abs(samples).max())
        rounded = np.rint(samples * ((FULL_SCALE - 1) / loudest))
        return rounded.astype(np.int16), FULL_SCALE - 1 if peak is None else (FULL_SCALE - 1) / loudest
    return rounded.astype(np.int16), float(np.abs(rounded).max()) if peak is None else peak


def _on_device(segments: Sequence[EncodedSequence], length: int, device: torch.device) -> Tensor:
    """Samples (N, length) of segments in float64, zero beyond the end of each; copied to the device as 16 bits."""
    samples = np.zeros((len(segments), length), dtype=np.int16)
    for n, segment in enumerate(segments):
        samples[n, : len(segment.data)] = segment.data
    scale = torch.tensor([segment.scale for segment in segments], dtype=torch.float64)
    return torch.from_numpy(samples).to(device, non_blocking=True).double().div_(scale.to(device)[:, None])
