"""What jobctl and Helm ask of the API server: the Role that docs/rbac.md prints, and that jobctl-platform can make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Right:
    verb: str
    group: str
    resource: str
    subresource: str = ""

    def __str__(self) -> str:
        name = self.resource + (f"/{self.subresource}" if self.subresource else "")
        return f"{self.verb} {name}" + (f".{self.group}" if self.group else "")


# (API group, resources, verbs, what for). One line is one rule of the Role.
ROLE: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("batch", ("jobs",), ("get", "list", "watch", "create", "patch", "delete"), "the jobs; suspending is a patch"),
    (
        "",
        ("pods",),
        ("get", "list", "watch", "create", "delete"),
        "replicas; the short-lived pod that reads the volume",
    ),
    ("", ("pods/log",), ("get",), "logs"),
    ("", ("pods/exec",), ("create", "get"), "the questions to the reader pod"),
    ("", ("pods/proxy",), ("get",), "the progress of running replicas, from their metrics"),
    ("", ("events",), ("list",), "what a pod waits for"),
    ("", ("persistentvolumeclaims",), ("get",), "whether the volume fits the replicas"),
    (
        "",
        ("configmaps", "services", "serviceaccounts"),
        ("get", "list", "create", "patch", "delete"),
        "parts of a release",
    ),
    ("", ("secrets",), ("get", "list", "create", "update", "delete"), "where Helm keeps its releases"),
)
# The optional ClusterRole: without it `doctor` says "not visible".
CLUSTER_ROLE: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("", ("nodes",), ("list",), "the nodes of each profile, and whether they have the image"),
    ("", ("namespaces",), ("get",), "the namespace's Pod Security level"),
)

NEEDED: tuple[Right, ...] = tuple(
    Right(verb, group, *resource.split("/"))
    for group, resources, verbs, _ in ROLE
    for resource in resources
    for verb in verbs
)


def role(name: str, rules: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = ROLE) -> dict[str, Any]:
    """The Role of that name, or with CLUSTER_ROLE the ClusterRole."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole" if rules is CLUSTER_ROLE else "Role",
        "metadata": {"name": name},
        "rules": [
            {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
            for group, resources, verbs, _ in rules
        ],
    }
