"""A small dataset whose failures announce themselves, and volumes that hold it."""

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

EPISODES = 36
FIRST_SEED = 1_000_142  # every outcome falls into both the validation and the test split
OUTCOMES = ("success", "drop", "success", "timeout", "collision", "other")
ANNOUNCED_BY = {"drop": 8, "timeout": 3, "collision": 5, "other": 0}  # the signal that rises before each failure


@cache
def pictures() -> np.ndarray:
    """35 timesteps of images that change with time and camera, and compress well."""
    time, camera, row = np.ogrid[:35, :3, :224]
    return np.broadcast_to((time + 5 * camera + row).astype(np.uint8)[..., None, None], (35, 3, 224, 224, 3))


def episode(number: int, outcome: str, first_seed: int = FIRST_SEED) -> Any:
    """An episode of 28 to 35 timesteps: before its end one signal rises, over noise."""
    from workers.episodes.writer import Episode

    random = np.random.default_rng(number + first_seed - FIRST_SEED)
    steps = 28 + number % 8
    signals = random.normal(1.0, 0.3, (steps, 12)).astype(np.float32)
    if outcome in ANNOUNCED_BY:
        signals[:, ANNOUNCED_BY[outcome]] += np.maximum(0, np.arange(steps) - steps + 16) / 6
    return Episode(
        number=number,
        seed=first_seed + number,
        outcome=outcome,
        perturbed=number % 5 == 0,
        actions=random.normal(size=(steps, 4)).astype(np.float32),
        states=random.normal(size=(steps, 7)).astype(np.float32),
        images=pictures()[:steps],
        signals=signals,
    )


@pytest.fixture(scope="session")
def announced_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merged dataset of 36 episodes. Read it only."""
    return write_dataset(tmp_path_factory.mktemp("announced") / "tiny", EPISODES, FIRST_SEED)


@pytest.fixture(scope="session")
def other_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve episodes more of the same kind, with other seeds. Read it only."""
    return write_dataset(tmp_path_factory.mktemp("other") / "other", 12, FIRST_SEED + EPISODES)


def write_dataset(dataset: Path, count: int, first_seed: int) -> Path:
    """Episodes written by the writer that collect uses, and merged."""
    from workers import storage
    from workers.episodes import ledger, writer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "fsync", lambda descriptor: None)  # what these tests are about is no power loss
        for number in range(count):
            writer.write_episode(dataset, episode(number, OUTCOMES[number % len(OUTCOMES)], first_seed), fence=1)
        ledger.merge(dataset, count)
    return dataset


@pytest.fixture
def training_volume(tmp_path: Path, announced_dataset: Path) -> Path:
    """A volume of the test's own, with the dataset as datasets/tiny."""
    volume = tmp_path / "volume"
    (volume / "datasets").mkdir(parents=True)
    (volume / "datasets" / "tiny").symlink_to(announced_dataset)
    return volume


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of fake environments, which the processes of simulators find too."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "episodes")
    return importlib.import_module("fake_environment")
