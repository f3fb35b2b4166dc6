"""Small episodes with real array shapes, and datasets made of them."""

from pathlib import Path

import numpy as np
import pytest

from workers.episodes import ledger, writer
from workers.episodes.schema import OUTCOMES


def make_episode(number: int, outcome: str | None = None, steps: int | None = None, **changes) -> writer.Episode:
    """An episode whose content follows from its number: moving noise for images, other noise for each camera."""
    rng = np.random.default_rng(number)
    steps = steps or 4 + number % 5
    tiles = rng.integers(0, 255, (3, 28, 28, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    content = {
        "actions": rng.normal(size=(steps, 4)).astype(np.float32),
        "states": rng.normal(size=(steps, 7)).astype(np.float32),
        "images": np.stack([np.roll(tiles, 8 * t, axis=1) for t in range(steps)]),
        "signals": rng.normal(size=(steps, 12)).astype(np.float32),
    }
    outcome = outcome or OUTCOMES[number % len(OUTCOMES)]
    return writer.Episode(number, 1_000_000 + number, outcome, number % 5 == 0, **(content | changes))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A merged dataset of six episodes: two successes and each failure type once."""
    path = tmp_path / "data"
    for number in range(6):
        writer.write_episode(path, make_episode(number), fence=1)
    assert ledger.merge(path, 6) is not None
    return path


@pytest.fixture
def episode():
    return make_episode


@pytest.fixture(scope="session", name="make_episode")
def make_episode_fixture():
    return make_episode
