"""Detection of truncated audio files by the sizes in their headers.

Decoders read some truncated files without an error: a WAV is shorter, an MP3 ends in silence. Therefore the size in the
header is compared with the size of the file. (A truncated FLAC fails to decode, or has fewer samples than its header
announces, and needs no check here.)
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

__all__ = ["finished_header", "missing_bytes", "sphere_header"]

#: Sizes that programs write into the header of a streamed WAV, whose length is unknown.
STREAMED = 0x7FFFF000
UNKNOWN_SIZE = 0xFFFFFFFF


def missing_bytes(file: BinaryIO, size: int) -> int:
    """How many bytes a file of `size` bytes lacks; 0 if it is complete or its header has no length.

    For Ogg, whose header has no length, 1 if the last page is not marked as the last.

    Example:
        >>> import io
        >>> header = b"RIFF" + bytes([40, 0, 0, 0]) + b"WAVE" + b"data" + bytes([8, 0, 0, 0])
        >>> missing_bytes(io.BytesIO(header + bytes(8)), 28), missing_bytes(io.BytesIO(header + bytes(3)), 23)
        (0, 5)
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:] == b"WAVE":
        return _missing_of_wav(file, size, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"OggS":
        return _missing_of_ogg(file, size)
    if head[:7] == b"NIST_1A":
        return _missing_of_sphere(file, size)
    if head[:4] == b"FORM":  # AIFF, 8SVX
        return max(0, 8 + int.from_bytes(head[4:8], "big") - size)
    if head[:4] == b".snd":  # AU: where the samples begin, and how many bytes they are
        begin, length = int.from_bytes(head[4:8], "big"), int.from_bytes(head[8:12], "big")
        return 0 if length == UNKNOWN_SIZE else max(0, begin + length - size)
    if head[:4] == b"riff":  # W64
        file.seek(16)
        return max(0, int.from_bytes(file.read(8), "little") - size)
    return _missing_of_mp3(file, size)


def finished_header(file: BinaryIO, size: int) -> bytes | None:
    """A corrected header for a WAV whose header was never completed.

    A recorder that is killed leaves a data chunk of 0 bytes, followed by samples to the end of the file.

    Args:
        file: The file.
        size: Its size in bytes.

    Returns:
        All bytes before the samples with the sizes filled in; None if the header has the number of samples, or if
        further chunks follow the empty data chunk.

    Example:
        >>> import io
        >>> left = b"RIFF" + bytes(4) + b"WAVE" + b"data" + bytes(4) + bytes([1, 2, 3, 4])
        >>> finished_header(io.BytesIO(left), 24)
        b'RIFF\\x10\\x00\\x00\\x00WAVEdata\\x04\\x00\\x00\\x00'
    """
    file.seek(0)
    head = file.read(12)
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return None
    order = ">" if head[:4] == b"RIFX" else "<"
    data_chunk = next((chunk for chunk in _chunks(file, 12, size, order) if chunk[0] == b"data"), None)
    if data_chunk is None or data_chunk[2] != 0 or data_chunk[1] + 8 >= size:
        return None
    begin = data_chunk[1] + 8
    rest = list(_chunks(file, begin, size, order))
    if rest and all(name.isalnum() for name, _, _ in rest) and rest[-1][1] + 8 + rest[-1][2] in (size, size - 1):
        return None
    file.seek(0)
    header = bytearray(file.read(begin))
    header[4:8] = struct.pack(f"{order}I", min(size - 8, UNKNOWN_SIZE))
    header[begin - 4 :] = struct.pack(f"{order}I", min(size - begin, UNKNOWN_SIZE))
    return bytes(header)


def _chunks(file: BinaryIO, position: int, size: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, position and length of the chunks of a RIFF file, starting at a position."""
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack(f"{order}4sI", file.read(8))
        yield name, position, int(length)
        position += 8 + length + length % 2


def _missing_of_wav(file: BinaryIO, size: int, order: str) -> int:
    long_size = 0
    for name, position, length in _chunks(file, 12, size, order):
        if name == b"ds64" and position + 24 <= size:
            long_size = int(struct.unpack("<QQ", file.read(16))[1])
        if name == b"data":
            return max(0, position + 8 + (long_size if length >= STREAMED else length) - size)
    return 0


def sphere_header(file: BinaryIO) -> dict[str, str]:
    """The fields of a NIST SPHERE header as text, and its size in bytes as ``header_bytes``; empty for other files.

    Example:
        >>> import io
        >>> text = b"NIST_1A\\n   1024\\nsample_count -i 7\\nsample_coding -s3 pcm\\nend_head\\n"
        >>> sphere_header(io.BytesIO(text.ljust(1024)))
        {'header_bytes': '1024', 'sample_count': '7', 'sample_coding': 'pcm'}
    """
    file.seek(0)
    first = file.read(16)
    size = first[8:].strip()
    if first[:7] != b"NIST_1A" or not size.isdigit():
        return {}
    fields = {"header_bytes": str(int(size))}
    for line in file.read(max(0, int(size) - 16)).decode("ascii", "replace").splitlines():
        if line.strip() == "end_head":
            break
        name, _, rest = line.partition(" ")
        fields[name] = rest.partition(" ")[2].strip()
    return fields


def _missing_of_sphere(file: BinaryIO, size: int) -> int:
    header = sphere_header(file)
    counts = [header.get(name, "") for name in ("sample_count", "channel_count", "sample_n_bytes")]
    if not all(count.isdigit() for count in counts) or "embedded" in header.get("sample_coding", ""):
        return 0
    samples, channels, width = map(int, counts)
    return max(0, int(header["header_bytes"]) + samples * channels * width - size)


def _missing_of_ogg(file: BinaryIO, size: int) -> int:
    file.seek(max(0, size - (1 << 17)))
    tail = file.read()
    page = tail.rfind(b"OggS")
    if page < 0 or page + 27 > len(tail):
        return 1
    last, segments = tail[page + 5] & 4, tail[page + 26]
    end = page + 27 + segments + sum(tail[page + 27 : page + 27 + segments])
    return max(end - len(tail), 0 if last else 1)


def _missing_of_mp3(file: BinaryIO, size: int) -> int:
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    file.seek(start)
    frame = file.read(256)
    tag = max(frame.find(b"Xing"), frame.find(b"Info"))
    if len(frame) < 2 or frame[0] != 0xFF or tag < 0 or tag + 16 > len(frame):
        return 0
    flags = frame[tag + 7]
    if not flags & 2:
        return 0
    announced = struct.unpack(">I", frame[tag + 8 + 4 * (flags & 1) :][:4])[0]
    lacking = int(announced) - (size - start)
    # Some encoders include their header in the count, some do not.
    return lacking if lacking > max(1500, announced // 100) else 0
