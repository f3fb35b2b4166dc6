"""A job that is held at a step (`env: {JOBCTL_HOLD_AT: "10"}`) while a test does its deed; see workers/hold.py.

`volume` is what the job's pods see as theirs: the claim's directory of the local backend, that of the kind cluster on
this machine, or the directory that a test gives its processes as JOBCTL_VOLUME.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from waiting import wait_for

HELD_SECONDS = 120.0


def hold_at(step: int) -> str:
    """The option of `jobctl submit` that holds every replica at a step (collect, eval: of its own episodes)."""
    return f"--set=env.JOBCTL_HOLD_AT={step}"


def wait_until_held(
    volume: Path,
    run: str,
    indexes: Iterable[int] = (0,),
    *,
    fence: int = 1,
    step: int = 0,
    seconds: float = HELD_SECONDS,
    picture: Callable[[], object] = str,
) -> list[dict[str, Any]]:
    """What the files of these indexes tell ({"step", "pod", "fence", "pid"}), once all of them stand still.

    `fence`, `step`: the lowest that count. A holder that was killed leaves its file, one that goes on needs a moment.
    """
    named = [*indexes]

    def all_held() -> list[dict[str, Any]]:
        found = [facts for index in named if (facts := holder(volume, run, index))]
        counting = [facts for facts in found if facts["fence"] >= fence and facts["step"] >= step]
        return counting if len(counting) == len(named) else []

    return wait_for(f"{run} is held at index {named}", all_held, seconds, picture)


def wait_until_let_go(volume: Path, run: str, held: dict[str, Any], index: int = 0, seconds: float = 60) -> None:
    """Until the holder whose file told `held` has heard that it has to stop, or its pod has a successor."""
    wait_for(f"{held['pod']} of {run} hears of it", lambda: holder(volume, run, index) != held, seconds)


def holder(volume: Path, run: str, index: int) -> dict[str, Any] | None:
    """Who stands still at this index."""
    with contextlib.suppress(FileNotFoundError):
        return json.loads((volume / "hold" / run / f"{index}.held").read_text())
    return None


def release(volume: Path, run: str, until: int | None = None) -> None:
    """Let all loops of the run go on: to the end, or until a step where they are held again."""
    directory = volume / "hold" / run
    directory.mkdir(parents=True, exist_ok=True)
    (directory / ("go" if until is None else f"go.{until}")).touch()
    owner = volume.stat()
    for path in (directory.parent, directory):
        os.chown(path, owner.st_uid, owner.st_gid)  # the pods', who write there too
