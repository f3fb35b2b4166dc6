"""What the kubelet is to one pod: starts the container's process, and leaves nothing of it behind.

    python -I -S shim.py FD DIRECTORY COMMAND...

FD is a socket to the supervisor. On it the supervisor writes T (SIGTERM to the container's first process) and K
(SIGKILL to all of the pod); the shim writes JSON lines: {"pid": n}, then {"exit_code": n, "signal": n, "error": text}.
When the socket closes, the supervisor is dead: all of the pod is killed. The shim is a subreaper: descendants that
start sessions of their own or lose their parent come back to it. It imports little, and nothing but the standard
library: every pod waits for it.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
START_ERROR = 128  # what container runtimes report where the program can't be started

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def children() -> list[int]:
    """The direct children of this process. A child's number can't be reused before it is waited for."""
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children") as file:  # noqa: PTH123 - pathlib is slow to import
            return [int(pid) for pid in file.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [int(pid) for pid in os.listdir("/proc") if pid.isdigit() and _parent(pid) == me]  # noqa: PTH208


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return int(file.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_children() -> bool:
    """Certain, where the list of children may miss one that is just being handed over."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def reap() -> dict[int, int]:
    """Wait for every child that has ended: {pid: exit status as waitpid gives it}."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def kill_all(spare: frozenset[int] = frozenset()) -> dict[int, int]:
    """Kill all descendants but those in `spare`, and wait for them.

    Only direct children are signalled: their numbers are certain, and orphans come to this subreaper one by one.
    """
    ended: dict[int, int] = {}
    pause = 0.001
    while (victims := [pid for pid in children() if pid not in spare]) or (not spare and has_children()):
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended.update(reap())
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    ended.update(reap())
    return ended


def start(command: list[str]) -> int:
    """Fork and exec the container's process in a session of its own. Raises OSError if the program can't be run."""
    reader, writer = os.pipe()
    shim = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != shim:
                os._exit(START_ERROR)
            for number in (
                signal.SIGPIPE,
                signal.SIGXFSZ,
                signal.SIGTERM,
                signal.SIGINT,
                signal.SIGHUP,
                signal.SIGCHLD,
            ):
                signal.signal(number, signal.SIG_DFL)
            os.execvpe(command[0], command, os.environ)  # noqa: S606 - running it is what a pod is for
        except OSError as error:
            os.write(writer, str(error.errno).encode())
        os._exit(START_ERROR)
    os.close(writer)
    failed = os.read(reader, 16)
    os.close(reader)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)), command[0])
    return pid


def tell(fd: int, **message: object) -> None:
    with contextlib.suppress(OSError):  # a dead supervisor is noticed when the socket is read
        os.write(fd, json.dumps(message).encode() + b"\n")


def supervise(fd: int, pid: int) -> int | None:
    """Wait for the container's process: its exit status, or None when the supervisor is dead."""
    wake, waker = os.pipe()
    for end in (wake, waker):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: _signal(pid, signal.SIGTERM))
    while True:
        ended = reap()
        if pid in ended:
            return ended[pid]
        for ready in select.select([fd, wake], [], [])[0]:
            data = _read(ready)
            if ready == wake:
                continue
            if not data:
                return None
            if b"T" in data:
                _signal(pid, signal.SIGTERM)
            if b"K" in data:
                status = kill_all().get(pid)
                return signal.SIGKILL if status is None else status


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 64)
    except ConnectionResetError:  # the supervisor died with a message unread
        return b""


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def main(argv: list[str]) -> int:
    fd, directory, command = int(argv[1]), argv[2], argv[3:]
    os.set_inheritable(fd, False)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        os.chdir(directory)
        pid = start(command)
    except OSError as error:
        tell(fd, exit_code=START_ERROR, signal=None, error=f"{error.strerror}: {error.filename}")
        return 0
    tell(fd, pid=pid)
    status = supervise(fd, pid)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    kill_all()
    if status is not None:
        code = os.waitstatus_to_exitcode(status)
        tell(fd, exit_code=code if code >= 0 else 128 - code, signal=-code if code < 0 else None, error=None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
