"""The data check: what must hold before anybody trains on a dataset, and the figures that gates are judged by.

Collect runs it at its end (exit code 66), train again before step 0 (65).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.episodes import ledger, reader
from workers.episodes.labels import horizon_labels
from workers.episodes.schema import CAMERAS, FAILURES, HORIZONS, OUTCOMES, RATE_HZ, SIGNALS
from workers.errors import BadConfigError, BadDataError

if TYPE_CHECKING:
    import numpy as np

SAMPLED_EPISODES = 8  # whose images are looked at; everything else is checked in every episode
SMALL_ARRAYS = ("actions", "states", "signals", "horizon_labels")
NAMED_AT_MOST = 5
SIGNALS_VARY_AFTER = 300  # timesteps: a signal may rest for as long, a cube that nobody touched yet does not move
_BOUND = {True: "least", False: "most"}


@dataclass(frozen=True)
class Report:
    """What a check found. `problems`: one sentence each, none if the data is sound; `figures`: shares and counts by
    name; `tables`: name -> {"columns": [...], "rows": [[...]]}; `damaged`: episodes gone or not as recorded."""

    problems: list[str]
    figures: dict[str, float] = field(default_factory=dict)
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    damaged: tuple[int, ...] = ()


@dataclass(frozen=True)
class Gate:
    """A bound on figures of the check: all of them at least (or at most) the value that the spec gives."""

    figures: tuple[str, ...]
    at_least: bool
    description: str


GATES: dict[str, Gate] = {
    "episodes": Gate(("episodes",), True, "Episodes recorded, at least."),
    "successShareMin": Gate(("success_share",), True, "Share of episodes that succeed, at least."),
    "successShareMax": Gate(("success_share",), False, "Share of episodes that succeed, at most."),
    "failureShareMin": Gate(
        tuple(f"{failure}_share" for failure in FAILURES), True, "Share of episodes of each failure type, at least."
    ),
    "positiveShareMin": Gate(
        tuple(f"positive_share_h{h}" for h in HORIZONS),
        True,
        "Share of positive timesteps, each horizon, at least.",
    ),
    "positiveShareMax": Gate(
        tuple(f"positive_share_h{h}" for h in HORIZONS),
        False,
        "Share of positive timesteps, each horizon, at most.",
    ),
}


def check(dataset: Path, expected: int | None, beat: Callable[[], None] = lambda: None) -> Report:
    """Checks a dataset of `expected` episodes (None: as many as its manifest says, or as are recorded).

    Reads every file once, to verify it, and calls `beat` again and again. Raises BadDataError only if there
    is no dataset of this schema to check.
    """
    entries = ledger.read(dataset)
    manifest = ledger.read_manifest(dataset)
    problems = [*_count_problems(entries, manifest, expected)]
    sampled = {entries[round(i * (len(entries) - 1) / (SAMPLED_EPISODES - 1))].episode for i in range(SAMPLED_EPISODES)}
    signals, labels, damaged = [], [], []
    among = ledger.all_published(dataset)
    for entry in entries:
        beat()
        try:
            path = ledger.path_of(dataset, entry, beat, among=among)
        except BadDataError as error:
            problems.append(str(error))
            damaged.append(entry.episode)
            continue
        try:
            arrays = reader.read_arrays(path, entry, SMALL_ARRAYS)
            problems += _array_problems(entry, arrays)
            if entry.episode in sampled:
                problems += _image_problems(entry, reader.read_instants(path, entry))
        except BadDataError as error:
            problems.append(str(error))
            continue
        signals.append(arrays["signals"])
        labels.append(arrays["horizon_labels"])
    problems += _signal_problems(signals)
    return Report(problems, _figures(entries, labels), _tables(entries, labels, signals), tuple(damaged))


def require_gates(gates: Mapping[str, float]) -> None:
    """Raises BadConfigError for a gate that does not exist, with the nearest names: before anything is collected."""
    for name in gates:
        if name not in GATES:
            nearest = difflib.get_close_matches(name, GATES, n=3) or sorted(GATES)
            raise BadConfigError(f"unknown gate {name!r} for collect; try {', '.join(nearest)}")


def missed_gates(gates: Mapping[str, float], figures: Mapping[str, float]) -> list[str]:
    """One sentence for each figure that is beyond its gate."""
    missed = []
    for name, bound in gates.items():
        gate = GATES[name]
        for figure in gate.figures:
            value = figures[figure]
            if value < bound if gate.at_least else value > bound:
                missed.append(f"{figure} is {value:.4g}, gate {name} asks at {_BOUND[gate.at_least]} {bound:g}")
    return missed


def _count_problems(
    entries: Sequence[ledger.Entry], manifest: dict[str, Any] | None, expected: int | None
) -> Iterator[str]:
    if expected is None:
        expected = int(manifest["episodes"]) if manifest else len(entries)
    found = {entry.episode for entry in entries}
    if missing := sorted(set(range(expected)) - found):
        yield f"{len(missing)} of {expected} episodes are missing: {_named(missing)}"
    if len(entries) != len(found) or len(entries) > expected:
        yield f"the ledger has {len(entries)} entries, {expected} are expected"
    if len({entry.seed for entry in entries}) != len(entries):
        yield "two episodes have the same seed"
    if short := [entry.episode for entry in entries if entry.steps < 1]:
        yield f"episodes without a timestep: {_named(short)}"
    if manifest:
        counted = ledger.counts(entries)
        for name, value in counted.items():
            if manifest.get(name) != value:
                yield f"the manifest counts {name} {manifest.get(name)}, the ledger {value}"


def _array_problems(entry: ledger.Entry, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    import numpy as np

    for name in ("actions", "states", "signals"):
        values = arrays[name]
        if not np.isfinite(values).all():
            yield f"episode {entry.episode}: {name} holds values that are not finite"
        elif not values.any():
            yield f"episode {entry.episode}: {name} is all zeros"
        elif entry.steps > 1 and (values == values[0]).all():
            yield f"episode {entry.episode}: {name} never changes"
    if not np.array_equal(arrays["horizon_labels"], horizon_labels(entry.steps, entry.outcome)):
        yield f"episode {entry.episode}: horizon_labels do not follow from its outcome {entry.outcome!r}"


def _image_problems(entry: ledger.Entry, images: np.ndarray) -> Iterator[str]:
    """`images`: (instants, 3, 224, 224, 3) uint8, in order of time."""
    import numpy as np

    for index, camera in enumerate(CAMERAS):
        frames = images[:, index]
        if not frames.any():
            yield f"episode {entry.episode}: the {camera} camera's images are all zeros"
        elif any(frame.min() == frame.max() for frame in frames):
            yield f"episode {entry.episode}: the {camera} camera has an image of one colour"
        elif len(frames) > 1 and (frames == frames[0]).all():
            yield f"episode {entry.episode}: the {camera} camera's images never change"
        for other in range(index):
            if np.array_equal(frames, images[:, other]):
                yield f"episode {entry.episode}: the {CAMERAS[other]} and {camera} cameras show the same images"


def _signal_problems(signals: Sequence[np.ndarray]) -> Iterator[str]:
    import numpy as np

    if sum(map(len, signals)) >= SIGNALS_VARY_AFTER:
        everywhere = np.concatenate(signals)
        for index, signal in enumerate(SIGNALS):
            if (everywhere[:, index] == everywhere[0, index]).all():
                yield f"the signal {signal.name} is {everywhere[0, index]:g} in every timestep of the dataset"


def _figures(entries: Sequence[ledger.Entry], labels: Sequence[np.ndarray]) -> dict[str, float]:
    counted = ledger.counts(entries)
    episodes = max(1, len(entries))
    figures: dict[str, float] = {"episodes": len(entries), "steps": counted["steps"]}
    figures["steps_mean"] = counted["steps"] / episodes
    figures["perturbed_share"] = counted["perturbed"] / episodes
    figures |= {f"{outcome}_share": count / episodes for outcome, count in counted["outcomes"].items()}
    return figures | {f"positive_share_h{h}": share for h, (_, share) in zip(HORIZONS, _positives(labels), strict=True)}


def _positives(labels: Sequence[np.ndarray]) -> list[tuple[int, float]]:
    """(timesteps with a positive label of any type, their share) at each horizon."""
    steps = max(1, sum(map(len, labels)))
    counts = [int(sum(episode[:, h].any(axis=1).sum() for episode in labels)) for h in range(len(HORIZONS))]
    return [(count, count / steps) for count in counts]


def _tables(
    entries: Sequence[ledger.Entry], labels: Sequence[np.ndarray], signals: Sequence[np.ndarray]
) -> dict[str, dict[str, Any]]:
    import numpy as np

    of = {outcome: [entry for entry in entries if entry.outcome == outcome] for outcome in OUTCOMES}
    outcomes = [
        [name, len(some), len(some) / max(1, len(entries)), sum(entry.perturbed for entry in some)]
        for name, some in of.items()
    ]
    horizons = [[h, 1000 * h / RATE_HZ, *positive] for h, positive in zip(HORIZONS, _positives(labels), strict=True)]
    tables = {
        "outcomes": {"columns": ["outcome", "episodes", "share", "perturbed"], "rows": outcomes},
        "labels": {
            "columns": ["horizon_steps", "horizon_milliseconds", "positive_timesteps", "share"],
            "rows": horizons,
        },
    }
    if signals:
        values = np.concatenate(signals).astype(np.float64)
        columns = zip(SIGNALS, values.min(0), values.mean(0), values.max(0), values.std(0), strict=True)
        rows = [[signal.name, signal.unit, *map(float, statistics)] for signal, *statistics in columns]
        tables["signals"] = {"columns": ["signal", "unit", "min", "mean", "max", "std"], "rows": rows}
    return tables


def _named(numbers: Sequence[int]) -> str:
    more = f" and {len(numbers) - NAMED_AT_MOST} more" if len(numbers) > NAMED_AT_MOST else ""
    return ", ".join(map(str, numbers[:NAMED_AT_MOST])) + more
