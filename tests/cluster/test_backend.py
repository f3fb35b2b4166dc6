"""Every command of the CLI on a real cluster, as somebody who has no more rights than the documented Role."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobctl.cli.main import main
from jobctl.cluster.rights import rules

Dict = dict[str, Any]
SOMEBODY = "somebody"
TINY = ("collect", "--set", "episodes=1", "--set", "maxSteps=20")
LONG = ("collect", "--set", "episodes=400")
NOTHING = ("train", "--data", "datasets/nothing")  # fails soon, with 65


@dataclass(frozen=True)
class Said:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        return "".join(line for line in self.err.splitlines() if not line.startswith("backend: "))


@dataclass(frozen=True)
class Team:
    """A namespace, and somebody in it whose rights are those of the documented Role."""

    namespace: Any
    kubeconfig: Path

    def grant(self, without: tuple[str, str] | None = None) -> None:
        """The documented Role, less one (verb, resource)."""
        granted = [
            {"apiGroups": rule["apiGroups"], "resources": [resource], "verbs": [verb]}
            for rule in rules()
            for resource in rule["resources"]
            for verb in rule["verbs"]
            if (verb, resource) != without
        ]
        metadata = {"name": SOMEBODY, "namespace": self.namespace.name}
        api = "rbac.authorization.k8s.io"
        self.namespace.cluster.apply(
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": granted},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": api, "kind": "Role", "name": SOMEBODY},
                "subjects": [{"kind": "ServiceAccount", **metadata}],
            },
        )


def write_kubeconfig(namespace: Any, path: Path, token: str) -> Path:
    """The cluster's own, with other credentials."""
    config = json.loads(
        namespace.cluster.kubectl(
            "config", "view", "--raw", "--minify", f"--context={namespace.cluster.context}", "--output=json"
        )
    )
    config["users"] = [{"name": SOMEBODY, "user": {"token": token}}]
    config["contexts"][0]["context"] |= {"user": SOMEBODY, "namespace": namespace.name}
    config["current-context"] = config["contexts"][0]["name"]
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def team(make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Team:
    namespace = make_namespace("backend")
    namespace.kubectl("create", "serviceaccount", SOMEBODY)
    token = namespace.kubectl("create", "token", SOMEBODY).strip()
    team = Team(namespace, write_kubeconfig(namespace, tmp_path_factory.mktemp("kube") / "config", token))
    team.grant()
    return team


@pytest.fixture
def jobctl(team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command as somebody; what takes an image gets that of this checkout."""
    for name in ("JOBCTL_BACKEND", "JOBCTL_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, kubeconfig: Path = team.kubeconfig) -> Said:
        capfd.readouterr()
        image = ("--image", team.namespace.image)
        given = image if arguments[0] in ("submit", "render", "results") and "--image" not in arguments else ()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("KUBECONFIG", str(kubeconfig))
            status = main([*arguments, *given])
        return Said(status, *capfd.readouterr())

    return run


@pytest.fixture
def state(jobctl: Callable[..., Said]) -> Callable[[str], Dict]:
    return lambda name: json.loads(jobctl("status", name, "-o", "json").out)["job"]


def leftovers(team: Team, name: str) -> list[str]:
    found = team.namespace.kubectl(
        "get", "jobs,configmaps,services,serviceaccounts", "-o", "name",
        f"--selector=app.kubernetes.io/name=jobctl,app.kubernetes.io/instance={name}",
    )  # fmt: skip
    return found.split()


def readers(team: Team) -> list[Dict]:
    pods = team.namespace.items("pods", "--selector=app.kubernetes.io/name=jobctl-reader")
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def eventually(holds: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.5)
    return found


def test_the_whole_life_of_a_job_with_no_more_than_the_documented_role(jobctl, team, tmp_path):
    assert "submitted as revision 1" in jobctl("submit", *TINY, "--name", "life").out
    waited = jobctl("wait", "life", "--timeout", "120")
    assert (waited.status, "succeeded: all 1 episodes are recorded" in waited.out) == (0, True)
    job = json.loads(jobctl("status", "life", "-o", "json").out)["job"]
    assert (job["state"], job["progress"]["step"], job["result"]["figures"]["episodes"]) == ("succeeded", 1, 1)
    assert job["result"]["directory"] == "runs/life/results/run.000001 on the claim shared"
    assert [one["name"] for one in json.loads(jobctl("list", "-o", "json").out)["jobs"]] == ["life"]
    assert "episode 0/1" in jobctl("logs", "life").out
    assert jobctl("logs", "-f", "life").out == jobctl("logs", "life").out
    assert "Job completed" in jobctl("events", "life").out
    assert jobctl("results", "life", "-d", str(tmp_path / "out")).status == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["exitCode"] == 0
    assert "already done" in jobctl("submit", *TINY, "--name", "life").out
    assert jobctl("delete", "life").status == 0
    assert (jobctl("status", "life").status, leftovers(team, "life"), readers(team)) == (3, [], [])
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
    assert leftovers(team, "long") == []


def test_an_evicted_index_waits_in_the_back_off_and_its_log_is_read_from_the_volume(jobctl, state, team):
    jobctl("submit", *LONG, "--name", "evicted")
    eventually(lambda: "starting" in jobctl("logs", "evicted").out, 90)
    (pod,) = team.namespace.pods("evicted")
    name = pod["metadata"]["name"]
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


def test_jobs_of_plain_helm_are_jobs_like_any_other(jobctl, state, team):
    chart = Path(__file__).resolve().parents[2] / "charts" / "jobctl"
    team.namespace.install("plain", {"kind": "train", "data": "datasets/nothing"})
    helm3 = shutil.which("helm3")
    if helm3:
        import subprocess

        values = json.dumps({"kind": "train", "data": "datasets/nothing", "image": team.namespace.image})
        arguments = ["install", "three", str(chart), "-n", team.namespace.name, "--values", "-"]
        context = ["--kube-context", team.namespace.cluster.context]
        subprocess.run([helm3, *arguments, *context], input=values, text=True, check=True, capture_output=True)
    names = {one["name"] for one in json.loads(jobctl("list", "-o", "json").out)["jobs"]}
    assert names >= {"plain"} | ({"three"} if helm3 else set())
    waited = jobctl("wait", "plain", "--timeout", "120")
    assert (waited.status, "bad data" in waited.out) == (1, True)
    for name in names & {"plain", "three"}:
        assert jobctl("delete", name).status == 0


@pytest.mark.skipif(shutil.which("helm3") is None, reason="Helm 3 is not here as helm3")
def test_helm_3_does_what_helm_4_does(jobctl, team, monkeypatch):
    monkeypatch.setenv("JOBCTL_HELM", str(shutil.which("helm3")))
    assert "revision 1" in jobctl("submit", *NOTHING, "--name", "older").out
    assert "revision 2" in jobctl("submit", *NOTHING, "--set", "steps=7", "--name", "older", "--replace").out
    assert "name: older-r3" in jobctl("render", *NOTHING, "--name", "older").out
    assert jobctl("delete", "older").status == 0
    assert leftovers(team, "older") == []


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
    ("create", "pods/exec"): ("results", "gone"),
    ("update", "secrets"): ("submit", *NOTHING, "--name", "other"),
    ("delete", "serviceaccounts"): ("delete", "rights"),
}


def test_each_right_that_is_taken_away_is_named(jobctl, state, team):
    assert jobctl("submit", *LONG, "--name", "rights").status == 0
    eventually(lambda: state("rights")["state"] == "running", 90)
    try:
        for (verb, resource), command in TAKEN_AWAY.items():
            team.grant(without=(verb, resource))
            said = jobctl(*command)
            group = ".batch" if resource == "jobs" else ""
            expected = f"may not {verb} {resource}{group} in namespace {team.namespace.name}"
            assert (said.status, expected in said.error) == (5, True), (verb, resource, said)
            assert leftovers(team, "other") == [], (verb, resource)
        team.grant(without=("get", "pods/log"))
        doctor = jobctl("doctor")
        assert (doctor.status, "you may not get pods/log in" in doctor.out) == (1, True)
    finally:
        team.grant()
    assert jobctl("delete", "rights").status == 0


def refused(said: Said, *words: str) -> None:
    assert said.status == 5 and all(word in said.error for word in words), said
    assert "Traceback" not in said.err and said.error.count("error: ") == 1


def test_what_the_cluster_refuses_is_one_sentence_and_leaves_nothing(jobctl, team, state):
    refused(jobctl("submit", *TINY, "--name", "no", "--set", "volume.claim=nowhere"), "no claim nowhere")
    refused(jobctl("submit", *TINY, "--name", "no", "--set", "scheduling.priority=royal"), "royal")
    refused(jobctl("submit", *TINY, "--name", "platform"), "belongs to the chart jobctl-platform")
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
    assert (leftovers(team, "no"), leftovers(team, "platform")) == ([], [])
    assert json.loads(jobctl("list", "-o", "json").out)["jobs"] == []


def test_a_quota_without_room_is_exit_5_and_the_running_job_goes_on(jobctl, team, state):
    jobctl("submit", *LONG, "--name", "first")
    team.namespace.kubectl("create", "quota", "one", "--hard=count/jobs.batch=1")
    try:
        eventually(lambda: team.namespace.get("quota", "one")["status"].get("used"))
        refused(jobctl("submit", *TINY, "--name", "second"), "quota one", "count/jobs.batch=1")
        refused(jobctl("submit", *TINY, "--name", "first", "--replace"), "quota one")
        assert leftovers(team, "second") == []
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
    expired = write_kubeconfig(team.namespace, tmp_path / "config", "expired")
    refused(jobctl("list", kubeconfig=expired), "does not accept your credentials (401)")
    refused(jobctl("submit", *TINY, kubeconfig=expired), "does not accept your credentials (401)")


def test_an_api_server_that_does_not_answer_is_exit_4_within_ten_seconds(jobctl, team, tmp_path):
    import socket

    config = json.loads(team.kubeconfig.read_text())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}"
        config["clusters"][0]["cluster"]["server"] = address
        (tmp_path / "config").write_text(json.dumps(config))
        for command in (("list",), ("submit", *TINY), ("delete", "x")):
            start = time.monotonic()
            said = jobctl(*command, kubeconfig=tmp_path / "config")
            assert (said.status, address in said.error, time.monotonic() - start < 10) == (4, True, True), said


def test_doctor_says_that_all_is_well_and_what_somebody_can_not_see(jobctl, team):
    said = jobctl("doctor", "--image", team.namespace.image, "-o", "json")
    levels = {finding["check"]: finding["level"] for finding in json.loads(said.out)["findings"]}
    assert said.status == 0
    assert (levels["API server"], levels["rights"], levels["claim"]) == ("ok", "ok", "ok")
    assert (levels["namespace"], levels["nodes"]) == ("warn", "warn")  # "not visible"
