"""Claim: two simulator processes collect at least 1.8 times as fast as one.

Ours: timesteps a second of collect's own rollouts with two simulators, each in its process. Baseline: the same with one
simulator in this process. Once without a recorder, once with it (compression, checksums and fsync in its thread, until
the last episode is recorded). Needs two free cores; with the recorder three threads share them.

Replicas of a collect job share nothing: two of them, each with one simulator, against one.

Then what a timestep takes of the processors, which a busy machine changes less: in this process, and in a simulator's.
"""

import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paired import Way, compare

from workers.collect import rollouts
from workers.envs import make_vector
from workers.envs.settings import CollectSettings
from workers.episodes.recorder import Recorder
from workers.episodes.writer import Episode

SPAWN = multiprocessing.get_context("spawn")
EPISODES = 4  # a run
SETTINGS = CollectSettings(episodes=100_000, seed=7)


class Collector:
    """An endless collection with `count` simulators; `timesteps` counts what they did."""

    def __init__(self, count: int) -> None:
        self.count, self.timesteps = count, 0
        self.envs: Any = make_vector(count, SETTINGS)
        self.episodes: Iterator[Episode] = rollouts(self.envs, range(100_000), SETTINGS, lambda: False, self.beat, {})

    def beat(self) -> None:
        self.timesteps += self.count

    def processor_ms(self) -> tuple[float, float]:
        """Of one timestep over the next episodes: in this process, in the simulators' processes."""
        timesteps, here, there = self.timesteps, time.process_time(), self._children()
        for _ in range(EPISODES):
            next(self.episodes)
        took = (time.process_time() - here, self._children() - there)
        return took[0] / (self.timesteps - timesteps) * 1e3, took[1] / (self.timesteps - timesteps) * 1e3

    def _children(self) -> float:
        files = [Path(f"/proc/{process.pid}/schedstat") for process in getattr(self.envs, "processes", [])]
        return sum(int(file.read_text().split()[0]) for file in files) / 1e9


def simulate(collector: Collector) -> Way:
    def run() -> float:
        start, before = time.perf_counter(), collector.timesteps
        for _ in range(EPISODES):
            next(collector.episodes)
        return (collector.timesteps - before) / (time.perf_counter() - start)

    return Way(f"{collector.count} simulator(s), nothing recorded", run)


def record(collector: Collector, dataset: Path) -> Way:
    def run() -> float:
        start, before = time.perf_counter(), collector.timesteps
        with Recorder(
            dataset, 1, on_recorded=lambda *_: None, on_wait=lambda _: None, should_stop=lambda: False
        ) as recorder:
            for _ in range(EPISODES):
                recorder.put(next(collector.episodes))
        return (collector.timesteps - before) / (time.perf_counter() - start)

    return Way(f"{collector.count} simulator(s), recorded", run)


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

    return Way(f"{count} replica(s) of one simulator", run)


def _replica(pipe: Connection) -> None:
    collect = simulate(Collector(1)).run
    with contextlib.suppress(EOFError):  # the benchmark is over
        while pipe.recv():
            pipe.send(collect())


if __name__ == "__main__":
    compare("replicas, nothing recorded", replicas(2), replicas(1), unit="timesteps/s")
    two, one = Collector(2), Collector(1)
    compare("simulation alone", simulate(two), simulate(one), unit="timesteps/s")
    with tempfile.TemporaryDirectory() as temporary:
        two_kept, one_kept = record(two, Path(temporary, "two")), record(one, Path(temporary, "one"))
        compare("simulation and recording", two_kept, one_kept, unit="timesteps/s")
    pairs = [(two.processor_ms(), one.processor_ms()) for _ in range(5)]
    for name, i in (("two simulators", 0), ("one simulator", 1)):
        here, there = (statistics.median(pair[i][k] for pair in pairs) for k in (0, 1))
        print(f"processor time of a timestep, {name}: {here:.2f} ms in this process, {there:.2f} ms in simulators'")
