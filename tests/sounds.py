"""Made-up sounds for tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Signal = NDArray[np.float64]
RATE = 16000


def voice(seconds: float, rate: int = RATE) -> Signal:
    """Harmonics of a gliding pitch, on and off four times a second: enough for PESQ to find speech."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 120.0 * time + 10.0 * np.sin(3.0 * time)
    tones = np.sum([np.sin(2 * np.pi * k * pitch) / k for k in range(1, 20)], axis=0)
    sound: Signal = tones * np.clip(np.sin(2 * np.pi * 4.0 * time) + 0.3, 0.0, 1.0)
    return np.asarray(sound / np.abs(sound).max())


def noise(size: int, scale: float = 0.05) -> Signal:
    return np.asarray(scale * np.random.RandomState(1).standard_normal(size))
