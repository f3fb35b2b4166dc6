"""A pod's command and environment: downward API, $(VAR) expansion, and the two rewrites that local makes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from jobctl.backend import worker_python
from jobctl.local.plan import Container, LocalJob, Mount

INHERITED = (
    "PATH", "LANG", "LC_ALL", "TZ", "USER", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "SSL_CERT_FILE",
)  # fmt: skip
ADDED = {"PYTHONUNBUFFERED": "1", "JOBCTL_LEASE_SECONDS": "5"}
MACHINE_PATHS = ("/dev/shm",)  # noqa: S108 - left as the machine's, not a file of ours

# Where things are, as the chart tells its pods: in its manifests these alone are rewritten, and what a spec asks for is
# text. A manifest of anybody else is rewritten wherever a path or a peer's name stands.
WIRING = ("JOBCTL_CONFIG", "JOBCTL_VOLUME", "JOBCTL_TMP", "JOBCTL_TERMINATION_LOG", "JOBCTL_STORE")
# Variables that run code, or another program than the one that was meant, as the user of this machine. `*`: any ending.
GUARDED = {
    "PYTHON*": "Python imports and runs what they name",
    "LD_*": "the loader takes libraries from where they say",
    "GCONV_PATH": "the C library loads converters from there",
    "PATH": "programs are looked up there",
    "HOME": "Python imports packages from below it",
    "BROWSER": "a program that is run as soon as something opens a page",
    "BASH_ENV": "bash runs it",
    "ENV": "a shell runs it",
    "CC": "the compiler that torch runs",
    "CXX": "the compiler that torch runs",
    "OPENSSL_*": "OpenSSL loads modules that they name",
    "CUDA_INJECTION*": "CUDA loads the library",
    "NCCL_*PLUGIN": "NCCL loads the library",
    "MPL*": "Matplotlib imports the back end, and runs settings from there",
    "LIBGL_*": "OpenGL loads drivers from there",
    "__EGL_*": "OpenGL loads drivers from there",
    "TORCH*_CACHE*": "torch loads compiled code from there",
    "TRITON_*": "Triton loads compiled code from there",
    "NUMBA_*": "Numba loads compiled code from there",
}

_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z0-9]+)\))")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")


@dataclass(frozen=True)
class PodIdentity:
    """What the downward API knows of a pod before it starts."""

    name: str
    namespace: str
    uid: str
    ip: str
    node: str
    index: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Kubernetes' $(VAR): unknown names stay as they are, $$ is a plain $."""
    return _REFERENCE.sub(
        lambda found: "$" if found[1] is None else variables.get(found[1], found[0]),
        text,
    )


def downward(field_path: str, pod: PodIdentity, service_account: str) -> str:
    """The value of a fieldRef; "" for a label that isn't there, as in a cluster. Raises KeyError for unknown paths."""
    if found := _SUBSCRIPT.fullmatch(field_path):
        return (pod.labels if found[1] == "labels" else pod.annotations).get(found[2], "")
    return {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "spec.nodeName": pod.node,
        "spec.serviceAccountName": service_account,
        "status.podIP": pod.ip,
        "status.podIPs": pod.ip,
        "status.hostIP": pod.ip,
        "status.hostIPs": pod.ip,
    }[field_path]


DOWNWARD_PATHS = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs",
)  # fmt: skip


def is_downward_path(path: str) -> bool:
    return path in DOWNWARD_PATHS or _SUBSCRIPT.fullmatch(path) is not None


def host_path(value: str, mounts: Mapping[str, Path]) -> str:
    """A container path as the machine's, if it is a mount or lies below one (the deepest mount wins)."""
    for mounted in sorted(mounts, key=len, reverse=True):
        if value == mounted or value.startswith(mounted.rstrip("/") + "/"):
            return str(mounts[mounted]) + value[len(mounted.rstrip("/")) :]
    return value


def peer_pattern(job: LocalJob) -> re.Pattern[str] | None:
    """Matches JOB-INDEX.SUBDOMAIN, with or without .NAMESPACE.svc.cluster.local; group 1 is the index."""
    if job.template.subdomain is None:
        return None
    domain = re.escape(job.template.subdomain)
    tail = rf"(?:\.{re.escape(job.namespace)}(?:\.svc(?:\.cluster\.local)?)?)?"
    return re.compile(rf"(?<![-.\w]){re.escape(job.name)}-(\d+)\.{domain}{tail}(?![-.\w])")


def environment(
    job: LocalJob,
    pod: PodIdentity,
    mounts: Mapping[str, Path],
    addresses: Sequence[str],
    base: Mapping[str, str],
    secrets: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """All variables of a container.

    mounts: {container path: path on this machine}, the termination message's path included.
    addresses: of every index. base: jobctl's own environment, of which INHERITED is passed on.
    secrets: the values of variables that come out of Secrets.
    """
    container = job.template.container
    pattern = peer_pattern(job)

    def rewrite(value: str) -> str:
        if pattern is not None:
            value = pattern.sub(
                lambda found: addresses[int(found[1])] if int(found[1]) < len(addresses) else found[0], value
            )
        return host_path(value, mounts)

    declared: dict[str, str] = {}
    for variable in container.env:
        if variable.secret is not None:
            declared[variable.name] = (secrets or {})[variable.name]
        elif variable.field_path is not None:
            declared[variable.name] = downward(variable.field_path, pod, job.template.service_account)
        else:  # what is referred to has been rewritten already
            value = rewrite(variable.value) if variable.is_wired else variable.value
            declared[variable.name] = expand(value, declared)
    declared.setdefault("JOB_COMPLETION_INDEX", str(pod.index))
    inherited = {name: base[name] for name in INHERITED if name in base}
    return {**inherited, **ADDED, **declared}


def guarded_by(name: str) -> str | None:
    """What a variable does on this machine that has to be asked for by name; None for others."""
    patterns = ((pattern, reason) for pattern, reason in GUARDED.items())
    return next((reason for pattern, reason in patterns if fnmatchcase(name, pattern)), None)


def command(container: Container, variables: Mapping[str, str], base: Mapping[str, str]) -> list[str]:
    """The argument list to run. `python` is worker_python."""
    words = [expand(word, variables) for word in (*container.command, *container.args)]
    if words[0] in ("python", "python3"):
        words[0] = worker_python(base)
    return words


def mounted_at(mounts: Sequence[Mount], directories: Mapping[str, Path]) -> dict[str, Path]:
    """{container path: path on this machine} of every mount but those that stay the machine's."""
    return {
        mount.path.rstrip("/"): directories[mount.volume] / mount.sub_path
        for mount in mounts
        if mount.path.rstrip("/") not in MACHINE_PATHS
    }
