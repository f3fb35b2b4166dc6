"""The weights that another run published: what eval judges, and what train may start from."""

from collections.abc import Callable, Sequence
from pathlib import Path

from workers import checkpoint, results
from workers.checkpoint import Restored
from workers.errors import BadConfigError, BadDataError
from workers.runtime import run_directory
from workers.untrusted import CorruptError


def weights_of(volume: Path, run: str, task: str) -> Restored:
    """The best weights of a finished training, verified.

    Raises BadConfigError naming the trainings there are if this one is missing or not finished, BadDataError naming
    the file if its end or its weights are damaged: older weights than its best are never taken instead.
    """
    directory = run_directory(volume, run)
    damaged: list[CorruptError] = []
    if not _is_finished(directory, damaged.append):
        _refuse_damaged(run, damaged)
        known = sorted(path.name for path in (volume / "runs").glob("*") if _is_finished(path))
        there = (
            f"finished trainings on this volume: {', '.join(known)}"
            if known
            else "this volume has no finished training"
        )
        state = "is not finished" if directory.is_dir() else "does not exist"
        raise BadConfigError(f"from: {run!r} {state} as a training; {there}")
    found = checkpoint.newest(directory, "best", on_corrupt=damaged.append)
    _refuse_damaged(run, damaged)
    if found is None:
        raise BadDataError(f"from: {run!r} is finished, but its weights are gone: {directory / 'best'} is empty")
    found.require("task", "identity", "seenSeeds")
    if found.state["task"] != task:
        raise BadConfigError(f"from: {run!r} trained the task {found.state['task']}, not {task}")
    return found


def _refuse_damaged(run: str, damaged: Sequence[CorruptError]) -> None:
    if damaged:
        raise BadDataError(f"from: {run!r} is damaged: {damaged[0]}; restore that file, or train again with --fresh")


def _is_finished(directory: Path, on_corrupt: Callable[[CorruptError], None] = lambda error: None) -> bool:
    return directory.is_dir() and results.finished_training(directory, on_corrupt)
