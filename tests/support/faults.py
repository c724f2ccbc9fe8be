"""The broken files of the shared corpus ``faults``, and what their messages contain."""

from __future__ import annotations

__all__ = ["FAULTS"]

FAULTS = {
    "empty.flac": "empty",
    "empty.wav": "empty",
    "inf_float32.wav": "2 NaN or infinite samples, the first at 1.250 s",
    "nan_float32.wav": "10 NaN or infinite samples, the first at 1.250 s",
    "silence.flac": "silent",
    "silence.wav": "silent",
    "ten_samples.flac": "too short: 10 samples",
    "ten_samples.wav": "too short: 10 samples",
    "text_renamed.flac": "not audio: it starts with the text",
    "text_renamed.wav": "not audio: it starts with the text",
    "truncated_data.flac": "cut short or damaged",
    "truncated_data.wav": "cut short: its header announces 49947 bytes more",
    "truncated_header.flac": "cut short or damaged",
    "truncated_header.wav": "cut short or damaged",
    "zero_frames.wav": "no samples",
}
