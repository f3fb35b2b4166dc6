"""Claim: two simulator processes collect at least 1.8 times as fast as one.

Ours: timesteps a second of collect's own rollouts with two simulators, each in its process. Baseline: the same with one
simulator in this process. Once without a recorder, once with it (compression, checksums and fsync in its thread, until
the last episode is recorded). Needs two free cores; with the recorder three threads share them.
"""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from paired import Way, compare

from workers.collect import rollouts
from workers.envs import make_vector
from workers.envs.settings import CollectSettings
from workers.episodes.recorder import Recorder
from workers.episodes.writer import Episode

EPISODES = 4  # a run
SETTINGS = CollectSettings(episodes=100_000, seed=7)


class Collector:
    """An endless collection with `count` simulators; `timesteps` counts what they did."""

    def __init__(self, count: int) -> None:
        self.count, self.timesteps = count, 0
        envs = make_vector(count, SETTINGS)
        self.episodes: Iterator[Episode] = rollouts(envs, range(100_000), SETTINGS, lambda: False, self.beat, {})

    def beat(self) -> None:
        self.timesteps += self.count


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


if __name__ == "__main__":
    two, one = Collector(2), Collector(1)
    compare("simulation alone", simulate(two), simulate(one), unit="timesteps/s")
    with tempfile.TemporaryDirectory() as temporary:
        two_kept, one_kept = record(two, Path(temporary, "two")), record(one, Path(temporary, "one"))
        compare("simulation and recording", two_kept, one_kept, unit="timesteps/s")
