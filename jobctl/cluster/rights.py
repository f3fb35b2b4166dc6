"""What jobctl and Helm ask of the API server: the rules in charts/jobctl-platform/rbac.yaml, which its Role is made of.

`python -m jobctl.cluster.rights` prints docs/rbac.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from jobctl.chart import chart_directory, read_yaml

Rule = dict[str, Any]


@dataclass(frozen=True)
class Right:
    verb: str
    group: str
    resource: str
    subresource: str = ""

    def __str__(self) -> str:
        name = self.resource + (f".{self.group}" if self.group else "")
        return f"{self.verb} {name}" + (f"/{self.subresource}" if self.subresource else "")


@cache
def rules(kind: str = "role") -> tuple[Rule, ...]:
    """Rules as RBAC has them, and `why`: those of the `role`, or of the optional `kueue` and `clusterRole`."""
    return tuple(read_yaml(chart_directory("jobctl-platform") / "rbac.yaml")[kind])


def needed(kind: str = "role") -> tuple[Right, ...]:
    """The rights of these rules, one by one."""
    return tuple(
        Right(verb, group, *resource.split("/"))
        for rule in rules(kind)
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def document() -> str:
    """docs/rbac.md."""
    return "\n".join(_lines())


def _lines() -> list[str]:
    return [
        "# What jobctl may do in a namespace",
        "",
        "<!-- `python -m jobctl.cluster.rights > docs/rbac.md` wrote this. -->",
        "",
        "Whoever runs jobctl against a cluster needs this Role in the namespace of the jobs, and nothing else. Jobs",
        "themselves have no rights at all: their pods get no token.",
        "",
        "```",
        "helm upgrade --install platform jobctl-platform -n NAMESPACE --reuse-values \\",
        "  --set rbac.create=true --set 'rbac.subjects[0].kind=ServiceAccount' \\",
        "  --set 'rbac.subjects[0].name=NAME' --set 'rbac.subjects[0].namespace=NAMESPACE'",
        "```",
        "",
        "makes and binds it (an administrator does that); or apply it yourself:",
        "",
        "```yaml",
        *_role("Role", "jobctl", rules()),
        "```",
        "",
        "`jobctl doctor` says which of these rights are missing. A command that is refused ends with exit status 5 and",
        "names the verb and the resource. Two rights are far-reaching and can't be had narrower: `pods/exec` runs a",
        "command in any pod of the namespace, and `secrets` are where Helm keeps its releases, beside all others of",
        "the namespace. So give jobs a namespace of their own.",
        "",
        "## Optional: jobs in queues",
        "",
        "Who uses `scheduling.queue` ([kueue.md](kueue.md)) needs these rules in the Role, too: Kueue starts what it",
        "has admitted, so such a job is stopped through its Workload. `--set rbac.kueue=true` adds them.",
        "",
        "```yaml",
        *_rules(rules("kueue")),
        "```",
        "",
        "## Optional: nodes and namespace labels",
        "",
        "Without this ClusterRole `doctor` says of nodes and of the Pod Security level that they are not visible; all",
        "else works. `--set rbac.clusterRole=true` makes and binds it.",
        "",
        "```yaml",
        *_role("ClusterRole", "jobctl-NAMESPACE", rules("clusterRole")),
        "```",
        "",
    ]


def _role(kind: str, name: str, of: tuple[Rule, ...]) -> list[str]:
    head = ["apiVersion: rbac.authorization.k8s.io/v1", f"kind: {kind}", "metadata:", f"  name: {name}", "rules:"]
    return head + _rules(of)


def _rules(of: tuple[Rule, ...]) -> list[str]:
    lines = []
    for rule in of:
        lines += [
            f"  # {rule['why']}",
            f"  - apiGroups: [{', '.join(group or chr(34) * 2 for group in rule['apiGroups'])}]",
            f"    resources: [{', '.join(rule['resources'])}]",
            f"    verbs: [{', '.join(rule['verbs'])}]",
        ]
    return lines


if __name__ == "__main__":
    print(document(), end="")
