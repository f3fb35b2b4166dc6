"""Collect: run simulated episodes and record each exactly once.

An episode is a pure function of its seed, and its seed of (settings.seed, its number): the dataset does not depend on
how many replicas or simulators recorded it, nor on how often they were interrupted. Index k of n owns a contiguous
range of numbers; whoever sees all episodes recorded merges them, checks them, and publishes the run's result.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers import document, envs, results, rollouts, simulators
from workers.config import Config
from workers.envs.settings import CollectSettings
from workers.episodes import check, ledger, plots, reader
from workers.episodes.schema import TIMESTEP_IMAGE_BYTES
from workers.episodes.writer import missing, recover
from workers.errors import BadConfigError, BadDataError, GateMissedError, InterruptedRun
from workers.metrics import Metrics
from workers.room import when_there_is_room
from workers.runtime import Runtime, owned_range, recorded_directory


def run(config: Config, runtime: Runtime) -> None:
    """Records this index's missing episodes, and again those that are gone or damaged; returns when they are recorded
    (and the dataset, if complete, is sound).

    Raises BadConfigError for settings, gates or `data` that don't fit, BadDataError where a damaged episode can't be
    recorded again as it was, GateMissedError after publishing a dataset
    that misses its check or a gate, InterruptedRun when told to stop: what is recorded stays.
    """
    settings = config.settings_as(CollectSettings)
    check.require_gates(config.gates)
    dataset = recorded_directory(runtime.volume, config.data, config.run)
    _open_dataset(dataset, settings, config.task)
    mine = owned_range(settings.episodes, config.replicas, runtime.index)
    recover(dataset, mine, runtime.progress, say)
    due = missing(dataset, mine)
    say(f"index {runtime.index} of {config.replicas}: {len(due)} of its {len(mine)} episodes are missing")
    metrics = Metrics(runtime, config)
    metrics.serve()
    if len(due) < len(mine):
        metrics.inc("resumes_total")
    progress = Progress(runtime, metrics, settings.episodes, len(mine), len(mine) - len(due))
    if due:
        _record(dataset, due, settings, config, runtime, progress)
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

    def again(self, count: int) -> None:
        """So many episodes have to be recorded again."""
        self.recorded = max(0, self.recorded - count)
        self.beat()

    def wait(self, why: str) -> None:
        """Alive, but nothing can be written: said once."""
        if why != self._waits:
            say(why)
            self._waits = why
        self.runtime.progress(waiting=why)

    def episode(self, entry: ledger.Entry, size_bytes: int, seconds: float) -> None:
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
        if found := ledger.numbers(dataset):
            raise BadDataError(
                f"{dataset} holds {len(found)} recorded episodes, but no dataset.json, which says with what settings "
                "they were made: put it back, name other `data`, or start with --fresh"
            )
        _require_room(dataset, settings)
    held = ledger.begin(dataset, wanted)
    differing = [f"{key} {held.get(key)}, not {wanted[key]}" for key in wanted if held.get(key) != wanted[key]]
    if differing:
        raise BadConfigError(
            f"{dataset} was begun with {', '.join(differing)}: "
            "keep these settings, name other `data`, or start with --fresh"
        )
    last = max(ledger.numbers(dataset), default=-1)
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
    due: Sequence[int],
    settings: CollectSettings,
    config: Config,
    runtime: Runtime,
    progress: Progress,
) -> None:
    count = min(settings.envs_on(config.device, len(os.sched_getaffinity(0))), len(due))
    say(f"starting {count} simulator{'s' if count > 1 else ''}")
    plan = rollouts.Plan(dataset, runtime.fence, settings, envs.maker(settings))
    stopped = runtime.stop.is_set
    if count == 1:
        rollouts.record(plan, due, stopped, progress)
    else:
        simulators.record_side_by_side(count, plan, due, stopped, progress)
    if stopped():
        progress.beat()
        raise InterruptedRun(
            f"interrupted with {progress.recorded} of {progress.total} episodes recorded; the others follow on resume"
        )


def _finish(dataset: Path, settings: CollectSettings, config: Config, runtime: Runtime, progress: Progress) -> None:
    """Publishes this index's end; and the run's, if all indexes' episodes are there."""
    code, reason = 0, f"recorded its {progress.total} episodes"
    entries = when_there_is_room(lambda: ledger.merge(dataset, settings.episodes), runtime, "the ledger")
    if entries is not None:
        report = check.check(dataset, len(entries), progress.beat)
        if report.damaged:
            report = _mend(dataset, report.damaged, settings, config, runtime, progress)
        code, reason = _conclude(dataset, entries, report, config, runtime)
    figures = {"episodes": progress.total, "recorded_by_this_attempt": progress.outcomes.total()}
    results.publish_with_room(runtime, config, scope="index", code=code, reason=reason, figures=figures)
    say(reason)
    if code:
        raise GateMissedError(reason)


def _mend(
    dataset: Path,
    damaged: Sequence[int],
    settings: CollectSettings,
    config: Config,
    runtime: Runtime,
    progress: Progress,
) -> check.Report:
    """Records episodes again that were damaged since they were recorded, whoever owns them, and checks once more."""
    say(f"damaged, recorded again: {', '.join(f'episode {number}' for number in damaged)}")
    progress.again(len(damaged))
    _record(dataset, damaged, settings, config, runtime, progress)
    return check.check(dataset, settings.episodes, progress.beat)


def _conclude(
    dataset: Path, entries: list[ledger.Entry], report: check.Report, config: Config, runtime: Runtime
) -> tuple[int, str]:
    """Publishes results/run.NUMBER on the merged dataset that was checked; (exit code, reason)."""
    misses = [*report.problems, *check.missed_gates(config.gates, report.figures)]
    if misses:
        more = f" (and {len(misses) - 1} more)" if len(misses) > 1 else ""
        fatal = report.problems or config.enforce_gates
        code = GateMissedError.code if fatal else 0
        unenforced = "" if fatal else ", which is not enforced"
        reason = f"the dataset is complete but misses its check{unenforced}: {misses[0]}{more}"
    else:
        code, reason = 0, f"all {len(entries)} episodes are recorded and pass the data check"
    results.publish_with_room(
        runtime,
        config,
        scope="run",
        code=code,
        reason=reason,
        figures=report.figures,
        tables={**report.tables, "misses": {"columns": ["what"], "rows": [[miss] for miss in misses]}},
        files=lambda directory: _write_report(directory, dataset, entries, report, misses),
    )
    return code, reason


def _write_report(
    directory: Path, dataset: Path, entries: list[ledger.Entry], report: check.Report, misses: list[str]
) -> None:
    (directory / "plots").mkdir()
    plots.plot_outcomes(entries, directory / "plots" / "outcomes.png")
    shown = next((entry for entry in entries if entry.outcome == "drop"), entries[0])
    pictures = [document.Picture("plots/outcomes.png", "outcomes")]
    if not report.problems:  # a damaged episode can't be drawn
        path = ledger.path_of(dataset, shown)
        arrays = reader.read_arrays(path, shown, ("signals", "horizon_labels"))
        images = reader.read_instants(path, shown, plots.INSTANTS)
        plots.plot_episode(shown, arrays, images, directory / "plots" / "episode.png")
        pictures.append(document.Picture("plots/episode.png", "one episode"))
    blocks: list[document.Block] = [
        *map(document.Paragraph, misses or ["All checks and gates hold."]),
        *(block for name, table in report.tables.items() for block in _shown(name, table)),
        *pictures,
    ]
    text = document.markdown(f"{dataset.name}: {len(entries)} episodes", blocks)
    (directory / "report.md").write_text(text, encoding="utf-8")


def _shown(name: str, table: Mapping[str, Any]) -> list[document.Block]:
    rows = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in table["rows"]]
    return [document.Heading(name.capitalize()), document.Table(table["columns"], rows)]
