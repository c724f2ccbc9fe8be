"""The broken files of the shared corpus ``faults``, and what their messages contain."""

from __future__ import annotations

__all__ = ["FAULTS"]

FAULTS = {
    "empty.flac": "empty",
    "empty.wav": "empty",
    "inf_float32.wav": r"2 NaN .* 1\.250 s",
    "nan_float32.wav": r"10 NaN .* 1\.250 s",
    "silence.flac": "silent",
    "silence.wav": "silent",
    "ten_samples.flac": " 10 samples",
    "ten_samples.wav": " 10 samples",
    "text_renamed.flac": "text '",
    "text_renamed.wav": "text '",
    "truncated_data.flac": "cut short",
    "truncated_data.wav": " 49947 bytes",
    "truncated_header.flac": "cut short",
    "truncated_header.wav": "cut short",
    "zero_frames.wav": "no samples",
}
