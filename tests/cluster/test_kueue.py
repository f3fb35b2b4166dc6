"""Jobs in a queue of a real Kueue, which starts what it has admitted whatever the Job's own `suspend` says.

Where the cluster has no Kueue, JOBCTL_KUEUE_INSTALL may hold a command that installs it into the cluster of the current
context: it is taken away again afterwards. Without either these tests are skipped.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from people import Said, Team, eventually, refused, typist

from jobctl.cluster.rights import rules

Dict = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
SYSTEM = "kueue-system"
INSTALL_SECONDS = 300
# What an installation leaves in the cluster itself; in this order, so that no webhook or API lacks its server.
KINDS = (
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
    "crd",
    "apiservices",
    "clusterrolebindings",
)
LONG = ("collect", "--set", "episodes=4000", "--set", "scheduling.queue=q")

pytestmark = pytest.mark.timeout(600)  # the first test's counts all that is set up for it: cluster, image, Kueue


def parts_of_kueue(cluster: Any, kind: str) -> list[str]:
    found = cluster.kubectl("get", kind, "--output=name").split()
    return [name for name in found if "kueue" in name]


@pytest.fixture(scope="module")
def kueue(cluster: Any) -> Iterator[None]:
    install = os.environ.get("JOBCTL_KUEUE_INSTALL")
    was_there = any(name.endswith("/workloads.kueue.x-k8s.io") for name in parts_of_kueue(cluster, "crd"))
    if not was_there and not install:
        pytest.skip("what needs Kueue: the cluster has none")
    try:
        if not was_there:
            command = shlex.split(str(install))
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_SECONDS)
            assert done.returncode == 0, f"{install}: {done.stderr}"
        yield
    finally:
        if not was_there:
            for kind in KINDS:
                if names := parts_of_kueue(cluster, kind):
                    cluster.kubectl("delete", "--ignore-not-found", *names)
            cluster.kubectl("delete", "namespace", SYSTEM, "--ignore-not-found", "--wait=false")


@pytest.fixture(scope="module")
def team(kueue: None, make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """Somebody with the documented Role and its rules for queues; a queue `q` with room for one small job."""
    team = Team.of(make_namespace("queued"), tmp_path_factory.mktemp("kube"))
    namespace, cluster = team.namespace.name, team.namespace.cluster
    quotas = {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "100Gi"}
    resources = [{"name": name, "nominalQuota": quota} for name, quota in quotas.items()]
    group = {"coveredResources": list(quotas), "flavors": [{"name": namespace, "resources": resources}]}
    api = "kueue.x-k8s.io/v1beta2"
    cluster.apply(
        {"apiVersion": api, "kind": "ResourceFlavor", "metadata": {"name": namespace}},
        {"apiVersion": api, "kind": "ClusterQueue", "metadata": {"name": namespace},
         "spec": {"namespaceSelector": {}, "resourceGroups": [group]}},
        {"apiVersion": api, "kind": "LocalQueue", "metadata": {"name": "q", "namespace": namespace},
         "spec": {"clusterQueue": namespace}},
    )  # fmt: skip
    allow_queues(team)
    yield team
    # While Kueue is there: it lets go of what is its own.
    team.namespace.kubectl("delete", "jobs,localqueues", "--all", "--cascade=foreground")
    cluster.kubectl("delete", "clusterqueue,resourceflavor", namespace)


def allow_queues(team: Team) -> None:
    kept = [{key: rule[key] for key in ("apiGroups", "resources", "verbs")} for rule in rules("kueue")]
    metadata = {"name": "queues", "namespace": team.namespace.name}
    api = "rbac.authorization.k8s.io"
    account = {"kind": "ServiceAccount", "name": "somebody", "namespace": team.namespace.name}
    team.namespace.cluster.apply(
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": kept},
        {"apiVersion": f"{api}/v1", "kind": "RoleBinding", "metadata": metadata, "subjects": [account],
         "roleRef": {"apiGroup": api, "kind": "Role", "name": "queues"}},
    )  # fmt: skip


@pytest.fixture
def jobctl(team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return typist(team, monkeypatch, capfd)


@pytest.fixture
def state(jobctl: Callable[..., Said]) -> Callable[[str], Dict]:
    return lambda name: json.loads(jobctl("status", name, "-o", "json").out)["job"]


def workload(team: Team, job: str) -> Dict:
    owned = (one for one in team.namespace.items("workloads") if one["metadata"]["ownerReferences"][0]["name"] == job)
    return next(owned)


def has_stopped(team: Team, job: str) -> bool:
    """Whether Kueue has taken the Workload's end for good, the Job is suspended, and no pod of it is left."""
    found = workload(team, job)
    evicted = next(one for one in found["status"]["conditions"] if one["type"] == "Evicted")
    return (
        evicted["status"] == "True"
        and evicted["reason"] == "Deactivated"
        and team.namespace.get("job", job)["spec"]["suspend"]
        and not team.namespace.items("pods", f"--selector=batch.kubernetes.io/job-name={job}")
    )


def test_cancel_and_suspend_stop_a_running_job_for_good_and_resume_brings_it_back(jobctl, state, team):
    assert jobctl("submit", *LONG, "--name", "long").status == 0
    eventually(lambda: state("long")["state"] == "running", 120)
    for verb, name in (("cancel", "cancelled"), ("suspend", "suspended")):
        said = jobctl(verb, "long")
        assert (said.status, said.out.startswith(f"long is {name} by a user")) == (0, True), said
        assert state("long")["state"] == name
        assert workload(team, "long-r1")["spec"]["active"] is False
        eventually(lambda: has_stopped(team, "long-r1"), 120)
        assert state("long")["state"] == name
        assert jobctl("resume", "long").status == 0
        assert workload(team, "long-r1")["spec"]["active"] is True
        eventually(lambda: state("long")["state"] == "running", 120)


def test_a_job_that_waits_for_room_is_pending_and_nobody_s_suspended_job(jobctl, state, team):
    big = (*LONG, "--set", "resources.requests.cpu=3", "--set", "resources.limits.cpu=3", "--name", "big")
    assert jobctl("submit", *big).status == 0
    waiting = eventually(lambda: (found := state("big"))["reason"].startswith("in the queue q: ") and found)
    assert (waiting["state"], "insufficient quota for cpu" in waiting["reason"]) == ("pending", True)
    assert "already running" in jobctl("submit", *big).out
    assert jobctl("cancel", "big").out.startswith("big is cancelled by a user;")
    listed = {one["name"]: one["state"] for one in json.loads(jobctl("list", "-o", "json").out)["jobs"]}
    assert listed["big"] == "cancelled"
    assert jobctl("resume", "big").out.startswith("big goes on, but waits: in the queue q")
    assert jobctl("suspend", "big").status == 0
    assert jobctl("retry", "big").out == "big is started again as revision 2.\n"
    assert state("big")["state"] == "pending"
    assert jobctl("delete", "big").status == 0
    eventually(lambda: not [one for one in team.namespace.items("workloads") if "big" in one["metadata"]["name"]])


def test_a_missing_right_is_named_and_doctor_tells_of_it(jobctl, state, team):
    assert "Kueue is there, and you have the rights" in jobctl("doctor").out
    jobctl("submit", *LONG, "--name", "rights")
    try:
        team.namespace.kubectl("delete", "rolebinding", "queues")
        for verb in ("cancel", "suspend"):
            said = eventually(lambda verb=verb: (found := jobctl(verb, "rights")).status == 5 and found)
            refused(said, "may not list workloads.kueue.x-k8s.io in namespace", "docs/rbac.md")
        assert "you may not list workloads.kueue.x-k8s.io, patch workloads" in jobctl("doctor").out
    finally:
        allow_queues(team)
    eventually(lambda: jobctl("cancel", "rights").status == 0)


def test_a_job_without_a_queue_is_none_of_kueue_s(jobctl, state, team):
    waits = ("train", "--data", "datasets/nothing", "--set", "scheduling.nodeSelector.nowhere=here", "--name", "free")
    assert jobctl("submit", *waits).status == 0
    assert jobctl("cancel", "free").status == 0
    assert (state("free")["state"], team.namespace.get("job", "free-r1")["spec"]["suspend"]) == ("cancelled", True)
    assert [one for one in team.namespace.items("workloads") if "free" in one["metadata"]["name"]] == []
