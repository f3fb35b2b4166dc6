"""Runs episodes in one simulator and records them: all that `collect` does, in this process or in several others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workers.envs.settings import CollectSettings
from workers.episodes import ledger
from workers.episodes.recorder import Recorder
from workers.episodes.writer import Episode

if TYPE_CHECKING:
    import gymnasium as gym

    Environment = gym.Env[dict[str, NDArray[Any]], NDArray[np.float32]]


class Report(Protocol):
    """Who is told how it goes."""

    def beat(self) -> None:
        """A timestep is done."""

    def wait(self, why: str) -> None:
        """Nothing can be written; said again and again."""

    def episode(self, entry: ledger.Entry, size_bytes: int, seconds: float) -> None:
        """One is recorded, `seconds` after it began."""


@dataclass(frozen=True)
class Plan:
    """What each simulator of a run is told. `make` makes its environment and can be sent to another process."""

    dataset: Path
    fence: int
    settings: CollectSettings
    make: Callable[[], Environment]


def record(plan: Plan, numbers: Iterable[int], should_stop: Callable[[], bool], report: Report) -> None:
    """Run and record the episodes of these numbers, the next while the last is written, until `should_stop()`.

    What has ended by then is recorded. At most two episodes are in memory. Raises BadConfigError where the simulator
    cannot draw pictures, OSError as the volume gives it (a full one is waited for).
    """
    under_way: dict[int, tuple[float, Timesteps]] = {}  # by number: when it began, where it is
    free: list[Timesteps] = []

    def on_recorded(entry: ledger.Entry) -> None:
        began, timesteps = under_way.pop(entry.episode)
        free.append(timesteps)
        newest = ledger.published(plan.dataset, entry.episode)[0]
        size_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        report.episode(entry, size_bytes, time.monotonic() - began)

    with (
        Recorder(
            plan.dataset, plan.fence, on_recorded=on_recorded, on_wait=report.wait, should_stop=should_stop
        ) as recorder,
        closing(plan.make()) as env,
    ):
        for number in numbers:
            timesteps = free.pop() if free else Timesteps(plan.settings.max_steps)
            under_way[number] = time.monotonic(), timesteps
            episode = rollout(env, number, plan.settings, timesteps, should_stop, report.beat)
            if episode is None or not recorder.put(episode):
                return


def rollout(
    env: Environment,
    number: int,
    settings: CollectSettings,
    timesteps: Timesteps,
    should_stop: Callable[[], bool],
    beat: Callable[[], None],
) -> Episode | None:
    """One episode from start to end; None if `should_stop()` said so meanwhile. Its arrays are views of `timesteps`.

    Timestep t is the observation, and the action that the policy answered it with.
    """
    seed = settings.seed_of(number)
    timesteps.clear()
    observation, start = env.reset(seed=seed)
    while not should_stop():
        action = observation["policy_action"]
        timesteps.add((action, observation["state"], observation["images"], observation["signals"]))
        observation, _, terminated, truncated, info = env.step(action)
        beat()
        if terminated or truncated:
            return Episode(number, seed, str(info["outcome"]), bool(start["perturbed"]), *timesteps.columns())
    return None


class Timesteps:
    """Room for the arrays of an episode of at most `room` timesteps, one after the other.

    Memory is taken as it is filled, and kept: to fill new pages takes 7 % of a timestep.
    """

    def __init__(self, room: int) -> None:
        self._room, self._steps = room, 0
        self._columns: list[NDArray[Any]] = []

    def clear(self) -> None:
        self._steps = 0

    def add(self, timestep: Sequence[NDArray[Any]]) -> None:
        if not self._columns:
            self._columns = [np.empty((self._room, *values.shape), values.dtype) for values in timestep]
        for column, values in zip(self._columns, timestep, strict=True):
            column[self._steps] = values
        self._steps += 1

    def columns(self) -> list[NDArray[Any]]:
        """Views, until it is cleared."""
        return [column[: self._steps] for column in self._columns]
