"""What Helm says and leaves behind. Its words are recorded from Helm 4.3 and 3.22."""

import pytest

from jobctl import helm
from jobctl.cluster.refusals import Place
from jobctl.cluster.release import Helm, Repair, repair
from jobctl.errors import NotFoundError, RefusedError, UnreachableError

NOW = 10_000.0
PLACE = Place("https://10.0.0.1:6443", "prod", "team")


def secret(version: int, status: str, age_seconds: float = 0) -> dict:
    labels = {"status": status, "version": str(version), "modifiedAt": str(int(NOW - age_seconds))}
    return {"metadata": {"name": f"sh.helm.release.v1.x.v{version}", "labels": labels}}


REPAIRS = {
    "nothing there": ([], Repair()),
    "a release as it should be": ([secret(1, "superseded"), secret(2, "deployed")], Repair()),
    "a failed upgrade over a deployed one": ([secret(1, "deployed"), secret(2, "failed")], Repair()),
    "an upgrade that goes on": ([secret(1, "deployed"), secret(2, "pending-upgrade", 5)], Repair(busy=True)),
    "an upgrade that was killed": (
        [secret(1, "deployed"), secret(2, "pending-upgrade", 500)],
        Repair(forget=("sh.helm.release.v1.x.v2",)),
    ),
    "an install that goes on": ([secret(1, "pending-install", 5)], Repair(busy=True)),
    "an install that was killed": ([secret(1, "pending-install", 500)], Repair(uninstall=True)),
    "an install that has just failed": ([secret(1, "failed", 5)], Repair(busy=True)),
    "an install that failed": ([secret(1, "failed", 50)], Repair(uninstall=True)),
    "an uninstall that goes on": ([secret(1, "superseded", 50), secret(2, "uninstalling", 5)], Repair(busy=True)),
    "an uninstall that failed": ([secret(1, "superseded", 50), secret(2, "uninstalling", 50)], Repair(uninstall=True)),
}


@pytest.mark.parametrize("case", REPAIRS)
def test_what_an_interrupted_helm_left_is_put_in_order(case):
    secrets, expected = REPAIRS[case]
    assert repair(secrets, NOW) == expected


SAID = {
    "no such release": ("Error: uninstall: Release not loaded: release: not found", NotFoundError, "no such release"),
    "a cluster that is away": (
        'Error: Kubernetes cluster unreachable: Get "https://10.0.0.1:6443/version": dial tcp: connection refused',
        UnreachableError, "https://10.0.0.1:6443 (context prod) does not answer: dial tcp: connection refused. Is",
    ),
    "another Helm": (
        "Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress",
        RefusedError, "try again in a moment",
    ),
    "a right that only its log names": (
        ('level=WARN msg="delete failed" error="services \\"x\\" is forbidden: User \\"j\\" cannot delete resource '
        '\\"services\\" in API group \\"\\" in the namespace \\"team\\""\nError: failed to delete release: x'),
        RefusedError, "may not delete services in namespace team",
    ),
    "anything else": ("Error: UPGRADE FAILED: the moon is full", RefusedError, "the moon is full"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
def test_helm_s_complaint_is_a_sentence_with_its_exit_status(case, monkeypatch):
    stderr, kind, sentence = SAID[case]

    def fail(*_: object, **__: object) -> str:
        raise helm.error_of(stderr)

    monkeypatch.setattr(helm, "run", fail)
    with pytest.raises(kind) as caught:
        Helm(PLACE).values("x")
    assert sentence in str(caught.value)


def test_a_helm_that_gets_no_answer_is_a_cluster_that_does_not_answer(monkeypatch, tmp_path):
    stuck = tmp_path / "helm"
    stuck.write_text("#!/bin/sh\nexec sleep 30\n")
    stuck.chmod(0o755)
    monkeypatch.setenv("JOBCTL_HELM", str(stuck))
    monkeypatch.setattr("jobctl.cluster.release.RENDER_SECONDS", 0.2)
    with pytest.raises(UnreachableError, match=r"does not answer: no answer to `helm upgrade` for 0\.2 s"):
        Helm(PLACE).render("x", {})
