"""What a job's objects mean: each rule of the table once, and properties that hold for any objects."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from jobctl.backend import Record
from jobctl.objects import Backoff, ReplicaView
from jobctl.status import ACTIVE, ENDED, STATES, JobView, is_ended, view

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CREATED = NOW - timedelta(minutes=1)
KEYS = [
    "metadata", "labels", "annotations", "spec", "status", "completions", "template", "containers", "ports", "name",
    "conditions", "type", "reason", "message", "containerStatuses", "state", "terminated", "waiting", "exitCode",
    "completedIndexes", "failedIndexes", "phase", "jobctl.dev/backoff", "jobctl.dev/backoff-scale", "startTime",
]  # fmt: skip


def record(
    *,
    pods: list[dict[str, Any]] | None = None,
    completions: int = 1,
    status: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    suspended: bool = False,
    cancelled: bool = False,
    controller: Any = "alive",
) -> Record:
    labels = {"jobctl.dev/kind": "train", "jobctl.dev/task": "predictor", "jobctl.dev/gpu": "cpu"}
    metadata = {"name": "x-r2", "labels": {**labels, "jobctl.dev/spec-hash": "abc"}, "annotations": annotations or {}}
    containers = [{"ports": [{"name": "metrics", "containerPort": 9400}]}]
    spec = {"completions": completions, "template": {"spec": {"containers": containers}}}
    job = {"metadata": metadata, "spec": spec, "status": status or {}}
    return Record("x", 2, {"kind": "train"}, job, pods or [], suspended, cancelled, controller, CREATED)


def pod(
    index: int,
    phase: str,
    code: int | None = None,
    message: str | None = None,
    reason: str | None = None,
    conditions: tuple[dict[str, str], ...] = (),
    born: int = 0,
    waiting: dict[str, str] | None = None,
) -> dict[str, Any]:
    state: dict[str, Any] = {"running": {}}
    if code is not None:
        state = {"terminated": {"exitCode": code, "message": message, "reason": reason}}
    elif waiting is not None:
        state = {"waiting": waiting}
    return {
        "metadata": {
            "name": f"x-r2-{index}-{born}",
            "labels": {"batch.kubernetes.io/job-completion-index": str(index)},
            "annotations": {"jobctl.dev/pid": "4711"},
            "creationTimestamp": f"2026-01-02T03:04:{born:02d}Z",
        },
        "status": {
            "phase": phase,
            "podIP": "127.1.2.3",
            "containerStatuses": [{"state": state}],
            "conditions": list(conditions),
        },
    }


def condition(kind: str, reason: str = "", message: str = "") -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}


def judged(**facts: Any) -> tuple[str, str]:
    job = view(record(**facts), NOW)
    return job.state, job.reason


def said(reason: str, **more: Any) -> str:
    return json.dumps({"reason": reason, **more})


def test_a_running_job_is_shown_whole():
    status = {"startTime": "2026-01-02T03:03:10Z", "active": 1}
    assert view(record(pods=[pod(0, "Running")], status=status), NOW) == JobView(
        name="x",
        state="running",
        reason="running",
        revision=2,
        kind="train",
        task="predictor",
        gpu="cpu",
        spec_hash="abc",
        completions=1,
        replicas=(
            ReplicaView(
                index=0,
                pod="x-r2-0-0",
                phase="Running",
                exit_code=None,
                attempts=1,
                pid=4711,
                address="127.1.2.3",
                metrics_url="http://127.1.2.3:9400/metrics",
                message=None,
                summary={},
            ),
        ),
        backoffs=(),
        created_at=CREATED,
        started_at=datetime(2026, 1, 2, 3, 3, 10, tzinfo=UTC),
        finished_at=None,
        controller="alive",
    )


def test_a_job_without_pods_is_pending():
    assert judged() == ("pending", "no pod has been created yet")


def test_a_pod_that_is_not_up_makes_the_job_start_and_says_what_it_waits_for():
    assert judged(pods=[pod(0, "Pending")]) == ("starting", "its pod is being started")
    unschedulable = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    assert judged(pods=[pod(0, "Pending", conditions=(unschedulable,))]) == ("pending", "0/3 nodes are available")
    pulling = {"reason": "ErrImagePull", "message": "no such image."}
    assert judged(pods=[pod(0, "Pending", waiting=pulling)]) == ("starting", "no such image")


def lost(index: int, node: str) -> dict[str, Any]:
    """A pod whose node has stopped to report: the node controller alone has written into its conditions."""
    unheard = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T03:03:00Z"}
    running = pod(index, "Running", conditions=(unheard, {"type": "ContainersReady", "status": "True"}))
    return running | {"spec": {"nodeName": node}}


def test_a_pod_on_a_node_that_is_not_heard_of_is_down_and_the_command_that_replaces_it_is_named():
    told = (
        "node n7 has not been heard of since 03:03:00 UTC; if it is gone for good, "
        "`kubectl taint node n7 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute` or `kubectl delete node n7` "
        "lets index 0 start elsewhere"
    )
    assert judged(pods=[lost(0, "n7")]) == ("recovering", told)
    assert judged(pods=[lost(0, "n7"), pod(1, "Running")], completions=2) == ("recovering", f"{told}; 1 of 2 run")
    assert judged(pods=[lost(0, "n7")], suspended=True)[0] == "suspended"
    (replica,) = view(record(pods=[lost(0, "n7")]), NOW).replicas
    assert (replica.message, replica.metrics_url) == ("its node n7 has not been heard of since 03:03:00 UTC", None)


def test_a_pod_whose_container_is_not_ready_by_itself_is_not_taken_for_one_on_a_lost_node():
    unready = ({"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "False"})
    assert judged(pods=[pod(0, "Running", conditions=unready)]) == ("running", "running")


def test_replicas_are_counted_and_failed_indexes_named_while_others_go_on():
    three = [pod(index, "Running") for index in range(3)]
    assert judged(pods=three, completions=3) == ("running", "3 of 3 replicas run")
    done = [pod(0, "Succeeded", 0), *three[1:]]
    assert judged(pods=done, completions=3, status={"completedIndexes": "0"}) == (
        "running",
        "2 of 3 replicas run, 1 done",
    )
    lost = [pod(0, "Failed", 65, said("episode 7 is damaged")), *three[1:]]
    assert judged(pods=lost, completions=3, status={"failedIndexes": "0"}) == (
        "running",
        "2 of 3 go on; index 0 failed: bad data: episode 7 is damaged",
    )


def test_a_back_off_is_named_with_the_seconds_left_and_how_they_are_scaled():
    wait = {"index": 1, "until_unix_seconds": NOW.timestamp() + 0.7, "seconds": 1.0}
    annotations = {"jobctl.dev/backoff": json.dumps([wait]), "jobctl.dev/backoff-scale": "0.1"}
    job = view(
        record(
            pods=[pod(0, "Running"), pod(1, "Failed", 75, said("saved at step 40"))],
            completions=2,
            annotations=annotations,
        ),
        NOW,
    )
    assert job.state == "recovering"
    assert job.reason == (
        "index 1 waits 1 s more in the Job controller's back-off (10 s, scaled ×0.1 on the local backend) after: "
        "interrupted, state saved: saved at step 40; 1 of 2 run"
    )
    assert [(b.index, round(b.seconds_left, 3), b.seconds, b.scale) for b in job.backoffs] == [(1, 0.7, 1.0, 0.1)]


def test_a_back_off_that_is_over_is_none():
    wait = {"index": 0, "until_unix_seconds": NOW.timestamp() - 1, "seconds": 1.0}
    assert view(record(annotations={"jobctl.dev/backoff": json.dumps([wait])}), NOW).backoffs == ()


def test_a_new_pod_after_a_failed_one_is_recovering_until_it_runs():
    first, second = pod(0, "Failed", 137, reason="OOMKilled"), pod(0, "Pending", born=5)
    assert judged(pods=[second, first]) == (
        "recovering",
        "index 0 starts again after: OOMKilled: it used more memory than its limit (exit code 137)",
    )
    assert judged(pods=[first, pod(0, "Running", born=5)]) == ("running", "running")


def test_the_end_of_the_job_decides_before_anything_else():
    ended = {"suspended": True, "cancelled": True, "controller": "finished"}
    assert judged(pods=[pod(0, "Succeeded", 0, said("gate met"))], status=condition("Complete"), **ended) == (
        "succeeded",
        "gate met",
    )
    assert judged(pods=[pod(0, "Failed", 66, said("f1 0.41 < 0.60"))], status=condition("Failed"), **ended) == (
        "failed",
        "gate missed: f1 0.41 < 0.60",
    )


def test_a_failed_job_says_the_worker_s_own_sentence_and_which_index_it_was():
    pods = [pod(0, "Succeeded", 0), pod(1, "Failed", 64, said("bad configuration: no such dataset."))]
    status = {**condition("Failed", "FailedIndexes"), "failedIndexes": "1", "completedIndexes": "0"}
    assert judged(pods=pods, completions=2, status=status) == (
        "failed",
        "index 1: bad configuration: no such dataset",
    )


def test_a_failed_job_without_a_word_of_its_pods_says_what_the_condition_means():
    assert judged(status=condition("Failed", "BackoffLimitExceeded")) == ("failed", "too many attempts crashed")
    assert judged(status=condition("Failed", "Odd", "it was odd.")) == ("failed", "it was odd")
    assert judged(pods=[pod(0, "Failed", 75)], status=condition("Failed", "DeadlineExceeded")) == (
        "failed",
        "it ran longer than its deadlineSeconds",
    )


def test_a_message_that_is_not_json_is_read_as_text():
    crashed = pod(0, "Failed", 1, "Traceback\nValueError: no")
    assert judged(pods=[crashed], status=condition("Failed")) == ("failed", "ValueError: no (exit code 1)")


def test_a_disruption_is_named_where_the_worker_could_say_nothing():
    target = {"type": "DisruptionTarget", "status": "True", "message": "Evicted by the node."}
    pods = [pod(0, "Failed", 137, conditions=(target,))]
    assert judged(pods=pods) == (
        "recovering",
        "index 0 starts again after: disrupted: Evicted by the node (exit code 137)",
    )


def test_a_user_s_wish_holds_also_without_a_controller():
    assert judged(cancelled=True, suspended=True, controller="gone") == (
        "cancelled",
        "by a user; `jobctl resume x` goes on from the last save",
    )
    assert judged(suspended=True, pods=[pod(0, "Running")]) == (
        "suspended",
        "by a user, 1 replica still saving; `jobctl resume x` goes on from the last save",
    )


def test_a_dead_supervisor_is_an_interruption_whatever_the_pods_say():
    assert judged(controller="gone", pods=[pod(0, "Running")]) == (
        "interrupted",
        "the local supervisor is gone (killed, or the machine restarted): `jobctl retry x` resumes",
    )


def test_a_decided_job_runs_until_its_last_pod_has_ended():
    status = condition("SuccessCriteriaMet")
    assert judged(pods=[pod(0, "Succeeded", 0), pod(1, "Running")], completions=2, status=status) == (
        "running",
        "done; its last pods are ending",
    )
    assert judged(pods=[pod(0, "Succeeded", 0)], completions=2, status={**status, "completedIndexes": "0"}) == (
        "succeeded",
        "index 0 finished the group's work (of 2 replicas)",
    )


def test_what_nothing_explains_is_unknown_and_ended_if_nobody_acts_on_it():
    job = view(record(controller="finished"), NOW)
    assert (job.state, job.reason, is_ended(job)) == ("unknown", "its controller ended without saying how", True)
    job = view(record(pods=[pod(0, "Unknown")]), NOW)
    assert (job.state, job.reason, is_ended(job)) == (
        "unknown",
        "its pods are in phase Unknown, which says nothing",
        False,
    )


PODS = st.builds(
    pod,
    index=st.integers(0, 2),
    phase=st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
    code=st.none() | st.integers(0, 255),
    message=st.none() | st.text(max_size=20) | st.builds(said, st.text(max_size=20)),
    reason=st.none() | st.sampled_from(["OOMKilled", "Error"]),
    born=st.integers(0, 59),
)
STATUSES = st.fixed_dictionaries(
    {},
    optional={
        "completedIndexes": st.sampled_from(["", "0", "0-2", "nonsense", "1,", "-"]),
        "failedIndexes": st.sampled_from(["", "0", "1-2"]),
        "startTime": st.text(max_size=25),
        "conditions": st.lists(
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(["Complete", "Failed", "SuccessCriteriaMet", "FailureTarget", "Suspended"]),
                    "status": st.sampled_from(["True", "False"]),
                }
            ),
            max_size=3,
        ),
    },
)
RECORDS = st.builds(
    record,
    pods=st.lists(PODS, max_size=5),
    completions=st.integers(1, 3),
    status=STATUSES,
    annotations=st.fixed_dictionaries(
        {}, optional={"jobctl.dev/backoff": st.text(max_size=20) | st.just('[{"index": 1}]')}
    ),
    suspended=st.booleans(),
    cancelled=st.booleans(),
    controller=st.sampled_from(["alive", "gone", "finished"]),
)


@given(RECORDS)
def test_any_objects_have_one_known_state_and_a_reason_of_one_line(some: Record):
    job = view(some, NOW)
    assert job.state in STATES
    assert job.reason.strip() and "\n" not in job.reason


@given(RECORDS)
def test_no_job_is_called_active_without_a_controller(some: Record):
    job = view(some, NOW)
    assert (
        not (job.state in ACTIVE and job.controller != "alive")
        or "pods are ending" in job.reason
        or "failing" in job.reason
    )


@given(RECORDS, st.randoms())
def test_the_order_in_which_pods_are_listed_does_not_matter(some: Record, random: Any):
    born = {id(p): p["metadata"]["creationTimestamp"] for p in some.pods}
    if len(set(born.values())) < len(some.pods):  # equally old pods have no order
        return
    shuffled = list(some.pods)
    random.shuffle(shuffled)
    again = Record(**{**some.__dict__, "pods": shuffled})
    assert view(again, NOW) == view(some, NOW)


def test_states_are_those_of_the_design():
    assert set(STATES) == {
        "pending", "starting", "running", "recovering", "suspended",
        "cancelled", "interrupted", "succeeded", "failed", "unknown",
    }  # fmt: skip
    assert not ACTIVE & ENDED and set(STATES) > ACTIVE | ENDED


def test_a_backoff_that_is_not_scaled_names_no_scale():
    wait = {"index": 0, "until_unix_seconds": NOW.timestamp() + 7, "seconds": 10.0}
    job = view(record(annotations={"jobctl.dev/backoff": json.dumps([wait])}), NOW)
    assert job.reason == "index 0 waits 7 s more in the Job controller's back-off"
    assert job.backoffs == (Backoff(index=0, seconds_left=7.0, seconds=10.0, scale=None),)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(["0-3", "True"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=200)
@given(JUNK, st.lists(JUNK, max_size=3), st.sampled_from(["alive", "gone", "finished"]))
def test_objects_of_any_shape_are_judged(job, pods, controller):
    shape = {"metadata": job, "spec": job, "status": job}
    labels = {"labels": {"batch.kubernetes.io/job-completion-index": "0"}}
    shaped = [{"metadata": labels, "spec": one, "status": one} for one in pods]
    for found in (shape, job if isinstance(job, dict) else {}):
        judged = view(Record("x", 1, {}, found, [*shaped, *pods], False, False, controller, CREATED), NOW)
        assert judged.state in STATES and judged.reason


def test_what_can_not_be_relied_on_is_unknown_whatever_the_objects_say():
    done = record(status=condition("Complete"))
    doubted = view(replace(done, doubt="status.json can't be used: it is empty"), NOW)
    assert (doubted.state, doubted.reason) == ("unknown", "status.json can't be used: it is empty")
    assert [is_ended(view(replace(done, doubt="stale", controller=by), NOW)) for by in ("alive", "gone")] == [
        False,
        True,
    ]
