"""Sequences as the samples that they are made of, 16 bits each, and from there to features of a whole batch.

A power spectrum of 257 float32 values every 256 samples is twice as large as those samples. So sequences wait, and go
to a GPU, as samples: those that the frames of the sequence cover. Where a recording has 16 bits, one channel and the
rate of the front end, its features are those of `FrontEnd.features`, bit for bit on a CPU; others are rounded to
16 bits below their largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from corpora.frontends.base import FrontEnd, mono
from corpora.frontends.stft import Stft
from corpora.frontends.waveform import Waveform
from corpora.types import Frames, Sound

__all__ = ["Encoding", "EncodedSequence", "encoding_of"]

FULL_SCALE = 32768.0


class EncodedSequence(NamedTuple):
    """One sequence before its features are computed.

    Attributes:
        data: int16 samples, or float32 features (T, D) of front ends that are computed when the recording is read.
        scale: What the samples are divided by.
        frames: T.
        file: Name of the utterance.
        speaker: Who speaks.
        start: First frame, counted in the (trimmed) utterance.
    """

    data: NDArray[np.int16] | NDArray[np.float32]
    scale: float
    frames: int
    file: str
    speaker: str
    start: int


class Encoding(Protocol):
    """How the sequences of a front end wait, and what makes features of them."""

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.int16] | NDArray[np.float32], float, int]:
        """Data of a recording, what they are divided by, and how many frames it has; `AudioFault` as the front end."""
        ...

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        """What the frames from `start` on are computed from."""
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


class _Spectra:
    """Sequences of `Stft`: samples with half a window more at both ends."""

    def __init__(self, frontend: Stft) -> None:
        self.frontend = frontend

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.int16], float, int]:
        if isinstance(recording, Frames):
            self.frontend.prepare(recording)  # which refuses it
            raise AssertionError
        stft = self.frontend
        samples, scale = _sixteen_bits(mono(recording, stft.rate, stft.trim_db, stft.window))
        return np.pad(samples, stft.window // 2, mode="reflect"), scale, 1 + len(samples) // stft.hop

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        stft = self.frontend
        return data[start * stft.hop : (start + frames - 1) * stft.hop + stft.window].astype(np.int16)

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        stft, longest = self.frontend, max(segment.frames for segment in segments)
        samples, scale = _stacked(segments, (longest - 1) * stft.hop + stft.window)
        if device.type == "cpu":
            frames = sliding_window_view(samples / scale[:, None], stft.window, axis=1)[:, :: stft.hop]
            spectrum = np.fft.rfft(frames * stft.taper, axis=-1)
            return _without_padding((spectrum.real**2 + spectrum.imag**2).astype(np.float32), segments)
        lengths = torch.tensor([segment.frames for segment in segments])
        return self.on_device(torch.from_numpy(samples), torch.from_numpy(scale), lengths, device)

    def on_device(self, samples: Tensor, scale: Tensor, lengths: Tensor, device: torch.device) -> Tensor:
        """The same from samples (N, n), int16, on a device: what crosses the bus are these."""
        x = samples.to(device, non_blocking=True).double() / scale.to(device)[:, None]
        taper = torch.from_numpy(self.frontend.taper).to(device)
        spectra = torch.fft.rfft(x.unfold(1, self.frontend.window, self.frontend.hop) * taper)
        power: Tensor = (spectra.real**2 + spectra.imag**2).float().transpose(0, 1)
        inside = torch.arange(len(power), device=device)[:, None] < lengths.to(device)
        return power.mul(inside[..., None]).contiguous()


class _Samples:
    """Sequences of `Waveform`: their own samples."""

    def __init__(self, frontend: Waveform) -> None:
        self.frontend = frontend

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.int16], float, int]:
        if isinstance(recording, Frames):
            self.frontend.prepare(recording)  # which refuses it
            raise AssertionError
        front = self.frontend
        samples, scale = _sixteen_bits(mono(recording, front.rate, front.trim_db, front.dim), peak=FULL_SCALE)
        return samples, scale, len(samples) // front.dim

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        return data[start * self.frontend.dim : (start + frames) * self.frontend.dim].astype(np.int16)

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        width, longest = self.frontend.dim, max(segment.frames for segment in segments)
        samples, scale = _stacked(segments, longest * width)
        x = (samples / scale[:, None]).astype(np.float32).reshape(len(segments), longest, width)
        return _without_padding(x, segments).to(device, non_blocking=True)


class _Computed:
    """Sequences of any other front end: their features, computed when the recording is read."""

    def __init__(self, frontend: FrontEnd) -> None:
        self.frontend = frontend

    def read(self, recording: Sound | Frames) -> tuple[NDArray[np.float32], float, int]:
        features = self.frontend.features(self.frontend.prepare(recording))
        return features, 1.0, len(features)

    def cut(self, data: NDArray[np.int16] | NDArray[np.float32], start: int, frames: int) -> NDArray[np.int16]:
        return data[start : start + frames].copy()  # type: ignore[return-value]  # float32 here

    def features(self, segments: Sequence[EncodedSequence], device: torch.device) -> Tensor:
        longest = max(segment.frames for segment in segments)
        x = np.zeros((len(segments), longest, self.frontend.dim), np.float32)
        for n, segment in enumerate(segments):
            x[n, : segment.frames] = segment.data
        return _without_padding(x, segments).to(device, non_blocking=True)


def _sixteen_bits(samples: NDArray[np.float64], peak: float | None = None) -> tuple[NDArray[np.int16], float]:
    """Samples as 16-bit numbers, and what these are divided by: exact where the samples are of 16 bits.

    Args:
        samples: Mono, full scale 1.
        peak: What a full scale of 1 is divided by; None divides by the largest absolute value.
    """
    whole = np.rint(samples * FULL_SCALE)
    exact = bool((whole == samples * FULL_SCALE).all()) and -FULL_SCALE <= whole.min() and whole.max() < FULL_SCALE
    if not exact:
        loudest = float(np.abs(samples).max())
        whole = np.rint(samples * ((FULL_SCALE - 1) / loudest))
        return whole.astype(np.int16), FULL_SCALE - 1 if peak is None else (FULL_SCALE - 1) / loudest
    return whole.astype(np.int16), float(np.abs(whole).max()) if peak is None else peak


def _stacked(segments: Sequence[EncodedSequence], length: int) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """Samples (N, length) of segments, zeros after the end of each, and what they are divided by (N,)."""
    samples = np.zeros((len(segments), length), dtype=np.int16)
    for n, segment in enumerate(segments):
        samples[n, : len(segment.data)] = segment.data
    return samples, np.array([segment.scale for segment in segments])


def _without_padding(x: NDArray[np.float32], segments: Sequence[EncodedSequence]) -> Tensor:
    """Features (N, T, D) as (T, N, D), with zeros after the end of each sequence.

    In NumPy, since this runs beside training in a thread, where PyTorch would start OpenMP threads of its own.
    """
    for n, segment in enumerate(segments):
        x[n, segment.frames :] = 0.0
    return torch.from_numpy(np.ascontiguousarray(x.transpose(1, 0, 2)))
