"""Starts local pods, and hears of their end: what the kubelet is to a node."""

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobctl.local import environment, shim
from jobctl.local.environment import PodIdentity
from jobctl.local.plan import Claim, Container, Files, LocalJob, Volume
from jobctl.untrusted import open_below

TERMINATION_BYTES = 4096
FROM_LOG_BYTES = 2048
_RESET = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPIPE)


@dataclass(frozen=True)
class ShimReport:
    """What a shim said last. `exit_code` None: it only started, or died without a word (then `lost`)."""

    pid: int | None = None
    exit_code: int | None = None
    error: str | None = None
    lost: bool = False


@dataclass
class LivePod:
    """A pod that hasn't ended. `channel` None: it couldn't be started yet. Instants are monotonic seconds."""

    object: dict[str, Any]
    identity: PodIdentity
    directory: Path
    channel: socket.socket | None = None
    shim_pid: int = 0
    retry_at: float = 0.0
    kill_at: float | None = None
    removed: bool = False
    _unread: bytes = field(default=b"", repr=False)

    def terminate(self, grace_seconds: float) -> None:
        """SIGTERM to the container's first process, once; SIGKILL to all of the pod after the grace period."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + grace_seconds
            self.say(b"T")

    def kill(self) -> None:
        self.say(b"K")

    def say(self, command: bytes) -> None:
        with contextlib.suppress(OSError):  # a shim that is gone is seen by its closed socket
            if self.channel is not None:
                self.channel.send(command)

    def listen(self) -> list[ShimReport]:
        """What the shim has said since; the last report may be that it is lost."""
        assert self.channel is not None
        try:
            data = self.channel.recv(65536)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        reports = [_report(json.loads(line)) for line in lines]
        return reports if data else [*reports, ShimReport(lost=True)]

    def close(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None


def _report(message: dict[str, Any]) -> ShimReport:
    return ShimReport(message.get("pid"), message.get("exit_code"), message.get("error"))


def start(
    job: LocalJob, pod: LivePod, addresses: Sequence[str], volumes_root: Path, secrets: Mapping[str, str]
) -> None:
    """Lay out the pod's directory and start its shim. Raises OSError; then it can be tried again.

    secrets: the values of variables that come out of Secrets.
    """
    container = job.template.container
    directories = {
        name: _materialise(volume, pod.directory / "v" / name, volumes_root)
        for name, volume in job.template.volumes.items()
    }
    mounts = environment.mounted_at(container.mounts, directories)
    for mount in container.mounts:
        if mount.sub_path and not isinstance(job.template.volumes[mount.volume], Files):
            (directories[mount.volume] / mount.sub_path).mkdir(parents=True, exist_ok=True)
    mounts[container.termination_path] = pod.directory / "termination-log"
    mounts[container.termination_path].touch()
    variables = environment.environment(job, pod.identity, mounts, addresses, os.environ, secrets)
    variables.setdefault("HOME", str(pod.directory))
    variables.setdefault("HOSTNAME", f"{job.name}-{pod.identity.index}")
    command = environment.command(container, variables, os.environ)
    working = environment.host_path(container.working_dir, mounts) if container.working_dir else str(pod.directory)
    _spawn(pod, [working, *command], variables)


def _materialise(volume: Volume, own: Path, volumes_root: Path) -> Path:
    if isinstance(volume, Claim):
        directory = volumes_root / volume.claim
        directory.mkdir(parents=True, exist_ok=True)
        return directory
    own.mkdir(parents=True, exist_ok=True)
    if isinstance(volume, Files):
        for name, content in volume.files.items():
            path = own / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)  # left by a start that failed half-way
            path.write_bytes(content)
            path.chmod(volume.mode & 0o555)
    return own


def _spawn(pod: LivePod, words: list[str], variables: Mapping[str, str]) -> None:
    ours, theirs = socket.socketpair()
    try:
        os.set_inheritable(theirs.fileno(), True)
        log = str(pod.directory / "log")
        pod.shim_pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", shim.__file__, str(theirs.fileno()), *words],
            variables,
            setsid=True,
            setsigmask=[],
            setsigdef=_RESET,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    pod.channel = ours


def termination_message(container: Container, directory: Path, exit_code: int) -> str:
    """The last 4096 bytes of what the container wrote for its end; the log's end where the manifest asks for that."""
    message = _tail(directory / "termination-log", TERMINATION_BYTES)
    if not message and exit_code != 0 and container.termination_from_log:
        message = "".join(_tail(directory / "log", FROM_LOG_BYTES).splitlines(keepends=True)[-80:])
    return message


def _tail(path: Path, size: int) -> str:
    try:
        with open_below(path.parent, (path.name,)) as file:  # the pod may have put anything in its place
            file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def clean_up(directory: Path) -> None:
    """Remove what lives no longer than the pod: its emptyDirs and config files. Its log stays."""
    shutil.rmtree(directory / "v", ignore_errors=True)
