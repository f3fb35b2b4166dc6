"""What a supervisor saves in status.json. Instants are saved as Unix seconds, so that they outlive it."""

from pathlib import Path
from typing import Any

from jobctl.local.jobs import Condition, JobState, Tally
from jobctl.local.layout import RELEASE, STATUS
from jobctl.untrusted import UnreadableError, at, read_object

_Needed = dict[tuple[str, ...], type | tuple[type, ...]]
# What every reader needs, and of which type.
_NEEDED: _Needed = {
    ("name",): str,
    ("revision",): int,
    ("values",): dict,
    ("created_at",): str,
    ("job",): dict,
    ("job", "metadata"): dict,
    ("job", "spec"): dict,
    ("job", "status"): dict,
    ("pods",): list,
}
_NEEDED_OF_RELEASES: _Needed = {
    ("name",): str,
    ("revision",): int,
    ("values",): dict,
    ("manifest",): list,
    ("job_uid",): str,
    ("created_at",): str,
    ("backoff_scale",): (int, float),
}
_NEEDED_OF_PODS: _Needed = {
    ("metadata", "name"): str,
    ("metadata", "labels"): dict,
    ("metadata", "annotations"): dict,
    ("status", "phase"): str,
    ("status", "conditions"): list,
    ("status", "containerStatuses"): list,
}


def read_status(directory: Path) -> dict[str, Any]:
    """The status.json of a revision's directory, checked as far as readers rely on it.

    Raises FileNotFoundError where there is none, UnreadableError where it is no status.
    """
    status = read_object(directory, STATUS)
    _require(status, _NEEDED)
    for pod in status["pods"]:
        _require(pod, _NEEDED_OF_PODS, " of a pod")
    return status


def read_release(directory: Path) -> dict[str, Any]:
    """What was submitted, as a supervisor needs it. Raises FileNotFoundError, UnreadableError."""
    release = read_object(directory, RELEASE)
    _require(release, _NEEDED_OF_RELEASES)
    return release


def _require(part: Any, needed: _Needed, of: str = "") -> None:
    for path, kinds in needed.items():
        if not isinstance(at(part, *path), kinds):
            raise UnreadableError(f"it has no {'.'.join(path)}{of}")


def save_state(state: JobState, offset: float) -> dict[str, Any]:
    """offset: Unix time less the clock of the state's instants, in seconds."""
    return {
        "succeeded": sorted(state.succeeded),
        "failed": sorted(state.failed),
        "tallies": {str(index): _tally(tally, offset) for index, tally in state.tallies.items()},
        "common": _tally(state.common, offset),
        "failed_pods": state.failed_pods,
        "target": vars(state.target) if state.target else None,
    }


def load_state(saved: dict[str, Any], offset: float, now: float) -> JobState:
    """offset: the clock of the state's instants less Unix time, in seconds; now: by that clock. No wait gets longer."""
    return JobState(
        succeeded=set(saved["succeeded"]),
        failed=set(saved["failed"]),
        tallies={int(index): _load_tally(tally, offset, now) for index, tally in saved["tallies"].items()},
        common=_load_tally(saved["common"], offset, now),
        failed_pods=saved["failed_pods"],
        target=Condition(**saved["target"]) if saved["target"] else None,
    )


def _tally(tally: Tally, offset: float) -> dict[str, Any]:
    return {**vars(tally), "not_before": tally.not_before + offset if tally.not_before else 0.0}


def _load_tally(saved: dict[str, Any], offset: float, now: float) -> Tally:
    not_before = min(saved["not_before"] + offset, now + saved["wait_seconds"]) if saved["not_before"] else 0.0
    return Tally(**{**saved, "not_before": not_before})
