r"""A ball that bounces in a box without gravity, as binary video: the data of Fraccaro et al., "A disentangled
recognition and nonlinear dynamics model for unsupervised learning", 2017, Section 5.1, made here.

A frame has 32 x 32 values, row after row, 1 where the ball is. Its centre moves at a constant velocity and is
reflected, without loss, at the walls. Sequences have 20 frames, start at the same place (as the paper's) and differ in
direction
and speed. Labels of a sequence: ``state``, its position and velocity in each frame, (T, 4), in pixels and pixels per
frame; what an evaluation compares a model's states with, never what a model is trained on.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from corpora.settings import DataSettings
from corpora.types import SPLITS, Corpus, Frames, Utterance
from dvae_pyro.errors import UserError

__all__ = ["FRAMES", "SIDE", "SIZES", "open_bouncing_ball", "rendered", "trajectory"]

SIDE = 32
FRAMES = 20
RADIUS = 3.0
WALL = 2.0
START = 3.0 + WALL + 1.0
SLOWEST, FASTEST = 2.0, 5.0
"""Pixels per frame: the public code's 10 to 25 pixels per second at 0.2 s per frame."""
SIZES = {"train": 2000, "valid": 200, "test": 500}


def open_bouncing_ball(settings: DataSettings, seed: int, needed: Sequence[str] = SPLITS) -> Corpus:
    """Make the corpus of a seed; a sequence is computed when it is loaded.

    Raises:
        UserError: A root is given: the corpus is built in.
    """
    if settings.root is not None:
        raise UserError(
            f"corpus 'bouncing_ball' is built in and reads no folder, got root {settings.root}. Leave out --root."
        )
    return Corpus(
        "bouncing_ball", "", {split: [_sequence(split, k, seed) for k in range(SIZES[split])] for split in needed}
    )


def trajectory(angle: float, speed: float, frames: int = FRAMES) -> NDArray[np.float64]:
    """Position and velocity of the centre in each frame, (T, 4): x, y, v_x, v_y.

    A reflected path is a straight one folded at the walls.

    Example:
        >>> trajectory(0.0, 4.0, 6)[:, 0].tolist()
        [6.0, 10.0, 14.0, 18.0, 22.0, 26.0]
        >>> trajectory(0.0, 4.0, 8)[:, 2].tolist()
        [4.0, 4.0, 4.0, 4.0, 4.0, 4.0, -4.0, -4.0]
    """
    low, high = WALL + RADIUS, SIDE - WALL - RADIUS
    velocity = speed * np.array([np.cos(angle), np.sin(angle)])
    straight = START + velocity * np.arange(frames)[:, None] - low
    turns = np.floor(straight / (high - low))
    inside = straight - turns * (high - low)
    back = turns % 2 == 1
    position = low + np.where(back, high - low - inside, inside)
    return np.concatenate([position, np.where(back, -velocity, velocity)], axis=1)


def rendered(position: NDArray[np.float64]) -> NDArray[np.float32]:
    """Frames (T, 32 * 32) of a ball at positions (T, 2): 1 where a pixel's centre is in it."""
    x, y = np.meshgrid(np.arange(SIDE) + 0.5, np.arange(SIDE) + 0.5)
    away = (x[None] - position[:, :1, None]) ** 2 + (y[None] - position[:, 1:, None]) ** 2
    frames: NDArray[np.float32] = (away <= RADIUS**2).reshape(len(position), -1).astype(np.float32)
    return frames


def _sequence(split: str, number: int, seed: int) -> Utterance:
    digest = hashlib.sha256(f"{seed}/{split}/{number}".encode()).digest()
    chance = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    path = trajectory(chance.uniform(0.0, 2.0 * np.pi), chance.uniform(SLOWEST, FASTEST))
    load = functools.partial(_load, path)
    return Utterance(f"{split}/{number:04d}", "", load, {"state": path}, source=("bouncing_ball", split, number, seed))


def _load(path: NDArray[np.float64]) -> Frames:
    return Frames(rendered(path[:, :2]))
