"""Collect: run simulated episodes and record each exactly once.

An episode is a pure function of its seed, and its seed of (settings.seed, its number): the dataset does not depend on
how many replicas or simulators recorded it, nor on how often they were interrupted. Index k of n owns a contiguous
range of numbers; whoever sees all episodes recorded merges them, checks them, and publishes the run's result.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import results, storage
from workers.config import Config
from workers.envs.settings import CollectSettings
from workers.episodes import check, ledger, plots, reader
from workers.episodes.recorder import Recorder
from workers.episodes.schema import TIMESTEP_IMAGE_BYTES
from workers.episodes.writer import Episode, recover
from workers.errors import BadConfigError, GateMissedError, InterruptedRun
from workers.metrics import Metrics
from workers.runtime import Runtime, data_directory, owned_range, run_directory

if TYPE_CHECKING:
    import numpy as np
    from gymnasium.vector import VectorEnv


def run(config: Config, runtime: Runtime) -> None:
    """Records this index's missing episodes; returns when they are recorded (and the dataset, if complete, is sound).

    Raises BadConfigError for settings or gates that don't fit the dataset, GateMissedError after publishing a dataset
    that misses its check or a gate, InterruptedRun when told to stop: what is recorded stays.
    """
    settings = config.settings_as(CollectSettings)
    check.require_gates(config.gates)
    dataset = data_directory(runtime.volume, config.data, config.run)
    _open_dataset(dataset, settings, config.task)
    mine = owned_range(settings.episodes, config.replicas, runtime.index)
    recover(dataset, mine)
    recorded = {entry.episode for entry in ledger.recorded(dataset)}
    missing = [number for number in mine if number not in recorded]
    say(f"index {runtime.index} of {config.replicas}: {len(missing)} of its {len(mine)} episodes are missing")
    metrics = Metrics(runtime, config)
    metrics.serve()
    if len(missing) < len(mine):
        metrics.inc("resumes_total")
    progress = Progress(runtime, metrics, settings.episodes, len(mine), len(mine) - len(missing))
    if missing:
        _record(dataset, missing, settings, config, runtime, progress)
    _finish(dataset, settings, config, runtime, progress)


def say(text: str) -> None:
    print(text, flush=True)


class Progress:
    """Tells people, metrics and the supervisor what was recorded. `recorded` counts this index's episodes."""

    def __init__(self, runtime: Runtime, metrics: Metrics, episodes: int, total: int, recorded: int) -> None:
        self.runtime, self.metrics = runtime, metrics
        self.episodes, self.total, self.recorded = episodes, total, recorded
        self.outcomes: Counter[str] = Counter()
        self.timesteps = 0
        self._since = time.monotonic()
        self._waits = ""
        self.beat()

    def beat(self) -> None:
        """A sign of life between episodes."""
        self.runtime.progress(step=self.recorded, steps=self.total)

    def wait(self, why: str) -> None:
        """Alive, but nothing can be written: said once."""
        if why != self._waits:
            say(why)
            self._waits = why
        self.runtime.progress(waiting=why)

    def episode(self, episode: Episode, entry: ledger.Entry, size_bytes: int, seconds: float) -> None:
        self.recorded += 1
        self.outcomes[entry.outcome] += 1
        self.timesteps += entry.steps
        elapsed = max(1e-9, time.monotonic() - self._since)
        say(
            f"episode {entry.episode}/{self.episodes} seed {entry.seed} {entry.outcome} after {entry.steps} steps"
            f"{' (perturbed)' if entry.perturbed else ''}, {size_bytes / 1e6:.1f} MB, {seconds:.1f} s"
        )
        self.metrics.inc("episodes_total", outcome=entry.outcome)
        self.metrics.log(
            self.recorded,
            steps=self.total,
            episodes=self.total,
            episodes_per_second=self.outcomes.total() / elapsed,
            timesteps_per_second=self.timesteps / elapsed,
            **{f"episodes_{outcome}": count for outcome, count in sorted(self.outcomes.items())},
        )
        self.beat()
        if self._waits:
            self._waits = ""
            self.runtime.progress(waiting=None)


def _open_dataset(dataset: Path, settings: CollectSettings, task: str) -> None:
    """Begins the dataset or continues one of the same content: with more episodes than before, not with fewer."""
    dataset.mkdir(parents=True, exist_ok=True)
    wanted = {"task": task, **settings.model_dump(by_alias=True, exclude={"episodes", "envs"})}
    if not (dataset / "dataset.json").exists():
        ledger.read_manifest(dataset)  # refuses another schema's directory
        _require_room(dataset, settings)
    held = ledger.begin(dataset, wanted)
    differing = [f"{key} {held.get(key)}, not {wanted[key]}" for key in wanted if held.get(key) != wanted[key]]
    if differing:
        raise BadConfigError(
            f"{dataset} was begun with {', '.join(differing)}: "
            "keep these settings, name other `data`, or start with --fresh"
        )
    last = max((entry.episode for entry in ledger.recorded(dataset)), default=-1)
    if last >= settings.episodes:
        raise BadConfigError(
            f"{dataset} holds episode {last} already, but settings.episodes asks for {settings.episodes} only: "
            "ask for more, name other `data`, or start with --fresh"
        )


def _require_room(dataset: Path, settings: CollectSettings) -> None:
    needed = 2 * settings.max_steps * TIMESTEP_IMAGE_BYTES
    free = shutil.disk_usage(dataset).free
    if free < needed:
        raise BadConfigError(
            f"the volume is full: {dataset} has {free / 1e6:.0f} MB free, two uncompressed episodes need "
            f"{needed / 1e6:.0f} MB; free some space, or ask for a lower settings.maxSteps"
        )


def _record(
    dataset: Path,
    missing: Sequence[int],
    settings: CollectSettings,
    config: Config,
    runtime: Runtime,
    progress: Progress,
) -> None:
    from workers.envs.vector import EnvironmentDiedError, make_vector

    count = min(settings.envs_on(config.device, len(os.sched_getaffinity(0))), len(missing))
    say(f"starting {count} simulator{'s' if count > 1 else ''}")
    started: dict[int, float] = {}

    def on_recorded(episode: Episode, entry: ledger.Entry) -> None:
        newest = ledger.published(dataset, entry.episode)[0]
        size_bytes = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        progress.episode(episode, entry, size_bytes, time.monotonic() - started.pop(entry.episode))

    stopped = runtime.stop.is_set
    recorder = Recorder(dataset, runtime.fence, on_recorded=on_recorded, on_wait=progress.wait, should_stop=stopped)
    with recorder, closing(make_vector(count, settings)) as envs:
        try:
            for episode in rollouts(envs, missing, settings, stopped, progress.beat, started):
                recorder.put(episode)
        except EnvironmentDiedError:
            if not stopped():
                raise
    if stopped():
        progress.beat()
        raise InterruptedRun(
            f"interrupted with {progress.recorded} of {progress.total} episodes recorded; the others follow on resume"
        )


@dataclasses.dataclass
class Flight:
    """An episode that runs in one environment, of at most `room` timesteps."""

    number: int
    seed: int
    perturbed: bool
    room: int
    steps: int = 0
    columns: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, timestep: Sequence[np.ndarray]) -> None:
        """Copies one timestep (action, state, images, signals) to where it stays: memory is taken as it is filled."""
        import numpy as np

        if not self.columns:
            self.columns = [np.empty((self.room, *values.shape), values.dtype) for values in timestep]
        for column, values in zip(self.columns, timestep, strict=True):
            column[self.steps] = values
        self.steps += 1

    def land(self, outcome: str) -> Episode:
        actions, states, images, signals = (column[: self.steps] for column in self.columns)
        return Episode(self.number, self.seed, outcome, self.perturbed, actions, states, images, signals)


def rollouts(
    envs: VectorEnv,
    numbers: Sequence[int],
    settings: CollectSettings,
    should_stop: Callable[[], bool],
    beat: Callable[[], None],
    started: dict[int, float],
) -> Iterator[Episode]:
    """Finished episodes as they end; each environment takes the next number when it is free, until none is left.

    Timestep t of an episode is the observation, and the action that the policy answered it with. `envs` must not reset
    themselves, and there are no more of them than numbers. `started`: number -> time.monotonic(), filled in here.
    """
    import numpy as np

    waiting = deque(numbers)
    flights: list[Flight | None] = [None] * envs.num_envs
    while not should_stop():
        free = [slot for slot, flight in enumerate(flights) if flight is None][: len(waiting)]
        if free:
            next_numbers = {slot: waiting.popleft() for slot in free}
            seeds: Any = [
                settings.seed_of(next_numbers[slot]) if slot in next_numbers else None for slot in range(envs.num_envs)
            ]
            mask = np.array([slot in next_numbers for slot in range(envs.num_envs)])
            observation, infos = envs.reset(seed=seeds, options={"reset_mask": mask})
            for slot, number in next_numbers.items():
                perturbed = bool(infos["perturbed"][slot])
                flights[slot] = Flight(number, settings.seed_of(number), perturbed, settings.max_steps)
                started[number] = time.monotonic()
        if not any(flights):
            return
        actions = observation["policy_action"].copy()  # the observation's memory is shared with the environments
        columns = (actions, observation["state"], observation["images"], observation["signals"])
        for slot, flight in enumerate(flights):
            if flight is not None:
                flight.add([column[slot] for column in columns])
        observation, _, terminated, truncated, infos = envs.step(actions)
        beat()
        for slot, flight in enumerate(flights):
            if flight is not None and (terminated[slot] or truncated[slot]):
                flights[slot] = None
                yield flight.land(str(infos["outcome"][slot]))


def _finish(dataset: Path, settings: CollectSettings, config: Config, runtime: Runtime, progress: Progress) -> None:
    """Publishes this index's end; and the run's, if all indexes' episodes are there."""
    code, reason = 0, f"recorded its {progress.total} episodes"
    entries = ledger.merge(dataset, settings.episodes)
    if entries is not None:
        code, reason = _conclude(dataset, entries, config, runtime, progress)
    figures = {"episodes": progress.total, "recorded_by_this_attempt": progress.outcomes.total()}
    results.publish_result(runtime, config, scope="index", code=code, reason=reason, figures=figures)
    say(reason)
    if code:
        raise GateMissedError(reason)


def _conclude(
    dataset: Path, entries: list[ledger.Entry], config: Config, runtime: Runtime, progress: Progress
) -> tuple[int, str]:
    """Checks the merged dataset and publishes results/run.FENCE; (exit code, reason)."""
    report = check.check(dataset, len(entries), progress.beat)
    misses = [*report.problems, *check.missed_gates(config.gates, report.figures)]
    if misses:
        more = f" (and {len(misses) - 1} more)" if len(misses) > 1 else ""
        fatal = report.problems or config.enforce_gates
        code = GateMissedError.code if fatal else 0
        unenforced = "" if fatal else ", which is not enforced"
        reason = f"the dataset is complete but misses its check{unenforced}: {misses[0]}{more}"
    else:
        code, reason = 0, f"all {len(entries)} episodes are recorded and pass the data check"

    def files(directory: Path) -> None:
        _write_report(directory, dataset, entries, report, misses)

    run_dir = run_directory(runtime.volume, config.run)
    before = results.read_result(run_dir, "run")
    told = before and (before["specHash"], before["jobUid"], before["exitCode"])
    if told != (config.spec_hash, runtime.job_uid, code):
        # Leases of different indexes count on their own: the run's results have a number of their own.
        fences = [fence for stem, fence, _ in storage.fenced(run_dir / "results") if stem == "run"]
        numbered = dataclasses.replace(runtime, fence=max(fences, default=0) + 1)
        results.publish_result(
            numbered,
            config,
            scope="run",
            code=code,
            reason=reason,
            figures=report.figures,
            tables={**report.tables, "misses": {"columns": ["what"], "rows": [[miss] for miss in misses]}},
            files=files,
        )
    return code, reason


def _write_report(
    directory: Path, dataset: Path, entries: list[ledger.Entry], report: check.Report, misses: list[str]
) -> None:
    (directory / "plots").mkdir()
    plots.plot_outcomes(entries, directory / "plots" / "outcomes.png")
    shown = next((entry for entry in entries if entry.outcome == "drop"), entries[0])
    if not report.problems:  # a damaged episode can't be drawn
        path = ledger.path_of(dataset, shown)
        arrays = reader.read_arrays(path, shown, ("signals", "horizon_labels"))
        images = reader.read_instants(path, shown, plots.INSTANTS)
        plots.plot_episode(shown, arrays, images, directory / "plots" / "episode.png")
    lines = [f"# {dataset.name}: {len(entries)} episodes", ""]
    lines += [f"- {miss}" for miss in misses] or ["All checks and gates hold."]
    for name, table in report.tables.items():
        lines += ["", f"## {name.capitalize()}", "", _row(table["columns"]), _row(["---"] * len(table["columns"]))]
        lines += [_row([f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row]) for row in table["rows"]]
    lines += ["", "![outcomes](plots/outcomes.png)", "", "![one episode](plots/episode.png)"]
    (directory / "report.md").write_text("\n".join(lines) + "\n")


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"
