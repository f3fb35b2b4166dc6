"""What a backend can do, and which one a command talks to.

`local` runs the rendered manifests as processes of this machine; `kubernetes` installs them as a Helm release. Both
give Kubernetes-shaped objects back, so that everything above (status.py, cli/) reads one meaning.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from jobctl.errors import UsageError, nearest
from jobctl.untrusted import text

if TYPE_CHECKING:
    from jobctl.volume import VolumeReader

NAMES = ("local", "kubernetes")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True)
class Release:
    """One revision of a job as it is submitted: the values sent, and the objects that the chart rendered from them."""

    name: str
    revision: int
    values: dict[str, Any]
    manifest: list[dict[str, Any]]


@dataclass(frozen=True)
class Record:
    """The newest revision of a job as the backend sees it now.

    `job` and `pods` have the shape of batch/v1 Job and v1 Pod. `controller` says whether something still acts on the
    job: its supervisor process on the local backend, the Job controller on a cluster ("gone" is never said there).
    `doubt` says why the rest can't be relied on, where it can't: it could not be read, or is older than what is so.
    """

    name: str
    revision: int
    values: dict[str, Any]
    job: dict[str, Any]
    pods: list[dict[str, Any]]
    suspended: bool
    cancelled: bool
    controller: Literal["alive", "gone", "finished"]
    created_at: datetime
    doubt: str | None = None


@dataclass(frozen=True)
class LogLine:
    """One line that a replica printed, without its line end."""

    index: int
    pod: str
    text: str


@dataclass(frozen=True)
class Event:
    """Something that happened to a job's objects."""

    time: str  # RFC 3339, when it was last seen
    type: str  # Normal, Warning
    object: str  # Pod/x-r1-0-abcde
    reason: str
    message: str
    count: int


class Backend(Protocol):
    """The verbs that both backends have. Names that no job bears raise NotFoundError everywhere."""

    name: str

    def submit(self, release: Release) -> int:
        """Start it as its revision, which it returns. An older one of the same name is told to end.

        RefusedError comes before any start; it is an OvertakenError where that revision is another call's by now.
        """

    def records(self) -> list[Record]:
        """Every job, its newest revision each."""

    def record(self, name: str) -> Record:
        """The newest revision of one job. Raises NotFoundError."""

    def values(self, name: str) -> dict[str, Any]:
        """The values of the newest revision as they were sent: what retry sends again."""

    def suspend(self, name: str) -> None:
        """Stop its pods (they save first); resume starts them again."""

    def resume(self, name: str) -> None:
        """Undo suspend or cancel."""

    def cancel(self, name: str) -> None:
        """Suspend, and mark as not wanted any more."""

    def delete(self, name: str) -> int:
        """Stop and forget the job; how many of its pods are still ending. What it wrote on its volume stays."""

    def logs(self, name: str, index: int | None, follow: bool) -> Iterator[LogLine]:
        """The lines of one index (None: of all), all attempts, oldest first; `follow` goes on until the job ends."""

    def events(self, name: str) -> list[Event]:
        """What happened to its objects, oldest first."""

    def metrics(self, record: Record) -> list[list[dict[str, Any]]]:
        """The last metrics lines ({time, step, ...}) of each index' newest attempt of this very job that has some,
        oldest first, as far as they can be had at once; of an attempt that has ended the last one alone.
        """

    def reader(
        self, claim: str, record: Record | None, image: str | None = None, patience_seconds: float | None = None
    ) -> VolumeReader:
        """How runs on that claim are read; `record` is the job's, or None where there is none.

        A cluster reads with a pod of the job's image; where that is not known, of `image`. `patience_seconds`: how long
        such a pod may take to start, where the answer is worth no longer wait.
        """

    def wait_for_change(self, name: str, seconds: float) -> None:
        """Return when something about that job may have changed, at the latest after so many seconds."""

    def close(self) -> None:
        """Remove what reading needed. May be called more than once."""


def live(pods: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those pods that run, or may yet."""
    return [pod for pod in pods if (pod.get("status") or {}).get("phase") in ("Pending", "Running")]


def claim_of(values: Mapping[str, Any]) -> str:
    """The claim that these values ask for; the chart's default where they leave it open."""
    return text(values, "volume", "claim") or "shared"


def home_directory(environ: Mapping[str, str]) -> Path:
    """Where the local backend keeps its state and volumes: $JOBCTL_HOME, else ~/.jobctl."""
    return Path(environ.get("JOBCTL_HOME") or Path.home() / ".jobctl").absolute()


def worker_python(environ: Mapping[str, str]) -> str:
    """The interpreter that runs workers on this machine: $JOBCTL_WORKER_PYTHON, else the one that runs jobctl."""
    return environ.get("JOBCTL_WORKER_PYTHON") or sys.executable


def choose(flag: str | None, environ: Mapping[str, str], service_account: Path = SERVICE_ACCOUNT) -> str:
    """The name of the backend: --backend, $JOBCTL_BACKEND, else local only where no cluster is configured at all.

    A cluster that is configured but does not answer must be an error, never a silent run on the laptop.
    """
    asked = flag or environ.get("JOBCTL_BACKEND")
    if asked:
        if asked not in NAMES:
            raise UsageError(f"There is no backend {asked!r}{nearest(asked, NAMES)}.")
        return asked
    return "kubernetes" if service_account.exists() or current_context(environ) else "local"


def current_context(environ: Mapping[str, str]) -> str | None:
    """The current-context as kubectl finds it: the first that a file of $KUBECONFIG, else ~/.kube/config, names."""
    for path in kubeconfig_files(environ):
        context = _context_of(path)
        if context:
            return context
    return None


def kubeconfig_files(environ: Mapping[str, str]) -> list[Path]:
    """The files of $KUBECONFIG, else ~/.kube/config, as kubectl has them; whether they are there or not."""
    listed = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


def _context_of(path: Path) -> str | None:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"The kubeconfig {path} can't be read ({error}): repair it, or say --backend local."
        ) from error
    if "current-context" not in text:  # spares importing yaml in the usual case
        return None
    import yaml

    try:
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except yaml.YAMLError as error:
        raise UsageError(f"The kubeconfig {path} is not YAML: repair it, or say --backend local.") from error
    context = config.get("current-context") if isinstance(config, dict) else None
    return str(context) if context else None
