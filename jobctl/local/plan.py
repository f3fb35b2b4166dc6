"""What translate.py makes of a manifest: one Indexed Job, ready to be run as processes."""

from dataclasses import dataclass, field

from jobctl.local.rules import FailureRule, SuccessRule


@dataclass(frozen=True)
class EnvVar:
    """A container's variable: a plain value, or the downward API's path to one."""

    name: str
    value: str = ""
    field_path: str | None = None


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim: a directory of JOBCTL_HOME/volumes that outlives every job."""

    claim: str


@dataclass(frozen=True)
class Files:
    """A ConfigMap: read-only files, {relative path: content}, and their permission bits."""

    files: dict[str, bytes]
    mode: int = 0o644


@dataclass(frozen=True)
class Scratch:
    """An emptyDir: lives and dies with the pod."""


Volume = Claim | Files | Scratch


@dataclass(frozen=True)
class Mount:
    """Where a container sees a volume."""

    volume: str
    path: str
    sub_path: str = ""


@dataclass(frozen=True)
class Container:
    name: str
    command: tuple[str, ...]
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    mounts: tuple[Mount, ...] = ()
    working_dir: str | None = None
    termination_path: str = "/dev/termination-log"
    termination_from_log: bool = False


@dataclass(frozen=True)
class PodTemplate:
    container: Container
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    subdomain: str | None = None
    service_account: str = "default"
    grace_seconds: float = 30.0


@dataclass(frozen=True)
class LocalJob:
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
