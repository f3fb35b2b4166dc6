"""Several people submit under one name at the same moment, on a real cluster, with the documented Role."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from people import Said, Team, refused, typist

from jobctl.helm import find_helm

JOBCTL = Path(sys.executable).parent / "jobctl"
CHART = Path(__file__).resolve().parents[2] / "charts" / "jobctl"
HELM_3 = shutil.which("helm3")
# No node has this label: its pod waits, which costs nothing.
WAITS = ("train", "--data", "datasets/nothing", "--set", "scheduling.nodeSelector.nowhere=here")
TRIES = 20


@pytest.fixture(scope="module")
def team(make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team.of(make_namespace("races"), tmp_path_factory.mktemp("kube"))


@pytest.fixture
def jobctl(team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return typist(team, monkeypatch, capfd)


@pytest.fixture
def at_once(team: Team) -> Callable[..., list[tuple[int, str]]]:
    """Start these commands together; (exit status, what was said) of each. They take turns in having Helm 3."""

    def run(*commands: tuple[str, ...]) -> list[tuple[int, str]]:
        environments = [os.environ | {"KUBECONFIG": str(team.kubeconfig)} for _ in commands]
        if HELM_3 is not None:
            environments[-1]["JOBCTL_HELM"] = HELM_3
        started = [
            subprocess.Popen(
                [str(JOBCTL), *command, "--image", team.namespace.image],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for command, environment in zip(commands, environments, strict=True)
        ]  # fmt: skip
        said = [process.communicate(timeout=180)[0] for process in started]
        return [(one.returncode, words) for one, words in zip(started, said, strict=True)]

    return run


def winner_of(said: list[tuple[int, str]], submitted: str, status: int, words: str) -> int:
    """The one that has submitted; the other ended with this status and said these words."""
    (winner,) = (at for at, (_, text) in enumerate(said) if submitted in text)
    other = said[1 - winner]
    assert (said[winner][0], other[0], words in other[1]) == (0, status, True), said
    return winner


@pytest.mark.timeout(900)
def test_one_of_two_submits_starts_the_job_and_the_other_says_so(at_once, team):
    expected = []
    for number in range(TRIES):
        name, is_same, is_replaced = f"x{number}", number % 2 == 0, number % 10 == 0
        submit = ("submit", *WAITS, "--name", name)
        said = at_once((*submit, "--set", "steps=7"), (*submit, "--set", "steps=7" if is_same else "steps=8"))
        other = (0, "already running") if is_same else (2, "is taken by another spec")
        winner = winner_of(said, "submitted as revision 1", *other)
        assert team.job_settings(name)["steps"] == (7 if is_same else 7 + winner)
        if is_replaced:
            replace = (*submit, "--set", "steps=9", "--replace")
            winner_of(at_once(replace, replace), "submitted as revision 2", 0, "already running")
        revisions = [1, 2] if is_replaced else [1]
        expected += [f"{kind}/{name}-r{revisions[-1]}" for kind in ("job.batch", "configmap")]
        expected += [f"serviceaccount/{name}", *(f"secret/sh.helm.release.v1.{name}.v{at}" for at in revisions)]
    kinds = "jobs,configmaps,serviceaccounts,secrets"
    left = team.namespace.kubectl("get", kinds, "--output=name").split()
    assert sorted(one for one in left if re.search(r"[/.]x\d", one)) == sorted(expected)


def test_plain_helm_goes_on_with_the_values_that_submit_has_sent(jobctl, team):
    assert jobctl("submit", *WAITS, "--name", "plain").status == 0
    context = ["--kube-context", team.namespace.cluster.context, "--namespace", team.namespace.name]
    for program in filter(None, (str(find_helm()), HELM_3)):
        command = [program, "upgrade", "plain", str(CHART), "--reuse-values", "--set", "retry.perReplica=5"]
        subprocess.run([*command, *context], check=True, capture_output=True)


# Stands in for a call that was faster, and for a Helm that then fails for whatever reason.
OTHER_CALL = """#!/bin/bash
[ "$1" = upgrade ] || exec {helm} "$@"
{helm} "${{@/jobctl-submit=*/jobctl-submit=another}}" >&2
echo "Error: UPGRADE FAILED: the moon is full" >&2
exit 1
"""


def test_a_submit_that_fails_takes_back_only_what_it_has_made(jobctl, team, tmp_path, monkeypatch):
    helm = tmp_path / "helm"
    helm.write_text(OTHER_CALL.format(helm=find_helm()))
    helm.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setenv("JOBCTL_HELM", str(helm))
        refused(jobctl("submit", *WAITS, "--name", "made"), "the moon is full")
    assert {"job.batch/made-r1", "secret/sh.helm.release.v1.made.v1"} <= set(team.leftovers("made"))
    assert "already running" in jobctl("submit", *WAITS, "--name", "made").out
