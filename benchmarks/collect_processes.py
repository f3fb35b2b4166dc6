"""Claim: two simulator processes collect at least 1.8 times as fast as one.

Ours: timesteps a second of a collection with two simulators in one replica, each in its process, with compression,
checksums and fsync, from the moment when all simulate until the last episode is recorded. Baseline: the same with one
simulator. Needs two free cores.

Replicas of a collect job share nothing: two of them, each with one simulator, against one, nothing recorded.
"""

import contextlib
import multiprocessing
import tempfile
import time
from itertools import count as count_up
from multiprocessing.connection import Connection
from pathlib import Path

from paired import Way, compare

from workers.envs import maker
from workers.envs.settings import CollectSettings
from workers.episodes.ledger import Entry
from workers.rollouts import Plan, Timesteps, rollout
from workers.simulators import record_side_by_side

SPAWN = multiprocessing.get_context("spawn")
EPISODES_REPLICA = 4  # a run
EPISODES_RECORDED = 40
SETTINGS = CollectSettings(episodes=100_000, seed=7)


class Clock:
    """A Report that times a collection."""

    def __init__(self) -> None:
        self.began: float | None = None
        self.ended, self.timesteps = 0.0, 0

    def beat(self) -> None:
        self.began = self.began or time.perf_counter()

    def wait(self, why: str) -> None:
        raise SystemExit(why)

    def episode(self, entry: Entry, size_bytes: int, seconds: float) -> None:
        self.ended, self.timesteps = time.perf_counter(), self.timesteps + entry.steps


def simulators(count: int) -> Way:
    """One with its process, too: what is compared is how many there are."""

    def run() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as dataset:
            plan = Plan(Path(dataset), 1, SETTINGS, maker(SETTINGS))
            record_side_by_side(count, plan, range(EPISODES_RECORDED), lambda: False, clock)
        assert clock.began is not None
        return clock.timesteps / (clock.ended - clock.began)

    return Way(f"{count} simulator(s) of one replica, recorded", run)


def replicas(count: int) -> Way:
    """Processes that each run collect's rollouts with one simulator; the sum of their rates while all of them run."""
    pipes = []
    for _ in range(count):
        ours, theirs = multiprocessing.Pipe()
        SPAWN.Process(target=_replica, args=(theirs,), daemon=True).start()
        pipes.append(ours)

    def run() -> float:
        for pipe in pipes:
            pipe.send("go")
        return sum(pipe.recv() for pipe in pipes)

    return Way(f"{count} replica(s) of one simulator, nothing recorded", run)


def _replica(pipe: Connection) -> None:
    env, numbers, room = maker(SETTINGS)(), count_up(), Timesteps(SETTINGS.max_steps)
    with contextlib.suppress(EOFError):  # the benchmark is over
        while pipe.recv():
            start, timesteps = time.perf_counter(), 0
            for _ in range(EPISODES_REPLICA):
                episode = rollout(env, next(numbers), SETTINGS, room, lambda: False, lambda: None)
                assert episode is not None
                timesteps += episode.steps
            pipe.send(timesteps / (time.perf_counter() - start))


if __name__ == "__main__":
    compare("two simulators of one replica against one", simulators(2), simulators(1), unit="timesteps/s", runs=5)
    compare("two replicas against one", replicas(2), replicas(1), unit="timesteps/s")
