from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.local.environment import PodIdentity, command, environment, expand, guarded_by, host_path
from jobctl.local.plan import Container, EnvVar, LocalJob, PodTemplate

POD = PodIdentity("x-r1-1-abcde", "default", "uid", "127.1.2.3", "node", 1, {"team": "red"}, {})
MOUNTS = {"/shared": Path("/home/volumes/s"), "/shared/inner": Path("/inner"), "/dev/termination-log": Path("/t/log")}


def job_with(*env: EnvVar) -> LocalJob:
    container = Container("worker", ("python", "-m", "workers"), ("--config", "$(CONFIG)"), env)
    return LocalJob(
        "x-r1", "default", 2, 2, PodTemplate(container, labels={}, annotations={}, volumes={}, subdomain="x")
    )


def variables(*env: EnvVar, base=None) -> dict[str, str]:
    return environment(job_with(*env), POD, MOUNTS, ["127.1.1.1", "127.1.2.3"], base or {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/shared", "/home/volumes/s"),
        ("/shared/runs/x", "/home/volumes/s/runs/x"),
        ("/shared/inner/y", "/inner/y"),
        ("/sharedness", "/sharedness"),
        ("file:/shared", "file:/shared"),
        ("/dev/termination-log", "/t/log"),
        ("/dev/shm", "/dev/shm"),
    ],
)
def test_a_value_at_or_below_a_mount_becomes_the_path_on_this_machine(value, expected):
    assert host_path(value, MOUNTS) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x-r1-0.x:29400", "127.1.1.1:29400"),
        ("x-r1-1.x.default.svc.cluster.local", "127.1.2.3"),
        ("tcp://x-r1-0.x:1,tcp://x-r1-1.x:1", "tcp://127.1.1.1:1,tcp://127.1.2.3:1"),
        ("x-r1-7.x", "x-r1-7.x"),
        ("other-x-r1-0.x", "other-x-r1-0.x"),
        ("x-r1-0.xy", "x-r1-0.xy"),
    ],
)
def test_the_name_of_a_peer_becomes_its_address(value, expected):
    assert variables(EnvVar("STORE", value))["STORE"] == expected


def test_local_adds_its_lease_unless_the_manifest_has_one():
    assert variables()["JOBCTL_LEASE_SECONDS"] == "5"
    assert variables(EnvVar("JOBCTL_LEASE_SECONDS", "30"))["JOBCTL_LEASE_SECONDS"] == "30"


def test_only_the_listed_names_are_inherited():
    inherited = variables(base={"PATH": "/bin", "AWS_SECRET": "s"})
    assert inherited["PATH"] == "/bin"
    assert "AWS_SECRET" not in inherited


def test_arguments_see_the_rewritten_values_and_python_is_the_chosen_interpreter():
    env = variables(EnvVar("CONFIG", "/shared/config.json"))
    words = command(job_with().template.container, env, {"JOBCTL_WORKER_PYTHON": "/opt/python"})
    assert words == ["/opt/python", "-m", "workers", "--config", "/home/volumes/s/config.json"]


def test_a_label_that_is_absent_is_empty():
    absent = EnvVar("A", field_path="metadata.labels['nope']")
    present = EnvVar("B", field_path="metadata.labels['team']")
    found = variables(absent, present)
    assert (found["A"], found["B"]) == ("", "red")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)", "1"), ("$(B)", "$(B)"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$A", "$A"), ("a$", "a$"), ("$(A", "$(A")],
)
def test_references_expand_as_in_kubernetes(text, expected):
    assert expand(text, {"A": "1"}) == expected


def test_what_is_referred_to_is_rewritten_once():
    """The path on this machine may lie below a mount of the same name again."""
    mounts = {"/shared": Path("/shared/home/volumes/s")}
    env = environment(job_with(EnvVar("V", "/shared"), EnvVar("W", "$(V)/x")), POD, mounts, [], {})
    assert (env["V"], env["W"]) == ("/shared/home/volumes/s", "/shared/home/volumes/s/x")


def test_text_is_left_as_it_is():
    env = variables(EnvVar("A", "/shared/x", is_wired=False), EnvVar("B", "x-r1-0.x", is_wired=False))
    assert (env["A"], env["B"]) == ("/shared/x", "x-r1-0.x")


@pytest.mark.parametrize(("name", "is_guarded"), [
    ("PYTHONPATH", True), ("PYTHONWARNINGS", True), ("LD_PRELOAD", True), ("BROWSER", True), ("HOME", True),
    ("PATH", True), ("BASH_ENV", True), ("MUJOCO_GL", False), ("MY_PYTHON", False), ("pythonpath", False),
])  # fmt: skip
def test_variables_that_run_code_are_known(name, is_guarded):
    assert bool(guarded_by(name)) == is_guarded


@given(st.text(st.characters(exclude_characters="$")))
def test_text_without_a_dollar_stays_as_it_is(text):
    assert expand(text, {"A": "1"}) == text
