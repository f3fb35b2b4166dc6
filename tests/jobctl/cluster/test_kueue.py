"""What a job in a queue reads as: Kueue's hold is no user's wish."""

from datetime import UTC, datetime

import pytest

from jobctl.cluster.kueue import in_queue
from jobctl.cluster.records import record_of
from jobctl.status import view

SUSPENDED = {"conditions": [{"type": "Suspended", "status": "True"}]}
STARTED = {**SUSPENDED, "startTime": "2026-01-01T00:00:00Z"}
NO_ROOM = {"type": "QuotaReserved", "status": "False", "message": "insufficient quota for cpu", "observedGeneration": 2}


def workload(active: bool = True, *conditions: dict, owner: str = "x-1") -> dict:
    return {
        "metadata": {"generation": 2, "ownerReferences": [{"uid": owner}]},
        "spec": {"active": active},
        "status": {"conditions": list(conditions)},
    }


# The Job; the Workloads, None where none can be seen; what status says.
CASES = {
    "waits for room": ({"status": SUSPENDED}, [workload(True, NO_ROOM)],
                       "pending: in the queue q: insufficient quota for cpu"),
    "Kueue has not looked since": ({"status": STARTED}, [workload(True, NO_ROOM | {"observedGeneration": 1})],
                                   "pending: in the queue q"),
    "has no Workload yet": ({"status": SUSPENDED}, [workload(owner="y-1")], "pending: in the queue q"),
    "was suspended": ({"status": STARTED}, [workload(False)], "suspended: by a user"),
    "was cancelled": ({"status": STARTED, "annotations": {"jobctl.dev/cancelled": "2026"}}, [workload(False)],
                      "cancelled: by a user"),
    "is none of Kueue's": ({"status": STARTED}, [], "suspended: by a user"),
    "nobody may see": ({"status": SUSPENDED}, None, "suspended: by a user"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_suspended_job_with_a_queue(case, job):
    more, workloads, expected = CASES[case]
    made = job(suspend=True, **more)
    made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "q"
    told = view(in_queue(record_of(made, []), workloads), datetime.now(UTC))
    assert f"{told.state}: {told.reason}".partition(";")[0] == expected


def test_a_cancelled_job_that_somebody_lets_go_on_is_not_cancelled(job, pod):
    record = record_of(job(annotations={"jobctl.dev/cancelled": "2026"}), [pod()])
    assert view(record, datetime.now(UTC)).state == "running"
