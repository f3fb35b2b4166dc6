"""A loop that stands still at a step, alive, until somebody lets it go on: JOBCTL_HOLD_AT=10.

For a person (to attach a debugger, to drain a node by hand) or a test that has to catch a job in the middle.

VOLUME/hold/RUN/INDEX.held    {"step", "pod", "fence", "pid"} of a loop that stands still; gone when it goes on
VOLUME/hold/RUN/go            made by whoever lets it go on; as long as it is there, no loop of the run is held
VOLUME/hold/RUN/go.30         likewise, up to step 30: there it is held again
VOLUME/hold/RUN/FENCE.told    a rank of this generation was told to stop: its peers are let go, to save with it

Standard library only.
"""

import json
import math
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1
GO = "go"


def hold_directory(volume: Path, run: str) -> Path:
    return volume / "hold" / run


class Hold:
    """Where one loop process stands still: at the first step that is `at` or beyond.

    `name`: the process, among those of its run. `facts`: what its file tells beside the step. `generation`: the file
    by which peers of a training group tell each other that they have to stop; None for who trains alone.
    """

    def __init__(self, directory: Path, at: int, name: str, facts: Mapping[str, Any], generation: str | None) -> None:
        self._directory = directory
        self._at: float = at
        self._held = directory / f"{name}.held"
        self._told = directory / generation if generation else None
        self._facts = facts
        self._said: int | None = None
        self._lock = threading.Lock()  # of collect, two threads stand still: the simulator's and the recorder's

    def keep(self, step: int, told_within: Callable[[float], bool], give_sign: Callable[[], None]) -> None:
        """Return once this loop may go on: `step` comes before the hold, somebody said go, or it was told to stop.

        `told_within(seconds)` waits for that; `give_sign` is called again and again. Raises OSError of the volume.
        """
        if step < self._at:
            return
        while not self._is_let_go(step, told_within(0)):
            self._say(step)
            give_sign()
            told_within(POLL_SECONDS)
        with self._lock:
            self._held.unlink(missing_ok=True)

    def _is_let_go(self, step: int, told: bool) -> bool:
        if told and self._told:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._told.touch()
        self._at = max([self._at, *(_limit(path.suffix) for path in self._directory.glob(f"{GO}*"))])
        return told or step < self._at or bool(self._told and self._told.exists())

    def _say(self, step: int) -> None:
        """Leave the file that says so, once a step."""
        with self._lock:
            if self._said == step:
                return
            self._said = step
            self._directory.mkdir(parents=True, exist_ok=True)
            temporary = self._held.with_name(f".{self._held.name}.{os.getpid()}")
            temporary.write_text(json.dumps({"step": step, **self._facts, "pid": os.getpid()}))
            temporary.replace(self._held)
        print(f"held at step {step} until {self._directory / GO} is there (JOBCTL_HOLD_AT)", flush=True)


def _limit(suffix: str) -> float:
    """The step up to which a file `go` or `go.STEP` lets loops go on."""
    if not suffix:
        return math.inf
    return int(suffix[1:]) if suffix[1:].isdecimal() else 0
