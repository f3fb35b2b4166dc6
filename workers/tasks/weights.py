"""The weights that another run published: what eval judges, and what train may start from."""

from pathlib import Path

from workers import checkpoint, results
from workers.checkpoint import Restored
from workers.errors import BadConfigError
from workers.runtime import run_directory
from workers.storage import CorruptError


def weights_of(volume: Path, run: str, task: str) -> Restored:
    """The best weights of a finished training, verified. Raises BadConfigError naming the trainings there are."""
    directory = run_directory(volume, run)
    if not _finished(directory):
        known = sorted(path.name for path in (volume / "runs").glob("*") if _finished(path))
        there = (
            f"finished trainings on this volume: {', '.join(known)}"
            if known
            else "this volume has no finished training"
        )
        state = "is not finished" if directory.is_dir() else "does not exist"
        raise BadConfigError(f"from: {run!r} {state} as a training; {there}")
    damaged: list[CorruptError] = []
    found = checkpoint.newest(directory, "best", on_corrupt=damaged.append)
    if found is None:
        raise BadConfigError(
            f"from: the weights of {run!r} can't be read: {damaged[0] if damaged else 'best/ is empty'}"
        )
    if found.state["task"] != task:
        raise BadConfigError(f"from: {run!r} trained the task {found.state['task']}, not {task}")
    return found


def _finished(directory: Path) -> bool:
    result = results.read_result(directory, 0) if directory.is_dir() else None
    return bool(result and result["kind"] == "train" and result["exitCode"] == 0)
