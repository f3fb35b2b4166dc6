"""How far a run is, from the last metrics lines of its indexes. Pure, and never raises for lines of any content."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jobctl.untrusted import is_number, number

Line = dict[str, Any]

RATE_LINES = 12  # lines of a metrics file that the rate is taken over
_MOST = 2**63  # no count of steps or episodes is larger


@dataclass(frozen=True)
class Progress:
    """The newest figures of a run: `step` counts optimizer steps (train) or episodes (collect, eval) of all indexes."""

    step: int
    steps: int | None
    steps_per_second: float | None
    eta_seconds: float | None
    updated_unix_seconds: float | None
    figures: dict[str, float]  # those of the newest line


def progress_of(tails: Iterable[Sequence[Line]], indexes: int = 1) -> Progress | None:
    """From the last metrics lines of each index, oldest first; None where none has a step.

    One progress of all indexes: steps add up (each has its own share), the other figures are the newest's. `indexes`
    says how many have a share: the total is known when each has written a line. A rate is told from lines of one
    attempt whose times go on, so neither a clock that was set back nor a new attempt makes one up.
    """
    counted = [lines for tail in tails if (lines := [line for line in tail if _count(line, "step") is not None])]
    if not counted:
        return None
    last = [lines[-1] for lines in counted]
    totals = [total for line in last if (total := _total(line)) is not None]
    rates = [rate for lines in counted if (rate := _rate(lines)) is not None]
    newest = max(last, key=lambda line: number(line, "time") or 0.0)
    step = sum(_count(line, "step") or 0 for line in last)
    steps = sum(totals) if len(totals) == len(last) >= indexes else None
    rate = _finite(sum(rates)) if rates else None
    return Progress(
        step=step,
        steps=steps,
        steps_per_second=rate,
        eta_seconds=None if steps is None or not rate else _finite(max(0, steps - step) / rate),
        updated_unix_seconds=number(newest, "time"),
        figures=numbers({key: value for key, value in newest.items() if key not in ("time", "step")}),
    )


def numbers(figures: dict[str, Any]) -> dict[str, float]:
    """Those that are finite numbers."""
    return {key: value for key, value in figures.items() if is_number(value)}


def _count(line: Line, key: str) -> int | None:
    """A whole number of steps or episodes; None where it can't be one."""
    value = number(line, key)
    return int(value) if value is not None and 0 <= value < _MOST else None


def _total(line: Line) -> int | None:
    return next((count for key in ("steps", "episodes") if (count := _count(line, key)) is not None), None)


def _rate(lines: Sequence[Line]) -> float | None:
    """Steps a second over the last lines; None with fewer than two moments."""
    going = [(time, _count(line, "step") or 0) for line in lines[-RATE_LINES:] if (time := number(line, "time"))]
    if not going:
        return None
    end = first = going[-1]
    for moment in reversed(going[:-1]):
        if moment[0] >= first[0] or moment[1] > first[1]:  # the clock was set back, or the loop began again
            break
        first = moment
    seconds, steps = end[0] - first[0], end[1] - first[1]
    return _finite(steps / seconds) if seconds > 0 and steps > 0 else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
