"""Sounds and pictures as parts of one HTML file, within its limit of size."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import soundfile
from matplotlib import colormaps
from numpy.typing import NDArray

from evaluation.reporting.plots import RANGE_DB

__all__ = ["Budget", "data_uri", "embedded", "flac", "magma", "palette_png", "spectrogram_png"]

MOST_COLUMNS = 900
"""Columns of a spectrogram; longer sounds are averaged over neighbouring frames."""
TYPES = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
    ".wav": "audio/wav",
    ".flac": "audio/flac",
}


class Budget:
    """The bytes that media may still take.

    Args:
        size: bytes at the start.
    """

    def __init__(self, size: float) -> None:
        self.left = size
        self.refused = 0

    def take(self, size: float) -> bool:
        """Take so many bytes, if as many are left.

        Example:
            >>> budget = Budget(10)
            >>> budget.take(6), budget.take(6), budget.take(4), budget.refused
            (True, False, True, 1)
        """
        if size > self.left:
            self.refused += 1
            return False
        self.left -= size
        return True


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a ``data:`` address, of the type that a file name ending in `kind` has."""
    return f"data:{TYPES[kind]};base64,{base64.b64encode(content).decode()}"


def embedded(file: Path, budget: Budget) -> str | None:
    """A picture or sound as a ``data:`` address; None if it is missing, of another type, or exceeds the budget."""
    if file.suffix.lower() not in TYPES or not file.is_file():
        return None
    uri = data_uri(file.read_bytes(), file.suffix.lower())
    return uri if budget.take(len(uri)) else None


def flac(samples: NDArray[np.floating], rate: int) -> str:
    """Samples, full scale 1, as base64 of 16-bit FLAC, which browsers decode and which loses nothing of 16 bits."""
    stream = io.BytesIO()
    soundfile.write(stream, np.clip(samples, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return base64.b64encode(stream.getvalue()).decode()


def magma() -> NDArray[np.uint8]:
    """The 256 colours of spectrograms, (256, 3)."""
    return np.asarray(np.round(255.0 * colormaps["magma"](np.arange(256))[:, :3]), dtype=np.uint8)


def palette_png(levels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """A PNG of 256 colours.

    Args:
        levels: index of the colour of each pixel (rows, columns), from the top.
        palette: the colours (256, 3).
    """
    height, width = levels.shape

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), levels], axis=1).tobytes()  # each row without a filter
    parts = [chunk(b"IHDR", header), chunk(b"PLTE", palette.tobytes()), chunk(b"IDAT", zlib.compress(rows, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def spectrogram_png(decibels: NDArray[np.float64], maximum: float) -> str:
    """A spectrogram as a ``data:`` address: colour 255 is the maximum, colour 0 is `RANGE_DB` below it.

    Args:
        decibels: power in dB (frames, bins).
        maximum: the value of the brightest colour in dB.
    """
    frames = len(decibels)
    if frames > MOST_COLUMNS:
        starts = np.arange(MOST_COLUMNS) * frames // MOST_COLUMNS
        counts = np.diff(np.append(starts, frames))[:, None]
        power = np.add.reduceat(10.0 ** (decibels / 10.0), starts) / counts
        decibels = 10.0 * np.log10(power)
    levels = np.round(255.0 * (1.0 + (decibels - maximum) / RANGE_DB))
    return data_uri(palette_png(np.clip(levels, 0, 255).astype(np.uint8).T[::-1], magma()), ".png")
