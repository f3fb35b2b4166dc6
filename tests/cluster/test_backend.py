"""Every command of the CLI on a real cluster, as somebody who has no more rights than the documented Role."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from held import hold_at, wait_until_held
from people import Said, Team, eventually, refused, typist, write_kubeconfig

Dict = dict[str, Any]
TINY = ("collect", "--set", "episodes=1", "--set", "maxSteps=20")
LONG = ("collect", "--set", "episodes=400", hold_at(1))  # which runs until it is told to end
CHART = Path(__file__).resolve().parents[2] / "charts" / "jobctl"
HELM_3 = shutil.which("helm3")
NOTHING = ("train", "--data", "datasets/nothing")  # fails soon, with 65


@pytest.fixture(scope="module")
def team(make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team.of(make_namespace("backend"), tmp_path_factory.mktemp("kube"))


@pytest.fixture(scope="module", autouse=True)
def by_helm(team: Team) -> list[str]:
    """The names of jobs that plain Helm has made, one by each Helm; they run beside the first tests."""
    team.namespace.install("plain", {"kind": "train", "data": "datasets/nothing"})
    if HELM_3 is None:
        return ["plain"]
    values = json.dumps({"kind": "train", "data": "datasets/nothing", "image": team.namespace.image})
    command = [HELM_3, "install", "three", str(CHART), "--namespace", team.namespace.name, "--values", "-"]
    context = ["--kube-context", team.namespace.cluster.context]
    subprocess.run([*command, *context], input=values, text=True, check=True, capture_output=True)
    return ["plain", "three"]


@pytest.fixture
def jobctl(
    team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Said]]:
    yield from typist(team, monkeypatch, capfd)


@pytest.fixture
def state(jobctl: Callable[..., Said]) -> Callable[[str], Dict]:
    return lambda name: json.loads(jobctl("status", name, "-o", "json").out)["job"]


def readers(team: Team) -> list[Dict]:
    pods = team.namespace.items("pods", "--selector=app.kubernetes.io/name=jobctl-reader")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def test_the_whole_life_of_a_job_with_no_more_than_the_documented_role(jobctl, team, tmp_path):
    assert "submitted as revision 1" in jobctl("submit", *TINY, "--name", "life").out
    waited = jobctl("wait", "life", "--timeout", "120")
    assert (waited.status, "succeeded: all 1 episodes are recorded" in waited.out) == (0, True)
    job = json.loads(jobctl("status", "life", "-o", "json").out)["job"]
    assert (job["state"], job["progress"]["step"], job["result"]["figures"]["episodes"]) == ("succeeded", 1, 1)
    assert job["result"]["directory"] == "runs/life/results/run.000001 on the claim shared"
    assert "life" in [one["name"] for one in json.loads(jobctl("list", "-o", "json").out)["jobs"]]
    assert "episode 0/1" in jobctl("logs", "life").out
    assert jobctl("logs", "-f", "life").out == jobctl("logs", "life").out
    assert "Job completed" in jobctl("events", "life").out
    assert jobctl("results", "life", "-d", str(tmp_path / "out")).status == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["exitCode"] == 0
    assert "already done" in jobctl("submit", *TINY, "--name", "life").out
    assert jobctl("delete", "life").status == 0
    assert (jobctl("status", "life").status, team.leftovers("life"), readers(team)) == (3, [], [])
    assert "exit code 0" in jobctl("results", "life").out


def test_suspend_cancel_resume_retry_and_replace_are_told_by_status(jobctl, state, team):
    jobctl("submit", *LONG, "--name", "long")
    eventually(lambda: state("long")["state"] == "running")
    assert jobctl("suspend", "long").status == 0
    assert state("long")["state"] == "suspended"
    assert jobctl("resume", "long").status == 0
    assert jobctl("cancel", "long").status == 0
    assert state("long")["state"] == "cancelled"
    assert jobctl("retry", "long").out == "long is started again as revision 2.\n"
    assert state("long")["revision"] == 2
    taken = jobctl("submit", *LONG, "--set", "maxSteps=30", "--name", "long")
    assert (taken.status, "settings.maxSteps" in taken.error) == (2, True)
    rendered = jobctl("render", *LONG, "--set", "maxSteps=30", "--name", "long").out
    assert "name: long-r3" in rendered
    assert "revision 3" in jobctl("submit", *LONG, "--set", "maxSteps=30", "--name", "long", "--replace").out
    config = next(one for one in yaml.safe_load_all(rendered) if one["kind"] == "ConfigMap")
    assert team.namespace.get("configmap", "long-r3")["data"] == config["data"]  # render prints what submit sends
    jobctl("delete", "long")
    assert team.leftovers("long") == []


@pytest.mark.held
def test_an_evicted_index_waits_in_the_back_off_and_its_log_is_read_from_the_volume(jobctl, state, team):
    jobctl("submit", *LONG, "--name", "evicted")
    (held,) = wait_until_held(team.namespace.volume, "evicted", picture=team.namespace.picture)
    name = held["pod"]
    team.namespace.cluster.kubectl(
        "create", "--raw", f"/api/v1/namespaces/{team.namespace.name}/pods/{name}/eviction", "-f", "-",
        stdin=json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}),
    )  # fmt: skip
    waits = eventually(lambda: state("evicted")["backoffs"], 90)
    assert (waits[0]["index"], waits[0]["seconds"], 0 < waits[0]["secondsLeft"] <= 10) == (0, 10, True)
    assert "told to stop" in jobctl("logs", "evicted").out
    eventually(lambda: state("evicted")["state"] == "running", 90)
    assert state("evicted")["replicaStatuses"][0]["attempts"] == 2
    jobctl("delete", "evicted")


def test_jobs_of_plain_helm_are_jobs_like_any_other(jobctl, state, by_helm):
    names = {one["name"] for one in json.loads(jobctl("list", "-o", "json").out)["jobs"]}
    assert names >= set(by_helm)
    for name in by_helm:
        waited = jobctl("wait", name, "--timeout", "120")
        assert (waited.status, "bad data" in waited.out) == (1, True)
        assert jobctl("delete", name).status == 0


@pytest.mark.skipif(HELM_3 is None, reason="Helm 3 as helm3")
def test_helm_3_does_what_helm_4_does(jobctl, state, team, monkeypatch):
    monkeypatch.setenv("JOBCTL_HELM", str(HELM_3))
    assert "revision 1" in jobctl("submit", *LONG, "--name", "older").out
    assert "already running" in jobctl("submit", *LONG, "--name", "older").out
    assert "revision 2" in jobctl("submit", *LONG, "--set", "maxSteps=30", "--name", "older", "--replace").out
    assert "name: older-r3" in jobctl("render", *LONG, "--name", "older").out
    assert jobctl("cancel", "older").status == 0
    assert jobctl("retry", "older").out == "older is started again as revision 3.\n"
    assert (state("older")["revision"], team.job_settings("older")["maxSteps"]) == (3, 30)
    refused(jobctl("submit", *TINY, "--name", "platform"), "belongs to the chart jobctl-platform")
    assert jobctl("delete", "older").status == 0
    assert team.leftovers("older") == []


# (verb, resource) → the command that needs it
TAKEN_AWAY = {
    ("list", "jobs"): ("list",),
    ("create", "jobs"): ("submit", *NOTHING, "--name", "other"),
    ("patch", "jobs"): ("suspend", "rights"),
    ("watch", "pods"): ("wait", "rights", "--timeout", "20"),
    ("get", "pods/log"): ("logs", "rights"),
    ("list", "events"): ("events", "rights"),
    ("get", "persistentvolumeclaims"): ("submit", *NOTHING, "--name", "other"),
    ("create", "secrets"): ("submit", *NOTHING, "--name", "other"),
    ("create", "serviceaccounts"): ("submit", *NOTHING, "--name", "other"),
    ("update", "secrets"): ("submit", *NOTHING, "--name", "other"),
    ("delete", "serviceaccounts"): ("delete", "rights"),
}


def exec_verb(team: Team) -> str:
    """What the API server asks of somebody who runs a command in a pod."""
    version = json.loads(team.namespace.cluster.kubectl("version", "--output=json"))["serverVersion"]
    return "create" if (int(version["major"]), int(version["minor"].rstrip("+"))) >= (1, 35) else "get"


@pytest.fixture
def rights(jobctl: Callable[..., Said], state: Callable[[str], Dict], team: Team) -> Iterator[str]:
    """The name of a job that runs, while somebody's rights change."""
    assert jobctl("submit", *LONG, "--name", "rights").status == 0
    try:
        eventually(lambda: state("rights")["state"] == "running", 90)
        yield "rights"
    finally:
        team.grant()
        assert jobctl("delete", "rights").status == 0


def test_each_right_that_is_taken_away_is_named(jobctl, rights, team):
    taken_away = {**TAKEN_AWAY, (exec_verb(team), "pods/exec"): ("results", "gone")}
    for (verb, resource), command in taken_away.items():
        team.grant(without=(verb, resource))
        said = jobctl(*command)
        group = ".batch" if resource == "jobs" else ""
        expected = f"may not {verb} {resource}{group} in namespace {team.namespace.name}"
        assert (said.status, expected in said.error) == (5, True), (verb, resource, said)
        assert team.leftovers("other") == [], (verb, resource)
    team.grant(without=("get", "pods/log"))
    doctor = jobctl("doctor")
    assert (doctor.status, "you may not get pods/log in" in doctor.out) == (1, True)


def test_what_the_cluster_refuses_is_one_sentence_and_leaves_nothing(jobctl, team, state):
    refused(jobctl("submit", *TINY, "--name", "no", "--set", "volume.claim=nowhere"), "no claim nowhere")
    refused(jobctl("submit", *TINY, "--name", "no", "--set", "scheduling.priority=royal"), "royal")
    refused(jobctl("submit", *TINY, "--name", "platform"), "belongs to the chart jobctl-platform")
    refused(jobctl("render", *TINY, "--name", "platform"), "belongs to the chart jobctl-platform")
    refused(jobctl("delete", "platform"), "belongs to the chart jobctl-platform")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "once", "namespace": team.namespace.name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "",
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    team.namespace.cluster.apply(claim)
    refused(
        jobctl("submit", *TINY, "--name", "no", "--replicas", "2", "--set", "volume.claim=once"),
        "once is ReadWriteOnce", "ReadWriteMany",
    )  # fmt: skip
    assert team.leftovers("no") == []
    assert json.loads(jobctl("list", "-o", "json").out)["jobs"] == []


def test_a_quota_without_room_is_exit_5_and_the_running_job_goes_on(jobctl, team, state):
    jobctl("submit", *LONG, "--name", "first")
    team.namespace.kubectl("create", "quota", "one", "--hard=count/jobs.batch=1")
    try:
        eventually(lambda: team.namespace.get("quota", "one")["status"].get("used"))
        refused(jobctl("submit", *TINY, "--name", "second"), "quota one", "count/jobs.batch=1")
        refused(jobctl("submit", *TINY, "--name", "first", "--replace"), "quota one")
        assert team.leftovers("second") == []
        assert (state("first")["revision"], state("first")["state"] in ("starting", "running")) == (1, True)
    finally:
        team.namespace.kubectl("delete", "quota", "one")
    assert jobctl("delete", "first").status == 0


def test_status_names_what_a_job_waits_for(jobctl, state):
    jobctl("submit", *TINY, "--name", "image", "--image", "localhost:5001/no-such-image:1")
    jobctl("submit", *TINY, "--name", "room", "--set", "resources.requests.cpu=4000")
    job = eventually(lambda: (found := state("image"))["reason"].startswith("the image") and found, 60)
    assert (job["state"], "localhost:5001/no-such-image:1" in job["reason"]) == ("starting", True)
    job = eventually(lambda: "nodes are available" in (found := state("room"))["reason"] and found, 60)
    assert (job["state"], "Insufficient cpu" in job["reason"]) == ("pending", True)
    for name in ("image", "room"):
        jobctl("delete", name)


def test_credentials_that_are_wrong_are_exit_5_and_an_unknown_context_is_a_usage_error(jobctl, team, tmp_path):
    assert jobctl("list", "--context", "nowhere").status == 2
    expired = write_kubeconfig(team.namespace, tmp_path / "config", {"token": "expired"})
    refused(jobctl("list", kubeconfig=expired), "does not accept your credentials (401)")
    refused(jobctl("submit", *TINY, kubeconfig=expired), "does not accept your credentials (401)")


def test_doctor_says_that_all_is_well_and_what_somebody_can_not_see(jobctl, team):
    said = jobctl("doctor", "--image", team.namespace.image, "-o", "json")
    levels = {finding["check"]: finding["level"] for finding in json.loads(said.out)["findings"]}
    assert said.status == 0
    assert (levels["API server"], levels["rights"], levels["claim"]) == ("ok", "ok", "ok")
    assert (levels["namespace"], levels["nodes"]) == ("warn", "warn")  # "not visible"
