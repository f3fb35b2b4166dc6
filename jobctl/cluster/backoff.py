"""The Job controller's back-off of an index, worked out from its pods as the controller itself does. Pure.

Kubernetes documents 10 s that double with every failure, at most 10 min; with backoffLimitPerIndex each index has its
own, counted from the finish of its last failed pod. Failures that the podFailurePolicy ignores count for the back-off,
too (pkg/controller/job: getRemainingTimePerIndex, getIndexAbsoluteFailureCount). The controller keeps the counts as
annotations on the pods, and the last failed pod itself, with its finalizer, until it has made the next one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from jobctl.objects import by_index, condition_of, failures_before, parse_indexes, parse_time

FIRST_SECONDS = 10.0
LONGEST_SECONDS = 600.0

Object = dict[str, Any]


def backoff_seconds(failures: int) -> float:
    """The wait after so many failures (from 1 on) of one index."""
    return min(FIRST_SECONDS * 2 ** min(failures - 1, 30), LONGEST_SECONDS)


def finished_at(pod: Object) -> datetime | None:
    """When its last container ended; where none says so, when the pod stopped being ready or was to be gone."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    ends = [parse_time(((status.get("state") or {}).get("terminated") or {}).get("finishedAt")) for status in statuses]
    known = [end for end in ends if end is not None]
    if known and len(known) == len(ends):
        return max(known)
    ready = condition_of(pod, "Ready")
    if ready.get("status") == "False" and (changed := parse_time(ready.get("lastTransitionTime"))):
        return changed
    return parse_time(pod.get("metadata", {}).get("deletionTimestamp"))


def is_over(pod: Object) -> bool:
    """Whether the controller counts it as failed: podReplacementPolicy Failed waits for the pod's last phase."""
    return (pod.get("status") or {}).get("phase") == "Failed"


def backoffs(job: Object, pods: Iterable[Object]) -> list[dict[str, float]]:
    """[{index, until_unix_seconds, seconds}] of the indexes that wait: the annotation that status.py reads."""
    status = job.get("status") or {}
    if (job.get("spec") or {}).get("suspend") or _ended(status):
        return []
    done = parse_indexes(status.get("completedIndexes") or "") | parse_indexes(status.get("failedIndexes") or "")
    found = []
    for index, of in by_index(pods).items():
        ends = [(end, failures_before(pod) + 1) for pod in of if is_over(pod) and (end := finished_at(pod))]
        if index in done or not ends or not all(is_over(pod) for pod in of):
            continue  # it has a pod, or needs none
        end, failures = max(ends)
        seconds = backoff_seconds(failures)
        found.append({"index": index, "until_unix_seconds": end.timestamp() + seconds, "seconds": seconds})
    return found


def _ended(status: Object) -> bool:
    final = {"Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"}
    return any(c.get("type") in final and c.get("status") == "True" for c in status.get("conditions") or [])
