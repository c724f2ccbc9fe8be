"""Recordings of any length, block by block: read, resampled, transformed; and put together again, faded over.

Memory holds some blocks, however long a recording is. Blocks of a recording are of equal length and overlap; where they
do, the estimate goes over from one to the next in a straight line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corpora.audio.io import mix_to_mono, read_audio, resample
from corpora.frontends.stft import Stft
from corpora.types import AudioFault
from dvae_pyro.errors import UserError
from evaluation.recordings.files import Recording

__all__ = ["BLOCK", "OVERLAP", "Assembler", "Block", "Layout", "back", "blocks", "layout", "transformed"]

Samples = NDArray[np.float64]

BLOCK = 30.0
"""Seconds of a block; recordings of up to half as many more are one."""
OVERLAP = 1.0
"""Seconds that two blocks share."""


class Layout(NamedTuple):
    """How a recording is cut.

    Attributes:
        samples: of the recording.
        rate: its sampling rate in Hz.
        starts: of each block, in samples.
        length: of each block, in samples; the last one may be shorter.
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
    """A block, ready for a model.

    Attributes:
        recording: which one it is of, by number.
        number: which of its blocks.
        scale: its largest absolute value, by which it is divided; 0 for silence.
        spectrum: its transform (T, F), divided so.
        x: its power (T, F).
        samples: how many it has at the front end's rate.
        size: how many it has at the recording's.
    """

    recording: int
    number: int
    scale: float
    spectrum: NDArray[np.complex128]
    x: torch.Tensor
    samples: int
    size: int


def layout(recording: Recording, block: float = BLOCK, overlap: float = OVERLAP) -> Layout:
    """How a recording is to be cut, from its header.

    Raises:
        AudioFault: for what is no sound file, or an empty one.
    """
    import soundfile

    try:
        info = soundfile.info(str(recording.path))
        samples, rate = int(info.frames), int(info.samplerate)
    except (soundfile.LibsndfileError, OSError):
        read_audio(recording.path)  # knows what is wrong with it
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
    """The blocks of recordings, read one after the other.

    Raises:
        AudioFault: for a broken file.
    """
    for number, recording, cut in recordings:
        for index, samples in enumerate(_read(recording, cut)):
            yield transformed(number, index, samples, cut.rate, frontend)


def transformed(recording: int, number: int, samples: Samples, rate: int, frontend: Stft) -> Block:
    """A block of samples (n,) as a `Block`: resampled, scaled, and reflected at its end up to whole hops, so that every
    sample is well covered by windows.
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


def back(block: Block, spectrum: NDArray[np.complex128], rate: int, frontend: Stft) -> Samples:
    """Samples of a changed transform of a block, as many and as loud as it had, at the recording's rate."""
    samples = block.scale * frontend.waveform(spectrum, max(block.samples, 0))
    if rate != frontend.rate:
        samples = resample(samples, frontend.rate, rate)
        samples = np.pad(samples, (0, max(0, block.size - len(samples))))[: block.size]
    return samples


class Assembler:
    """Blocks of a recording put together in order, in whatever order they come, and handed on once they are final.

    Args:
        cut: how the recording was cut.
        sink: gets consecutive samples.
    """

    def __init__(self, cut: Layout, sink: Any) -> None:
        self.cut = cut
        self.sink = sink
        self.next = 0
        self.pending: dict[int, Samples] = {}
        self.tail = np.zeros(0)

    def add(self, number: int, samples: Samples) -> None:
        """A block, by its number."""
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
        """Whether all blocks were there."""
        return self.next == len(self.cut.starts)


def _read(recording: Recording, cut: Layout) -> Iterator[Samples]:
    if len(cut.starts) == 1:
        yield mix_to_mono(read_audio(recording.path).samples)
        return
    import soundfile

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
