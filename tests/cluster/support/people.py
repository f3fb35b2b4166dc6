"""Somebody who has no more rights than the documented Role, and types jobctl's commands."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from runs import paced
from said import Said
from waiting import wait_for

from jobctl.cli.main import main
from jobctl.cluster.rights import rules

Dict = dict[str, Any]
SOMEBODY = "somebody"
IMAGED = ("submit", "render", "results")  # the commands that take --image


def refused(said: Said, *words: str, status: int = 5) -> None:
    """One sentence with these words, and that exit status."""
    assert said.status == status and all(word in said.error for word in words), said
    assert "Traceback" not in said.err and said.error.count("error: ") == 1
    assert len(said.err.splitlines()) <= 2  # the backend's name, and the sentence


@dataclass(frozen=True)
class Team:
    """A namespace, and somebody in it whose rights are those of the documented Role."""

    namespace: Any
    kubeconfig: Path

    @classmethod
    def of(cls, namespace: Any, directory: Path) -> Team:
        namespace.kubectl("create", "serviceaccount", SOMEBODY)
        token = namespace.kubectl("create", "token", SOMEBODY).strip()
        team = cls(namespace, write_kubeconfig(namespace, directory / "config", {"token": token}))
        team.grant()
        return team

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

    def job_settings(self, name: str) -> Dict:
        """The settings in the config of a release's newest Job."""
        maps = self.namespace.items("configmaps", f"--selector=app.kubernetes.io/instance={name}")
        newest = max(maps, key=lambda one: one["metadata"]["creationTimestamp"])
        return dict(json.loads(newest["data"]["config.json"])["settings"])

    def leftovers(self, name: str) -> list[str]:
        """What is there of a release; and the Secrets in which Helm keeps it."""
        parts = self.namespace.kubectl(
            "get", "jobs,configmaps,services,serviceaccounts", "-o", "name",
            f"--selector=app.kubernetes.io/name=jobctl,app.kubernetes.io/instance={name}",
        )  # fmt: skip
        return (parts + self.namespace.kubectl("get", "secrets", "-o", "name", f"--selector=name={name}")).split()


def write_kubeconfig(namespace: Any, path: Path, user: Dict) -> Path:
    """The cluster's own, with other credentials."""
    config = json.loads(
        namespace.cluster.kubectl(
            "config", "view", "--raw", "--minify", f"--context={namespace.cluster.context}", "--output=json"
        )
    )
    config["users"] = [{"name": SOMEBODY, "user": user}]
    config["contexts"][0]["context"] |= {"user": SOMEBODY, "namespace": namespace.name}
    config["current-context"] = config["contexts"][0]["name"]
    path.write_text(json.dumps(config))
    return path


def at(kubeconfig: Path, server: str, path: Path) -> Path:
    """The same kubeconfig with another address of the API server."""
    config = json.loads(kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = server
    path.write_text(json.dumps(config))
    return path


def typist(
    team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Said]]:
    """A fixture's body: runs a command as somebody; what takes an image gets that of this checkout.

    Afterwards no job is there that a test has submitted by name, however it ended.
    """
    names: set[str] = set()
    for name in ("JOBCTL_BACKEND", "JOBCTL_HOME"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, kubeconfig: Path = team.kubeconfig) -> Said:
        capfd.readouterr()
        image = ("--image", team.namespace.image)
        given = image if arguments[0] in IMAGED and "--image" not in arguments else ()
        given += tuple(paced(team.namespace.volume)) if arguments[0] in ("submit", "render") else ()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("KUBECONFIG", str(kubeconfig))
            status = main([*arguments, *given])
        if arguments[0] == "submit":
            names.update(re.findall(r"--name[ =](\S+)", " ".join(arguments)))
        return Said(status, *capfd.readouterr())

    yield run
    for name in names:
        if team.leftovers(name):
            run("delete", name)


def eventually(holds: Callable[[], Any], seconds: float = 60) -> Any:
    return wait_for("it", holds, seconds, every_seconds=0.5)
