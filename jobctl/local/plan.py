"""What translate.py makes of a manifest: one Indexed Job, ready to be run as processes.

Named tuples: eight dataclasses would take longer to make than all other modules of a translation take to load.
"""

from typing import NamedTuple

from jobctl.local.rules import FailureRule, SuccessRule


class EnvVar(NamedTuple):
    """A container's variable: a plain value, the downward API's path to one, or where a secret one lies.

    `is_wired`: whether it says where something is, so that paths and names of peers in it are the machine's here.
    """

    name: str
    value: str = ""
    field_path: str | None = None
    secret: tuple[str, str] | None = None  # a Secret's name, and the key in it
    is_wired: bool = True


class Claim(NamedTuple):
    """A PersistentVolumeClaim: a directory of JOBCTL_HOME/volumes that outlives every job."""

    claim: str


class Files(NamedTuple):
    """A ConfigMap: read-only files, {relative path: content}, and their permission bits."""

    files: dict[str, bytes]
    mode: int = 0o644


class Scratch(NamedTuple):
    """An emptyDir: lives and dies with the pod."""


Volume = Claim | Files | Scratch


class Mount(NamedTuple):
    """Where a container sees a volume."""

    volume: str
    path: str
    sub_path: str = ""


class Container(NamedTuple):
    name: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    mounts: tuple[Mount, ...] = ()
    working_dir: str | None = None
    termination_path: str = "/dev/termination-log"
    termination_from_log: bool = False


class PodTemplate(NamedTuple):
    container: Container
    labels: dict[str, str]
    annotations: dict[str, str]
    volumes: dict[str, Volume]
    subdomain: str | None = None
    service_account: str = "default"
    grace_seconds: float = 30.0


class LocalJob(NamedTuple):
    """One Indexed Job. The limits that are None are not set; exactly one back-off limit is."""

    name: str
    namespace: str
    completions: int
    parallelism: int
    template: PodTemplate
    backoff_limit: int | None = 6
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    failure_rules: tuple[FailureRule, ...] = ()
    success_rules: tuple[SuccessRule, ...] = ()
    suspend: bool = False
    active_deadline_seconds: float | None = None
