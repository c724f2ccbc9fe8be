"""The bouncing ball: it stays in its box, keeps its speed, and is a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest

from corpora.recipes.bouncing_ball import FRAMES, RADIUS, SIDE, SIZES, START, WALL, open_bouncing_ball, trajectory
from corpora.settings import DataSettings
from dvae_pyro.errors import UserError

SETTINGS = DataSettings(corpus="bouncing_ball")


def stepped(angle: float, speed: float, frames: int) -> np.ndarray:
    """The same path by small steps that turn round at each wall."""
    position, velocity = np.full(2, START), speed * np.array([np.cos(angle), np.sin(angle)])
    low, high, small = WALL + RADIUS, SIDE - WALL - RADIUS, 1000
    path = [position.copy()]
    for _ in range((frames - 1) * small):
        position = position + velocity / small
        velocity = np.where(
            (position < low) | (position > high), -np.sign(position - SIDE / 2) * abs(velocity), velocity
        )
        path.append(position.copy())
    return np.array(path[::small])


@pytest.mark.parametrize("angle", [0.3, 2.0, 4.4])
def test_its_path_is_reflected_at_the_walls(angle: float) -> None:
    path = trajectory(angle, 4.0)
    np.testing.assert_allclose(path[:, :2], stepped(angle, 4.0, FRAMES), atol=0.02)
    np.testing.assert_allclose(np.linalg.norm(path[:, 2:], axis=1), 4.0)
    assert path[:, :2].min() >= WALL + RADIUS and path[:, :2].max() <= SIDE - WALL - RADIUS


def test_frames_hold_a_ball_where_the_state_says() -> None:
    utterance = open_bouncing_ball(SETTINGS, 0, ["test"]).splits["test"][7]
    frames = np.asarray(utterance.load()[0]).reshape(FRAMES, SIDE, SIDE)
    assert set(np.unique(frames)) == {0.0, 1.0}
    area = frames.sum((1, 2))
    assert area.min() > 0.85 * np.pi * RADIUS**2 and area.max() < 1.15 * np.pi * RADIUS**2
    grid = np.arange(SIDE) + 0.5
    state = np.asarray(utterance.labels["state"])
    np.testing.assert_allclose((frames.sum(1) * grid).sum(1) / area, state[:, 0], atol=0.3)
    np.testing.assert_allclose((frames.sum(2) * grid).sum(1) / area, state[:, 1], atol=0.3)


def test_it_is_a_function_of_the_seed_and_splits_differ() -> None:
    one, again, other = (open_bouncing_ball(SETTINGS, seed) for seed in (0, 0, 1))
    paths = [np.asarray(c.splits["train"][0].labels["state"]) for c in (one, again, other)]
    assert np.array_equal(paths[0], paths[1]) and not np.array_equal(paths[0], paths[2])
    assert {split: len(utterances) for split, utterances in one.splits.items()} == SIZES
    assert not np.array_equal(paths[0], np.asarray(one.splits["test"][0].labels["state"]))


def test_a_root_is_refused() -> None:
    with pytest.raises(UserError, match="--root"):
        open_bouncing_ball(DataSettings(corpus="bouncing_ball", root="somewhere"), 0)
