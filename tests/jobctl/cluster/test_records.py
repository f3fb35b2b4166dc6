"""From the API server's objects to records and states."""

import json
from datetime import UTC, datetime

import pytest

from jobctl.backend import Record
from jobctl.cluster.records import (
    config_name_of,
    event_of,
    is_about,
    needs_events,
    newest_jobs,
    record_of,
    revision_of,
    values_of,
)  # fmt: skip
from jobctl.status import view

NOW = datetime(2026, 1, 1, 0, 1, 4, tzinfo=UTC)


def judged(job, pods, events=()) -> tuple[str, str]:
    seen = view(record_of(job, pods, None, events), NOW)
    return seen.state, seen.reason


def test_the_youngest_job_of_a_release_is_its_newest_also_after_a_rollback(job):
    rolled_back = job("x", 1, created="2026-01-01T09:00:00Z", uid="again")
    newest = newest_jobs([rolled_back, job("x", 2), job("y", 7)])
    assert {name: one["metadata"]["uid"] for name, one in newest.items()} == {"x": "again", "y": "y-7"}


def test_a_job_that_is_being_deleted_is_the_newest_only_where_there_is_no_other(job):
    deleted = job("x", 2, deleted="2026-01-01T00:00:09Z")
    assert newest_jobs([deleted, job("x", 1)])["x"] == job("x", 1)
    assert newest_jobs([deleted])["x"] == deleted


def test_the_revision_is_the_number_that_the_name_ends_in(job):
    assert [revision_of(job("x-r7", 12)), revision_of({"metadata": {"name": "x"}})] == [12, 1]


def test_a_record_has_the_pods_of_its_own_job_alone(job, pod):
    config = {"spec": {"kind": "train", "volume": {"claim": "disk"}}, "freshToken": None}
    mine, other = pod(uid="a"), pod(uid="b", job="x-0")
    made = record_of(job(), [mine, other], config)
    assert made == Record(
        name="x",
        revision=1,
        values={"kind": "train", "volume": {"claim": "disk"}},
        job={**job(), "metadata": {**job()["metadata"], "annotations": {}}},
        pods=[mine],
        suspended=False,
        cancelled=False,
        controller="alive",
        created_at=datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC),
    )


def test_shaping_a_record_leaves_what_the_server_sent_as_it_was(job, pod):
    sent, pods = job(), [pod(0, "Failed", finished="2026-01-01T00:01:00Z")]
    before = json.dumps([sent, pods])
    record_of(sent, pods)
    assert json.dumps([sent, pods]) == before


def test_a_cancelled_job_is_suspended_and_marked(job):
    cancelled = record_of(job(suspend=True, annotations={"jobctl.dev/cancelled": "2026"}), [])
    assert (cancelled.suspended, cancelled.cancelled) == (True, True)
    assert judged(job(suspend=True, annotations={"jobctl.dev/cancelled": "2026"}), [])[0] == "cancelled"
    assert judged(job(suspend=True), [])[0] == "suspended"


def test_the_fresh_token_goes_on_with_the_values(job):
    values = values_of(job(), {"spec": {"kind": "train"}, "freshToken": "t"})
    assert values == {"kind": "train", "planned": {"freshToken": "t"}}


def test_the_environment_that_the_config_names_is_read_back_from_the_job(job):
    made = job()
    env = [{"name": "A", "value": "pa$$$$word"}, {"name": "HOME", "value": "$(JOBCTL_TMP)"}]
    made["spec"]["template"] = {"spec": {"containers": [{"name": "worker", "env": env}]}}
    assert values_of(made, {"spec": {"kind": "train", "env": ["A"]}}) == {"kind": "train", "env": {"A": "pa$$word"}}
    del made["spec"]["template"]
    assert values_of(made, {"spec": {"kind": "train", "env": ["A", ["B"], 5]}}) == {"kind": "train", "env": {}}


def test_without_its_config_map_a_job_still_tells_what_it_is(job):
    assert values_of(job(completions=4), None) == {
        "kind": "train", "task": "predictor", "gpu": "cpu", "replicas": 4, "volume": {"claim": "disk"},
    }  # fmt: skip
    assert config_name_of(job("x", 3)) == "x-r3"


def test_an_index_in_back_off_says_how_long_it_still_waits(job, pod):
    ended = pod(0, "Failed", finished="2026-01-01T00:01:00Z", message=json.dumps({"code": 75, "reason": "evicted"}))
    state, reason = judged(job(), [ended])
    assert state == "recovering"
    assert reason.startswith("index 0 waits 6 s more in the Job controller's back-off after: interrupted")


WAITING = {
    "room on a node": (
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Too few."}]},
        ("pending", "0/3 nodes are available: 3 Too few"),
    ),
    "room, of which the scheduler says more than helps": (
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 1 Too few, "
        "2 Insufficient cpu. no new claims to deallocate, preemption: 0/3 nodes are available: 3 Not helpful."}]},
        ("pending", "0/3 nodes are available: 1 Too few, 2 Insufficient cpu"),
    ),
    "a claim without a volume": (
        {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: pod has "
        "unbound immediate PersistentVolumeClaims. not found"}],
        "volumes": [{"name": "shared", "persistentVolumeClaim": {"claimName": "disk"}}]},
        ("pending", "the claim disk is not bound to a volume yet (`kubectl describe pvc disk` says why)"),
    ),
    "an image that can't be pulled": (
        {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "worker:1"'}},
        ("starting", "the image can't be pulled: Back-off pulling image \"worker:1\""),
    ),
    "an image of which the kubelet says nothing more": (
        {"waiting": {"reason": "ErrImagePull"}}, ("starting", "the image can't be pulled: worker:1"),
    ),
    "its container": ({"waiting": {"reason": "ContainerCreating"}}, ("starting", "ContainerCreating")),
}  # fmt: skip


@pytest.mark.parametrize("case", WAITING)
def test_a_pending_pod_waits_for(case, job, pod):
    fields, expected = WAITING[case]
    assert judged(job(), [pod(0, "Pending", **fields)]) == expected


def warning(about: dict, reason: str, message: str, time: str = "2026-01-01T00:00:05Z") -> dict:
    involved = {"uid": about["metadata"]["uid"], "kind": "Pod", "name": about["metadata"]["name"]}
    return {
        "type": "Warning", "reason": reason, "message": message, "involvedObject": involved, "lastTimestamp": time,
    }  # fmt: skip


def test_a_job_without_pods_says_what_keeps_them_from_being_made(job):
    events = [
        warning(job(), "FailedCreate", "older", "2026-01-01T00:00:01Z"),
        warning(job(), "FailedCreate", "the moon is full."),
        warning(job(), "Mystery", "says nothing", "2026-01-01T00:00:09Z"),
        warning(job("y"), "FailedCreate", "another job's", "2026-01-01T00:00:09Z"),
    ]
    assert judged(job(), [], events) == ("pending", "the moon is full")


REFUSED = {
    "a quota": (
        (
            'Error creating: pods "x-r1-1-a" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, '
            "limited: pods=1"
        ),
        (
            "The quota small of namespace team has no room for it (requested: pods=1, used: pods=1, limited: pods=1): "
            "wait for a job to end, ask for less, or have it raised"
        ),
    ),
    "a Pod Security level": (
        'Error creating: pods "x-r1-1-a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
        "Namespace team has Pod Security level restricted:latest, which refuses these pods: runAsNonRoot != true",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_of_pods_is_said_in_the_words_of_submit_also_while_other_replicas_run(case, job, pod):
    said, reason = REFUSED[case]
    events = [warning(job(), "FailedCreate", said)]
    one, two = job(), job(completions=2)
    for made in (one, two):
        made["metadata"]["namespace"] = "team"
    assert judged(one, [], events) == ("pending", reason)
    assert judged(two, [pod()], events) == ("running", f"1 of 2 replicas run; the others wait: {reason}")
    assert judged(two, [pod(), pod(1, uid="q")], events) == ("running", "2 of 2 replicas run")


def test_a_pod_whose_container_is_not_made_yet_says_what_its_events_say(job, pod):
    made = pod(0, "Pending", waiting={"reason": "ContainerCreating"})
    events = [warning(made, "FailedMount", "MountVolume.SetUp failed")]
    assert judged(job(), [made], events) == ("starting", "MountVolume.SetUp failed")


def test_events_are_asked_for_only_where_something_waits(job, pod):
    complete = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert not needs_events(job(), [pod()])
    assert not needs_events(job(status=complete), [])
    assert not needs_events(job(suspend=True), [])
    assert needs_events(job(), [])
    assert needs_events(job(completions=2), [pod()])
    assert needs_events(job(completions=2), [pod(0), pod(1, "Pending", uid="b")])


def test_an_evicted_pod_is_counted_by_what_it_left_on_its_successor(job, pod):
    seen = view(record_of(job(), [pod(0, ignored=2, failures=1)]), NOW)
    assert [replica.attempts for replica in seen.replicas] == [4]


@pytest.mark.parametrize(
    ("kind", "name", "is_its"),
    [
        ("Job", "x-r1", True),
        ("Pod", "x-r12-0-abcde", True),
        ("Pod", "x-r1-0-abcde-z", False),
        ("Job", "xy-r1", False),
        ("Job", "x-r1-r2", False),
        ("ConfigMap", "x-r1", False),
    ],
)
def test_events_belong_to_a_job_by_the_name_of_what_they_are_about(kind, name, is_its):
    assert is_about({"involvedObject": {"kind": kind, "name": name}}, "x") is is_its


def test_an_event_is_told_with_the_time_and_count_of_its_series():
    event = event_of(
        {
            "eventTime": "2026-01-01T00:00:01.000000Z",
            "series": {"count": 3, "lastObservedTime": "2026-01-01T00:00:09Z"},
            "involvedObject": {"kind": "Pod", "name": "x-r1-0-a"},
            "reason": "FailedScheduling",
            "type": "Warning",
            "message": "no\nroom.",
        }
    )
    assert (event.time, event.object, event.count, event.message) == (
        "2026-01-01T00:00:09Z", "Pod/x-r1-0-a", 3, "no room",
    )  # fmt: skip
