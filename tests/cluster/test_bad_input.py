"""What goes wrong between a user and a cluster: one sentence, the right exit status, and nothing left behind.

What the cluster itself refuses of a job stands in test_backend.py.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from held import hold_at, release, wait_until_held
from people import Said, Team, at, eventually, refused, tidily, typist, write_kubeconfig
from proxy import Proxy
from runs import place
from waiting import patience

Dict = dict[str, Any]
JOBCTL = Path(sys.executable).parent / "jobctl"
TINY = ("collect", "--set", "episodes=1", "--set", "maxSteps=20")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl, which makes certificates")


@pytest.fixture(scope="module")
def team(make_namespace: Callable[..., Any], tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Team:
    namespace = make_namespace("bad")
    place(tiny_dataset, namespace.volume)
    return Team.of(namespace, tmp_path_factory.mktemp("kube"))


@pytest.fixture
def jobctl(
    team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Said]]:
    yield from tidily(team, typist(team, monkeypatch, capfd))


@pytest.fixture
def reason(jobctl: Callable[..., Said]) -> Callable[[str], str]:
    """The state and reason that status gives."""

    def of(name: str) -> str:
        job = json.loads(jobctl("status", name, "-o", "json").out)["job"]
        return f"{job['state']}: {job['reason']}"

    return of


# --- an API server that does not answer ------------------------------------------------------------------------------


@contextmanager
def refusing() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield port


@contextmanager
def silent() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose queue is full: connecting is not even refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


AWAY = {refusing: "Connection refused", silent: "no answer in time", black_hole: "no answer in time"}


@pytest.mark.parametrize("kind", AWAY)
def test_an_api_server_that_does_not_answer_is_exit_4(kind, jobctl, team, tmp_path):
    with kind() as port:
        address = f"https://127.0.0.1:{port}"
        kubeconfig = at(team.kubeconfig, address, tmp_path / "config")
        for command in (("submit", *TINY), ("logs", "-f", "x")):
            said = jobctl(*command, kubeconfig=kubeconfig)
            refused(said, address, f"does not answer: {AWAY[kind]}. Is the cluster up", status=4)


@needs_openssl
def test_an_address_where_something_else_answers_is_not_trusted(jobctl, team, tmp_path):
    kubeconfig = write_kubeconfig(team.namespace, tmp_path / "config", {"token": "t"})
    config = json.loads(kubeconfig.read_text())
    own = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-keyout", os.devnull]
    other = subprocess.run(["openssl", *own], capture_output=True, check=True).stdout
    config["clusters"][0]["cluster"]["certificate-authority-data"] = base64.b64encode(other).decode()
    kubeconfig.write_text(json.dumps(config))
    refused(jobctl("list", kubeconfig=kubeconfig), "can't be trusted", "the kubeconfig's certificate auth", status=4)


@pytest.fixture
def proxy(team: Team, tmp_path: Path) -> Iterator[tuple[Proxy, dict[str, str]]]:
    """A proxy in front of the API server, and an environment whose kubeconfig goes through it."""
    server = json.loads(team.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    host, port = urlsplit(server).hostname, urlsplit(server).port
    assert host and port
    with Proxy((host, port)) as between:
        kubeconfig = at(team.kubeconfig, between.address, tmp_path / "config")
        yield between, {**os.environ, "KUBECONFIG": str(kubeconfig)}


@pytest.mark.held
def test_wait_and_logs_outlast_an_api_server_that_is_away_for_a_while_and_say_so(jobctl, team, proxy, tmp_path):
    between, environment = proxy
    small = ("--set", "episodes=6", "--set", "maxSteps=40", "--set", "envs=1", "--replicas", "2", "--name", "away")
    jobctl("submit", "collect", *small, hold_at(1))
    wait_until_held(team.namespace.volume, "away", range(2), picture=team.namespace.picture)
    watching, said = {}, {}
    for command in ("wait", "logs -f"):
        out, err = (tmp_path / f"{command}.{stream}" for stream in ("out", "err"))
        arguments = [str(JOBCTL), *command.split(), "away"]
        with out.open("w") as to_out, err.open("w") as to_err:
            watching[command] = subprocess.Popen(arguments, env=environment, stdout=to_out, stderr=to_err)
        said[command] = (out.read_text, err.read_text)

    def all_say(words: str, stream: int) -> bool:
        return all(streams[stream]().count(words) == 1 for streams in said.values())

    eventually(lambda: "running" in said["wait"][0]() and "starting" in said["logs -f"][0](), 60)
    between.cut()
    between.become("silent")
    eventually(lambda: all_say("Waiting for it to come back.", 1), 60)
    between.become("passing")
    eventually(lambda: all_say("It answers again, after", 1), 60)
    release(team.namespace.volume, "away")
    assert [one.wait(patience(120)) for one in watching.values()] == [0, 0], [streams[1]() for streams in said.values()]
    assert "away: succeeded: all 2 indexes are done" in said["wait"][0]()
    assert sorted(said["logs -f"][0]().splitlines()) == sorted(jobctl("logs", "away").out.splitlines())


# --- credentials, namespaces -----------------------------------------------------------------------------------------


def expired_certificate(team: Team, directory: Path) -> Dict:
    """A client certificate by the cluster's own authority that ended yesterday."""
    node = f"{team.namespace.cluster.name}-control-plane"
    for name in ("ca.crt", "ca.key"):
        pem = subprocess.run(["docker", "exec", node, "cat", f"/etc/kubernetes/pki/{name}"], capture_output=True)
        (directory / name).write_bytes(pem.stdout)
    for command in (
        "req -newkey rsa:2048 -nodes -subj /O=system:masters/CN=jane -keyout own.key -out own.csr",
        "x509 -req -in own.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days -1 -out own.crt",
    ):
        subprocess.run(["openssl", *command.split()], cwd=directory, capture_output=True, check=True)
    (directory / "ca.key").unlink()
    files = {"client-certificate-data": "own.crt", "client-key-data": "own.key"}
    return {key: base64.b64encode((directory / file).read_bytes()).decode() for key, file in files.items()}


def login(script: str) -> Dict:
    """A user whose credentials come from a program."""
    command = {"command": "sh", "args": ["-c", script], "interactiveMode": "Never"}
    return {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command}}


@needs_openssl
def test_credentials_that_have_expired_are_exit_5_and_the_login_s_own_words_are_passed_on(jobctl, team, tmp_path):
    expired = "does not accept your credentials (401): they are wrong or have expired"
    users = {
        expired: expired_certificate(team, tmp_path),
        "gave no credentials: exec: process returned 1. The session has expired": login(
            "echo The session has expired >&2; exit 1"
        ),
        "takes you for nobody (system:anonymous)": {},
    }
    for words, user in users.items():
        kubeconfig = write_kubeconfig(team.namespace, tmp_path / "config", user)
        for command in (("list",), ("submit", *TINY, "--name", "no")):
            refused(jobctl(*command, kubeconfig=kubeconfig), words)
    kubeconfig = write_kubeconfig(team.namespace, tmp_path / "config", users[expired])
    refused(jobctl("render", *TINY, kubeconfig=kubeconfig), expired)
    assert team.leftovers("no") == []


def test_a_namespace_that_is_not_there_is_not_found(jobctl, team, tmp_path):
    namespace = "nobody-made-this"
    kubeconfig = tmp_path / "config"  # an administrator's: whose rights end with a namespace may not know of others
    cluster = team.namespace.cluster
    kubeconfig.write_text(cluster.kubectl("config", "view", "--raw", "--minify", f"--context={cluster.context}"))
    for command in (("list",), ("status", "x"), ("submit", *TINY), ("delete", "x")):
        said = jobctl(*command, "-n", namespace, kubeconfig=kubeconfig)
        refused(said, f"There is no namespace {namespace} in", f"`kubectl create namespace {namespace}`", status=3)


# --- jobs that the cluster takes, and cannot run ---------------------------------------------------------------------

CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "unbound"},
    "spec": {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "none-such",
        "resources": {"requests": {"storage": "1Gi"}},
    },
}

# job → what is submitted, and the reason that status gives
STUCK: dict[str, tuple[tuple[str, ...], str]] = {
    "claim": (
        (*TINY, "--set=volume.claim=unbound"),
        "pending: the claim unbound is not bound to a volume yet (`kubectl describe pvc unbound` says why)",
    ),
    "secret": (
        (*TINY, "--set=secretEnv.KEY.secret=none-such", "--set=secretEnv.KEY.key=k"),
        'starting: the container can\'t be set up: secret "none-such" not found',
    ),
    "label": (
        (*TINY, "--set=scheduling.nodeSelector.disk=none-such"),
        "pending: 0/3 nodes are available: ",
    ),
    "quota": (
        # with data, so that the replica that runs waits for the other
        (
            "train",
            "--data=datasets/tiny",
            "--gpu=a100",
            "--allow-cpu",
            "--replicas=2",
            "--set=resources.requests.cpu=50m",
        ),
        "running: 1 of 2 replicas run; the others wait: The quota gpus of namespace ",
    ),
}


@pytest.fixture
def scarce(team: Team) -> Iterator[None]:
    """A claim without a volume, and a quota of one GPU."""
    team.namespace.kubectl("create", "-f", "-", stdin=json.dumps(CLAIM))
    team.namespace.kubectl("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=1")
    yield
    team.namespace.kubectl("delete", "quota", "gpus")
    team.namespace.kubectl("delete", "pvc", "unbound", "--wait=false")


@pytest.mark.usefixtures("scarce")
def test_status_names_what_keeps_a_job_from_running(jobctl, team, reason):
    for name, (options, _) in STUCK.items():
        assert jobctl("submit", *options, "--name", name).status == 0
    for name, (_, words) in STUCK.items():
        found = eventually(lambda name=name, words=words: (said := reason(name)).startswith(words) and said, 90)
        assert "\n" not in found and "preemption" not in found
    refused(
        jobctl("submit", *STUCK["quota"][0], "--name=more"), "The quota gpus of namespace", "requests.nvidia.com/gpu"
    )
    shown = jobctl("logs", "claim")
    assert (shown.status, shown.out) == (0, "")
    assert "claim has not said anything yet: it is pending: the claim unbound" in shown.err
    for name in STUCK:
        assert jobctl("delete", name).status == 0
    assert [team.leftovers(name) for name in (*STUCK, "more")] == [[]] * 5


def test_pods_that_the_namespace_s_pod_security_level_refuses_are_the_reason_in_status(jobctl, team, reason):
    """The chart's own pods fit every level, so this job is one that somebody has edited and applied by hand."""
    objects = list(yaml.safe_load_all(jobctl("render", *TINY, "--name", "lax").out))
    job = next(one for one in objects if one["kind"] == "Job")
    job["spec"]["template"]["spec"]["hostNetwork"] = True
    for one in objects:
        team.namespace.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    words = f"pending: Namespace {team.namespace.name} has Pod Security level restricted"
    found = eventually(lambda: (said := reason("lax")).startswith(words) and said)
    assert "host namespaces (hostNetwork=true)" in found
    waited = jobctl("wait", "lax", "--timeout", "1")
    assert (waited.status, "refuses these pods" in waited.out) == (124, True)
    assert jobctl("delete", "lax").status == 0
    assert team.leftovers("lax") == []


def test_what_any_other_rule_of_the_cluster_refuses_is_told_of_the_job_and_leaves_nothing(jobctl, team):
    said = jobctl("submit", *TINY, "--name", "odd", "--set=pod.runtimeClassName=none-such")
    refused(said, f"Namespace {team.namespace.name} refuses pods of odd: ", 'RuntimeClass "none-such" not found')
    assert team.leftovers("odd") == []


def test_a_damaged_certificate_is_a_usage_error(jobctl, team, tmp_path):
    damaged = {"client-certificate-data": "Zm9v", "client-key-data": "Zm9v"}
    kubeconfig = write_kubeconfig(team.namespace, tmp_path / "config", damaged)
    refused(jobctl("list", kubeconfig=kubeconfig), "The kubeconfig can't be used: ", "is damaged", status=2)
