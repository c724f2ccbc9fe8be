"""NIST SPHERE files."""

from __future__ import annotations

import numpy as np

from tests.sounds import RATE, voice

__all__ = ["SAMPLES", "sphere"]

SAMPLES = np.round(8000 * voice(0.5)).astype(np.int16)


def sphere(samples: np.ndarray = SAMPLES, coding: str = "pcm", order: str = "01") -> bytes:
    """A SPHERE file: a header of 1024 bytes in text, then the samples; in order 01 the low byte is first."""
    fields = [
        "NIST_1A",
        "   1024",
        "database_id -s4 WSJ0",
        "channel_count -i 1",
        f"sample_count -i {len(samples)}",
        f"sample_rate -i {RATE}",
        "sample_n_bytes -i 2",
        f"sample_byte_format -s2 {order}",
        "sample_sig_bits -i 16",
        f"sample_coding -s{len(coding)} {coding}",
        "end_head",
    ]
    header = "\n".join([*fields, ""]).encode().ljust(1024, b" ")
    return header + samples.astype("<i2" if order == "01" else ">i2").tobytes()
