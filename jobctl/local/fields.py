"""Which fields of a manifest the local backend translates, ignores and refuses: the published tables.

A field that stands in no table is refused as unknown. `python -m jobctl.local.fields` prints the tables as Markdown.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any


class Treatment(StrEnum):
    TRANSLATED = "translated"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True)
class Field:
    """One field, or all below it. `only`: the values that are taken (of a refused field: the harmless ones)."""

    path: str
    treatment: Treatment
    note: str = ""
    kind: type | tuple[type, ...] | None = None
    only: tuple[Any, ...] | None = None


def translated(path: str, kind: type | None = None, note: str = "", only: tuple[Any, ...] | None = None) -> Field:
    return Field(path, Treatment.TRANSLATED, note, kind, only)


def ignored(path: str, note: str) -> Field:
    return Field(path, Treatment.IGNORED, note)


def refused(path: str, note: str, harmless: tuple[Any, ...] = ()) -> Field:
    return Field(path, Treatment.REFUSED, note, None, harmless)


def below(prefix: str, fields: Iterable[Field]) -> list[Field]:
    return [replace(field, path=f"{prefix}.{field.path}") for field in fields]


def metadata(labels_note: str = "") -> list[Field]:
    return [
        translated("metadata.name", str),
        translated("metadata.namespace", str),
        translated("metadata.labels", dict, labels_note),
        translated("metadata.annotations", dict),
        ignored("metadata.creationTimestamp", "set by the backend"),
    ]


CONTAINER = [
    translated("name", str),
    translated(
        "command", list, "required, as there is no image to name a program; `python` is jobctl's own interpreter"
    ),
    translated("args", list, "$(VAR) is expanded here, in command and in env"),
    translated("workingDir", str, "must lie below a mount; without it the pod's own directory"),
    translated("env[].name", str),
    translated(
        "env[].value", str, "paths below a mount and names of peers are rewritten; of the chart's, as listed above"
    ),
    translated("env[].valueFrom.fieldRef.fieldPath", str),
    translated("env[].valueFrom.fieldRef.apiVersion", str, only=("v1",)),
    translated("env[].valueFrom.configMapKeyRef.name", str, "of a ConfigMap in the same manifest"),
    translated("env[].valueFrom.configMapKeyRef.key", str),
    refused("env[].valueFrom.configMapKeyRef.optional", "a missing key is an error here", (False,)),
    translated(
        "env[].valueFrom.secretKeyRef.name", str, "the file JOBCTL_HOME/secrets/NAME/KEY, else jobctl's variable"
    ),
    translated("env[].valueFrom.secretKeyRef.key", str),
    refused("env[].valueFrom.secretKeyRef.optional", "a missing key is an error here", (False,)),
    refused("env[].valueFrom.resourceFieldRef", "resources aren't limited here"),
    refused("env[].valueFrom.fileKeyRef", "give a plain value in `env`"),
    refused("envFrom", "list the variables in `env`", ([],)),
    translated("volumeMounts[].name", str),
    translated("volumeMounts[].mountPath", str, "/dev/shm is left as the machine's"),  # noqa: S108
    translated("volumeMounts[].subPath", str, "a directory below the volume; `..` is refused"),
    ignored("volumeMounts[].readOnly", "processes of one user share one file system"),
    refused("volumeMounts[].subPathExpr", "use subPath"),
    refused("volumeMounts[].mountPropagation", "there are no mounts", ("None",)),
    refused("volumeMounts[].recursiveReadOnly", "there are no mounts", ("Disabled",)),
    translated("terminationMessagePath", str),
    translated("terminationMessagePolicy", str, only=("File", "FallbackToLogsOnError")),
    ignored("image", "the packages installed beside jobctl run instead"),
    ignored("imagePullPolicy", "no image is pulled"),
    ignored("ports", "every pod has its own 127.x.y.z address"),
    ignored(
        "resources", "requests and limits aren't enforced; every pod sees all CPUs, memory and GPUs of the machine"
    ),
    *below(
        "securityContext",
        [
            refused("privileged", "a local process has its user's rights and never more", (False,)),
            refused("allowPrivilegeEscalation", "a local process has its user's rights and never more", (False,)),
            refused("capabilities.add", "a local process has its user's rights and never more", ([],)),
            ignored("capabilities.drop", "runs as the user who submits"),
            ignored("runAsUser", "runs as the user who submits"),
            ignored("runAsGroup", "runs as the user who submits"),
            ignored("runAsNonRoot", "runs as the user who submits"),
            ignored("readOnlyRootFilesystem", "the machine's file system is seen as it is"),
            ignored("seccompProfile", "no container runtime is there"),
            ignored("appArmorProfile", "no container runtime is there"),
            ignored("seLinuxOptions", "no container runtime is there"),
            refused("procMount", "the machine's /proc is seen as it is", ("Default",)),
        ],
    ),
    ignored("livenessProbe", "workers watch themselves"),
    ignored("readinessProbe", "a running pod counts as ready"),
    ignored("startupProbe", "a running pod counts as ready"),
    refused("lifecycle", "hooks aren't run"),
    refused("restartPolicy", "containers aren't restarted in their pod"),
    refused("resizePolicy", "resources aren't limited here", ([],)),
    refused("volumeDevices", "there are no block devices", ([],)),
    refused("stdin", "a pod has no terminal", (False,)),
    refused("stdinOnce", "a pod has no terminal", (False,)),
    refused("tty", "a pod has no terminal", (False,)),
]

VOLUME = [
    translated("name", str),
    translated("persistentVolumeClaim.claimName", str, "claim C is the directory JOBCTL_HOME/volumes/C"),
    ignored("persistentVolumeClaim.readOnly", "processes of one user share one file system"),
    translated("configMap.name", str, "of the same manifest"),
    translated("configMap.items[].key", str),
    translated("configMap.items[].path", str),
    translated("configMap.defaultMode", int, "less the write bits"),
    refused("configMap.items[].mode", "use defaultMode"),
    refused("configMap.optional", "a missing ConfigMap is an error here", (False,)),
    ignored("emptyDir.medium", "a directory on disk; /dev/shm is the machine's"),
    ignored("emptyDir.sizeLimit", "sizes aren't limited"),
    *(
        refused(kind, "use persistentVolumeClaim, configMap or emptyDir")
        for kind in ("hostPath", "secret", "nfs", "csi", "ephemeral", "projected", "downwardAPI", "image", "iscsi")
    ),
]

POD = [
    translated("subdomain", str, "JOB-INDEX.SUBDOMAIN in env values becomes that index's address"),
    translated("restartPolicy", str, only=("Never",)),
    translated(
        "terminationGracePeriodSeconds", int, "SIGTERM to the container's first process, SIGKILL to all after it"
    ),
    translated("serviceAccountName", str, "seen by the downward API only"),
    *below("containers[]", CONTAINER),
    *below("volumes[]", VOLUME),
    ignored("automountServiceAccountToken", "there is no API server to use a token with"),
    ignored("enableServiceLinks", "Services set no variables here"),
    ignored("dnsPolicy", "the machine's name service is used"),
    ignored("imagePullSecrets", "no image is pulled"),
    ignored("os", "the machine's"),
    *(
        ignored(name, "all pods run on this machine, at once")
        for name in [
            "affinity",
            "nodeSelector",
            "tolerations",
            "topologySpreadConstraints",
            "schedulerName",
            "priorityClassName",
            "preemptionPolicy",
            "schedulingGates",
            "runtimeClassName",
            "overhead",
        ]
    ),
    ignored("securityContext", "runs as the user who submits"),
    refused("hostPID", "a pod here sees the machine's processes anyway, but asks for none", (False,)),
    refused("hostIPC", "a pod is told apart from the machine", (False,)),
    refused("hostNetwork", "every pod has its own 127.x.y.z address", (False,)),
    ignored("hostUsers", "runs as the user who submits"),
    refused("shareProcessNamespace", "a pod has one container", (False,)),
    refused("initContainers", "do the work in the container's own command", ([],)),
    refused("ephemeralContainers", "use the machine's debugger", ([],)),
    refused("nodeName", "all pods run on this machine"),
    refused("hostname", "the Job gives its pods their names"),
    refused("setHostnameAsFQDN", "the machine's name can't be changed", (False,)),
    refused("hostAliases", "the machine's name service is used", ([],)),
    refused("dnsConfig", "the machine's name service is used"),
    refused("activeDeadlineSeconds", "set it on the Job"),
    refused("resourceClaims", "devices aren't allocated here", ([],)),
    refused("readinessGates", "a running pod counts as ready", ([],)),
]

FAILURE_RULE = [
    translated("action", str, only=("FailJob", "FailIndex", "Ignore", "Count")),
    translated("onExitCodes.containerName", str),
    translated("onExitCodes.operator", str, only=("In", "NotIn")),
    translated("onExitCodes.values", list),
    translated("onPodConditions[].type", str),
    translated("onPodConditions[].status", str, only=("True", "False", "Unknown")),
]

JOB = [
    *metadata(),
    translated("spec.completionMode", str, only=("Indexed",)),
    translated("spec.completions", int),
    translated("spec.parallelism", int),
    translated("spec.backoffLimit", int),
    translated("spec.backoffLimitPerIndex", int),
    translated("spec.maxFailedIndexes", int),
    translated("spec.activeDeadlineSeconds", int, "not scaled"),
    translated("spec.suspend", bool),
    translated("spec.podReplacementPolicy", str, only=("Failed",)),
    *below("spec.podFailurePolicy.rules[]", FAILURE_RULE),
    translated("spec.successPolicy.rules[].succeededIndexes", str),
    translated("spec.successPolicy.rules[].succeededCount", int),
    ignored("spec.ttlSecondsAfterFinished", "a job stays until `jobctl delete`"),
    refused("spec.selector", "the backend knows its own pods"),
    refused("spec.manualSelector", "the backend knows its own pods", (False,)),
    refused("spec.managedBy", "the local supervisor is the controller", ("kubernetes.io/job-controller",)),
    *below("spec.template", metadata()),
    *below("spec.template.spec", POD),
]

CONFIG_MAP = [
    *metadata(),
    translated("data", dict),
    translated("binaryData", dict),
    ignored("immutable", "a revision's files are written once"),
]

KINDS: dict[tuple[str, str], list[Field]] = {
    ("batch/v1", "Job"): JOB,
    ("v1", "ConfigMap"): CONFIG_MAP,
    ("v1", "Service"): [
        *metadata(),
        translated("spec.clusterIP", str, "headless Services only", only=("None",)),
        ignored("spec", "peers are found by their addresses in env"),
    ],
    ("networking.k8s.io/v1", "NetworkPolicy"): [
        *metadata(),
        ignored("spec", "whoever uses this machine can reach its addresses; members of a group prove a token"),
    ],
    ("v1", "ServiceAccount"): [
        *metadata(),
        ignored("automountServiceAccountToken", "there is no API server to use a token with"),
        ignored("imagePullSecrets", "no image is pulled"),
    ],
}

DIFFERENCES = """\
- The back-off's seconds are multiplied by `JOBCTL_LOCAL_BACKOFF_SCALE` (0.1 unless set); `status` names the factor.
- A container's first process is no PID 1: the kernel doesn't shield it from signals that it has no handler for, so a
  plain `sleep` ends at SIGTERM with 143, where in a container it would be killed after the grace period with 137.
- What a process that ends leaves running is killed with it, as in a container; only the shim in front of it is extra.
- There is no image: `python` is jobctl's interpreter (or `$JOBCTL_WORKER_PYTHON`), every other program the machine's.
  Of jobctl's own environment a pod gets `PATH` and the few names listed below, never the rest.
- Absolute paths and peers' names are rewritten in env values only, never in arguments or files; of the chart's
  manifests in the variables that say where things are, never in what a spec asks for.
- The whole pod is one container; a pod that runs is ready. Nothing limits CPU, memory, GPUs or disk.
- A pod that was evicted stays in the list of pods as Failed with its condition DisruptionTarget; a cluster removes it.
- A pod's log stays after the pod; a cluster forgets it with the pod, so that `jobctl logs` reads there what the worker
  has put on the volume.
- An index has one address (127.x) over all its attempts; a cluster gives every pod a new one, and the name that the
  Service gives it is what stays.
- When the supervisor itself is killed, its pods die within seconds and the job reads as interrupted until it is
  resumed or a new revision is submitted; its pods then count as disrupted, as those of a lost node do.
- A replacement always waits until the pod before it has ended (`podReplacementPolicy: Failed`), also where the field
  is absent.
- Every object lies in one namespace; the Job's finished revisions are kept up to ten, as Helm keeps them."""

ENVIRONMENT = """\
What a spec's `env` says is text: a process sees it as it was typed. Rewritten are the chart's own {wiring}.

`secretEnv: {{NAME: {{secret: S, key: K}}}}` is the content of the file `JOBCTL_HOME/secrets/S/K`, byte for byte, which
nobody but its owner may read (`chmod 600`; `printf %s` writes no line's end); where there is no such file, the variable
NAME of the shell that submits, retries or resumes. The value goes to the job's processes in their environment and is
written nowhere.

A spec is a program: its author runs what they like, in the container on a cluster, as you on this machine. So these are
refused here, whether they stand in a spec or in a team's `jobctl.yaml`, unless you type `--allow-env NAME` with
`submit`, `render` or `retry`; on a cluster they are variables like any other:"""


def markdown() -> str:
    """The tables as a document for users."""
    from jobctl.local.environment import ADDED, GUARDED, INHERITED, WIRING

    lines = [
        "# What the local backend does with each field",
        "",
        "<!-- Written by `python -m jobctl.local.fields`; edit jobctl/local/fields.py instead. -->",
        "",
        "The local backend runs the manifests that the chart renders as processes of one Linux machine. Each field is",
        "translated, ignored, or refused by its name; a field that is in none of these tables is refused as unknown.",
        "",
        "## Where local differs from batch/v1 on purpose",
        "",
        "One suite, tests/conformance, runs against both backends. Its exceptions, and what it can't see:",
        "",
        DIFFERENCES,
        "",
        f"Inherited from jobctl's environment: {', '.join(f'`{name}`' for name in INHERITED)}.",
        f"Added unless the manifest sets it: {', '.join(f'`{name}={value}`' for name, value in ADDED.items())}.",
        "",
        "## The environment",
        "",
        ENVIRONMENT.format(wiring=", ".join(f"`{name}`" for name in WIRING)),
        "",
        "| variable | why it has to be allowed |",
        "|---|---|",
        *(f"| `{name}` | {reason} |" for name, reason in GUARDED.items()),
    ]
    for (api_version, kind), fields in KINDS.items():
        lines += ["", f"## {kind} ({api_version})"]
        for treatment in Treatment:
            rows = [field for field in fields if field.treatment is treatment]
            if rows:
                lines += ["", f"### {treatment.capitalize()}", "", "| field | note |", "|---|---|"]
                lines += [f"| `{field.path}` | {_note(field)} |" for field in rows]
    return "\n".join(lines) + "\n"


def _note(field: Field) -> str:
    if not field.only:
        return field.note
    values = ", ".join(f"`{str(value).lower() if isinstance(value, bool) else value}`" for value in field.only)
    only = f"harmless: {values}" if field.treatment is Treatment.REFUSED else f"only {values}"
    return f"{field.note} ({only})" if field.note else only


if __name__ == "__main__":
    print(markdown(), end="")
