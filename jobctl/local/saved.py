"""JobState as JSON. Instants are saved as Unix seconds, so that they outlive a supervisor."""

from typing import Any

from jobctl.local.jobs import Condition, JobState, Tally


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


def load_state(saved: dict[str, Any], offset: float) -> JobState:
    """offset: the clock of the state's instants less Unix time, in seconds."""
    return JobState(
        succeeded=set(saved["succeeded"]),
        failed=set(saved["failed"]),
        tallies={int(index): _load_tally(tally, offset) for index, tally in saved["tallies"].items()},
        common=_load_tally(saved["common"], offset),
        failed_pods=saved["failed_pods"],
        target=Condition(**saved["target"]) if saved["target"] else None,
    )


def _tally(tally: Tally, offset: float) -> dict[str, Any]:
    return {**vars(tally), "not_before": tally.not_before + offset if tally.not_before else 0.0}


def _load_tally(saved: dict[str, Any], offset: float) -> Tally:
    return Tally(**{**saved, "not_before": saved["not_before"] + offset if saved["not_before"] else 0.0})
