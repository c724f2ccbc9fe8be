"""Recordings of any length as overlapping blocks: reading, resampling, transform, and reassembly.

A few blocks are in memory at a time, whatever the length of a recording. Blocks of a recording have equal lengths;
where two overlap, their estimates are cross-faded linearly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
import torch
from numpy.typing import NDArray

from corpora.audio.io import mix_to_mono, read_audio, resample
from corpora.frontends.stft import Stft
from corpora.types import AudioFault
from dvae_pyro.errors import UserError
from evaluation.recordings.files import Recording

__all__ = ["BLOCK", "OVERLAP", "Assembler", "Block", "Layout", "restored", "blocks", "layout", "transformed"]

Samples = NDArray[np.float64]

BLOCK = 30.0
"""Seconds per block; a recording of up to 1.5 times this length is one block."""
OVERLAP = 1.0
"""Seconds by which successive blocks overlap."""


class Layout(NamedTuple):
    """The blocks of a recording.

    Attributes:
        samples: number of samples of the recording.
        rate: its sampling rate in Hz.
        starts: first sample of each block.
        length: samples per block; the last block may be shorter.
    """

    samples: int
    rate: int
    starts: tuple[int, ...]
    length: int

    def bounds(self, number: int) -> tuple[int, int]:
        """First and last (exclusive) sample of a block."""
        start = self.starts[number]
        return start, min(self.samples, start + self.length)


class Block(NamedTuple):
    """A block and its transform.

    Attributes:
        recording: index of its recording.
        number: index of the block in the recording.
        scale: its largest absolute value, by which it is divided; 0 for silence.
        spectrum: transform (T, F) of the scaled block.
        x: power (T, F) of the scaled block.
        samples: number of samples at the front end's rate.
        size: number of samples at the recording's rate.
    """

    recording: int
    number: int
    scale: float
    spectrum: NDArray[np.complex128]
    x: torch.Tensor
    samples: int
    size: int


def layout(recording: Recording, block: float = BLOCK, overlap: float = OVERLAP) -> Layout:
    """The blocks of a recording, computed from its header.

    Raises:
        AudioFault: The file is not a sound file, or holds no samples.
    """
    try:
        info = soundfile.info(str(recording.path))
        samples, rate = int(info.frames), int(info.samplerate)
    except (soundfile.LibsndfileError, OSError):
        read_audio(recording.path)  # raises an error with the fault of the file
        raise
    if samples <= 0 or samples > 1 << 40:
        read_audio(recording.path)
    long, shared = round(block * rate), round(overlap * rate)
    if samples <= 1.5 * long:
        return Layout(samples, rate, (0,), samples)
    count = -(-(samples - shared) // (long - shared))
    length = -(-(samples + (count - 1) * shared) // count)
    return Layout(samples, rate, tuple(k * (length - shared) for k in range(count)), length)


def blocks(recordings: Sequence[tuple[int, Recording, Layout]], frontend: Stft) -> Iterator[Block]:
    """Read the blocks of recordings one after the other.

    Raises:
        AudioFault: A file is broken.
    """
    for number, recording, cut in recordings:
        for index, samples in enumerate(_read(recording, cut)):
            yield transformed(number, index, samples, cut.rate, frontend)


def transformed(recording: int, number: int, samples: Samples, rate: int, frontend: Stft) -> Block:
    """Resample and scale samples (n,) and compute their transform. The end is padded by reflection to a multiple of the
    hop, so that all samples are covered by windows.
    """
    mono = resample(samples, rate, frontend.rate)
    scale = float(np.abs(mono).max(initial=0.0))
    count = max(-(-len(mono) // frontend.hop) * frontend.hop, frontend.window)
    missing = count - len(mono)
    how: Any = "reflect" if missing < len(mono) else "constant"
    padded = np.pad(mono / (scale or 1.0), (0, missing), mode=how)
    spectrum = frontend.spectrum(padded)
    power = torch.from_numpy(spectrum.real**2 + spectrum.imag**2)
    return Block(recording, number, scale, spectrum, power, len(mono), len(samples))


def restored(block: Block, spectrum: NDArray[np.complex128], rate: int, frontend: Stft) -> Samples:
    """Samples of a modified transform of a block, with the block's length and scale, at the recording's rate."""
    samples = block.scale * frontend.waveform(spectrum, max(block.samples, 0))
    if rate != frontend.rate:
        samples = resample(samples, frontend.rate, rate)
        samples = np.pad(samples, (0, max(0, block.size - len(samples))))[: block.size]
    return samples


class Assembler:
    """Joins the blocks of a recording, which may be added in any order; samples are passed on as soon as they are
    final.

    Args:
        cut: the blocks of the recording.
        sink: called with consecutive samples.
    """

    def __init__(self, cut: Layout, sink: Any) -> None:
        self.cut = cut
        self.sink = sink
        self.next = 0
        self.pending: dict[int, Samples] = {}
        self.tail = np.zeros(0)

    def add(self, number: int, samples: Samples) -> None:
        """Add a block by its index."""
        self.pending[number] = samples
        while self.next in self.pending:
            block = self.pending.pop(self.next).copy()
            shared = len(self.tail)
            rise = (np.arange(shared) + 0.5) / max(shared, 1)
            block[:shared] = rise * block[:shared] + (1.0 - rise) * self.tail
            self.next += 1
            last = self.next == len(self.cut.starts)
            ahead = len(block) if last else self.cut.starts[self.next] - self.cut.starts[self.next - 1]
            self.sink(block[:ahead])
            self.tail = block[ahead:]

    @property
    def whole(self) -> bool:
        """Whether all blocks have been added."""
        return self.next == len(self.cut.starts)


def _read(recording: Recording, cut: Layout) -> Iterator[Samples]:
    if len(cut.starts) == 1:
        yield mix_to_mono(read_audio(recording.path).samples)
        return
    path: Path = recording.path
    try:
        with soundfile.SoundFile(path) as sound:
            for number in range(len(cut.starts)):
                start, stop = cut.bounds(number)
                sound.seek(start)
                samples = sound.read(stop - start, dtype="float64", always_2d=True)
                if len(samples) < stop - start:
                    raise AudioFault(f"is cut short: it ends at {(start + len(samples)) / cut.rate:.1f} s", str(path))
                if not np.isfinite(samples).all():
                    raise AudioFault("holds NaN or infinite samples", str(path))
                yield mix_to_mono(samples)
    except soundfile.LibsndfileError as error:
        raise UserError(f"{path} is damaged: {error.error_string}") from None
