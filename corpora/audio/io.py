"""Reading audio files, with a specific message for each kind of fault."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corpora.audio.integrity import finished_header, missing_bytes, sphere_header
from corpora.types import AudioFault, Frames, Sound

__all__ = [
    "CONVERTED_FIRST",
    "EXTENSIONS",
    "mix_to_mono",
    "one_channel",
    "read_audio",
    "resample",
]

#: Endings of audio files, in any case: those that libsndfile reads, except formats without a sampling rate (raw
#: samples) and formats that mostly hold other data (MATLAB's and HTK's files).
EXTENSIONS = (
    *(".wav", ".wave", ".bwf", ".rf64", ".w64", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".mp2", ".mp1", ".aif"),
    *(
        ".aiff",
        ".aifc",
        ".au",
        ".snd",
        ".caf",
        ".sph",
        ".nist",
        ".wv1",
        ".wv2",
        ".voc",
        ".ircam",
        ".sf",
        ".paf",
        ".svx",
    ),
    *(".8svx", ".iff", ".avr", ".pvf", ".sds", ".wve", ".xi"),
)
#: Compressed audio that libsndfile cannot read; the error message has the command that converts it.
CONVERTED_FIRST = (
    *(".m4a", ".m4b", ".aac", ".wma", ".amr", ".awb", ".3gp", ".ac3", ".ape", ".mka", ".mpc", ".ra", ".spx", ".tta"),
    *(".webm", ".wv"),
)

#: The number of samples that libsndfile returns for files of unknown length.
UNKNOWN = 1 << 62
BLOCK = 1 << 22
SLOWEST, FASTEST = 1000, 1_000_000
"""Plausible sampling rates in Hz; with others, resampling would exhaust the memory."""
CANCELLED = 1e-4
UNFINISHED = "the header was never finished (a recorder that was stopped): read to the end of the file"


def read_audio(path: str | Path) -> Sound:
    """Read a whole audio file.

    Raises:
        AudioFault: The file is missing, empty, truncated, not audio, without samples, holds NaN or infinite samples, or
            the decoder fails with any error. Silence is not a fault here: front ends check the trimmed signal.
    """
    path = Path(path)
    head, header = check_file(path)
    source = _name(path)
    if header is not None:
        content = path.read_bytes()
        source = io.BytesIO(header + content[len(header) :])
    try:
        samples, rate, announced = _decode(source)
    except MemoryError:
        raise AudioFault("does not fit into memory", str(path)) from None
    except Exception as error:  # the library raises errors of many types for damaged files
        raise AudioFault(_why_unreadable(path, head, str(getattr(error, "error_string", error))), str(path)) from None
    if announced >= UNKNOWN:
        raise AudioFault("has no length in its header (FLAC written to a pipe)", str(path))
    if not SLOWEST <= rate <= FASTEST:
        raise AudioFault(f"announces {rate} samples per second: its header is damaged", str(path))
    if len(samples) == 0:
        raise AudioFault("holds no samples (a header only)", str(path))
    if len(samples) < announced:
        raise AudioFault(
            f"is cut short: its header announces {announced} samples, {len(samples)} could be read", str(path)
        )
    bad = np.flatnonzero(~np.isfinite(samples).all(axis=1))
    if len(bad):
        raise AudioFault(f"holds {len(bad)} NaN or infinite samples, the first at {bad[0] / rate:.3f} s", str(path))
    return Sound(samples, rate, "" if header is None else UNFINISHED)


def check_file(path: Path) -> tuple[bytes, bytes | None]:
    """Refuse a file that cannot be opened, is empty, or is shorter than its header announces.

    Returns:
        Its first bytes, and a corrected header if its own was never completed.

    Raises:
        AudioFault: In these cases.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block until another process writes to it
            raise AudioFault("cannot be opened (it is a folder, pipe or device)", str(path))
        with path.open("rb") as file:
            head = file.read(64)
            missing = missing_bytes(file, status.st_size)
            header = finished_header(file, status.st_size)
    except OSError as error:
        raise AudioFault(f"cannot be opened ({error.strerror})", str(path)) from None
    if status.st_size == 0:
        raise AudioFault("is empty (0 bytes)", str(path))
    if missing == 1 and head[:4] == b"OggS":
        raise AudioFault("is cut short: its last Ogg page is missing", str(path))
    if missing > 0:
        raise AudioFault(f"is cut short: its header announces {missing} bytes more than the file has", str(path))
    return head, header


def _name(path: Path) -> str | bytes | io.BytesIO:
    """A path as an argument of libsndfile, also for names that are not valid text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _decode(source: str | bytes | io.BytesIO) -> tuple[NDArray[np.float64], int, int]:
    """Samples (num_samples, channels), rate, and the number of samples that the header announces.

    Samples are read block by block: some codings (GSM 6.10, ADPCM) are not seekable, and their announced number of
    samples is unreliable.
    """
    import soundfile

    with soundfile.SoundFile(source) as sound:
        rate, announced = int(sound.samplerate), int(sound.frames)
        if announced >= UNKNOWN:
            return np.empty((0, sound.channels)), rate, announced
        blocks = []
        while len(block := sound.read(BLOCK, dtype="float64", always_2d=True)):
            blocks.append(block)
        samples = blocks[0] if len(blocks) == 1 else np.concatenate([np.empty((0, sound.channels)), *blocks])
        return samples, rate, announced if sound.seekable() else min(announced, len(samples))


def mix_to_mono(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average the channels: (num_samples, channels) to (num_samples,).

    Raises:
        AudioFault: The channels cancel each other: the mix has less than 1e-4 (-40 dB) of their mean power.
    """
    if samples.shape[1] == 1:
        return samples[:, 0]
    mixed: NDArray[np.float64] = samples.mean(axis=1)
    power = float(np.mean(samples**2)) if len(samples) else 0.0
    if power > 0.0 and float(np.mean(mixed**2)) < CANCELLED * power:
        raise AudioFault("has channels that cancel each other in the mix: select one of them with data.channel=0")
    return mixed


def one_channel(load: Callable[[], Sound | Frames], channel: int) -> Sound | Frames:
    """One channel of a recording; a mono recording is returned unchanged.

    Raises:
        AudioFault: The recording has several channels, but not this one.
    """
    sound = load()
    if isinstance(sound, Frames) or sound.samples.shape[1] == 1:
        return sound
    if channel >= sound.samples.shape[1]:
        raise AudioFault(f"has channels 0 to {sound.samples.shape[1] - 1}, but not data.channel={channel}")
    return sound._replace(samples=sound.samples[:, channel : channel + 1])


def resample(samples: NDArray[np.float64], rate: int, wanted: int) -> NDArray[np.float64]:
    """Resample a mono signal, band-limited; unchanged if the rates agree."""
    if rate == wanted:
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, rate, wanted, quality="VHQ"), dtype=np.float64)


def _why_unreadable(path: Path, head: bytes, reason: str) -> str:
    """A plain description of why libsndfile cannot read a file."""
    import soundfile

    if path.suffix.lower() in CONVERTED_FIRST:
        return (
            f"is audio that libsndfile cannot read ({path.suffix.lower()}): convert it, and the result is "
            f'read instead: ffmpeg -i "{path.name}" "{path.stem}.flac"'
        )
    if path.suffix.lower() == ".mp3" and "MP3" not in soundfile.available_formats():
        return f"is mp3, which the installed libsndfile {soundfile.__libsndfile_version__} cannot read"
    if head[:7] == b"NIST_1A":
        return _why_sphere_is_unreadable(path, reason)
    known = (
        head[:4] in (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"FORM", b".snd", b"riff", b"caff")
        or head[:3] == b"ID3"
    )
    if known or (head[:2] >= b"\xff\xe0" and path.suffix.lower() == ".mp3"):
        return f"starts as audio but is cut short or damaged ({reason.rstrip('.')})"
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: fetch the files with git lfs pull"
    if head and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        return f"is not audio: it starts with the text {head[:24].decode()!r}"
    return f"is not audio that libsndfile can read ({reason.rstrip('.')})"


def _why_sphere_is_unreadable(path: Path, reason: str) -> str:
    with path.open("rb") as file:
        coding = sphere_header(file).get("sample_coding", "pcm")
    if "embedded" in coding:
        return (
            f"is compressed NIST SPHERE ({coding}), which libsndfile cannot read: convert it with LDC's sph2pipe: "
            f"sph2pipe -f wav {path.name} {path.stem}.wav"
        )
    return f"is NIST SPHERE that libsndfile cannot read ({reason.rstrip('.')})"
