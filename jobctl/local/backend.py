"""LocalBackend: submits to, asks and commands the supervisors of this machine's jobs."""

import contextlib
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import jobctl
from jobctl.backend import Event, LogLine, Record, Release, claim_of, live
from jobctl.errors import JobctlError, NotFoundError, OvertakenError, RefusedError, UsageError, nearest
from jobctl.local import kubelet, logs, pods
from jobctl.local.job_object import CANCELLED, apply_verb
from jobctl.local.layout import RevisionDir, jobs_directory, make_private, revisions_of
from jobctl.local.pulse import Pulse
from jobctl.local.saved import read_status
from jobctl.local.secrets import read_secrets
from jobctl.local.state import Identity, locked, timestamp, write_json
from jobctl.local.translate import translate
from jobctl.objects import by_index, completions_of, parse_time, phase_of, true_conditions
from jobctl.untrusted import UnreadableError, at, mapping, mappings, read_object, text, whole
from jobctl.volume import DirectoryReader

DEFAULT_BACKOFF_SCALE = 0.1
ANSWER_SECONDS = 5.0  # how long a command waits for the supervisor to carry it out
START_SECONDS = 30.0
POLL_SECONDS = 0.1
ATTEMPTS_ASKED = 5  # of an index, newest first, for how far it is
KEPT_REVISIONS = 10  # as Helm keeps them

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,51}[a-z0-9])?")  # as Helm's release names: at most 53 characters


class LocalBackend:
    """Runs jobs as processes of this machine; all state lies below `home` ($JOBCTL_HOME)."""

    name = "local"

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self._jobs = jobs_directory(self.home)

    # ---- Backend

    def submit(self, release: Release) -> int:
        """Start a revision; older ones of its name are told to end, side by side with the new one's start.

        Raises RefusedError for what can't be run here, OvertakenError where such a revision or a newer one exists,
        JobctlError if it can't be started.
        """
        if not _NAME.fullmatch(release.name):
            raise UsageError(f"{release.name!r} is no name for a job: lower-case letters, digits and '-', at most 53.")
        job = translate(release.manifest)
        read_secrets(job, self.home, os.environ)
        scale = backoff_scale()
        try:
            make_private(self.home)
            with self._lock():
                self._sweep(release.name)
                older = self._revisions(release.name)
                if older and older[-1].revision >= release.revision:
                    raise OvertakenError(
                        f"Job {release.name} has revision {older[-1].revision} already; "
                        f"revision {release.revision} would not be newer. Look at `jobctl status {release.name}`."
                    )
                job_uid = str(uuid.uuid4())
                directory = RevisionDir(self._jobs / release.name / f"r{release.revision}-{job_uid[:8]}")
                self._create(directory, release, job_uid, scale)
                for old in older:
                    self._send(old, "supersede")
        except OSError as error:
            raise JobctlError(f"Job {job.name} can't be started: {error}. Nothing of it runs.") from error
        return release.revision

    def records(self) -> list[Record]:
        """Every job's newest revision, by name."""
        names = sorted(entry.name for entry in self._jobs.iterdir() if entry.is_dir()) if self._jobs.exists() else []
        found = []
        for name in names:
            with contextlib.suppress(NotFoundError):  # deleted since
                found.append(self.record(name))
        return found

    def record(self, name: str) -> Record:
        return _record(self._newest(name))

    def values(self, name: str) -> dict[str, Any]:
        record = self.record(name)
        if record.doubt is not None and not record.values:
            raise RefusedError(f"What job {name} was submitted with can't be read: submit it again from its spec.")
        return record.values

    def suspend(self, name: str) -> None:
        self._change(name, "suspend")

    def resume(self, name: str) -> None:
        """Undo suspend or cancel; a job whose supervisor was killed gets a new one and goes on."""
        self._change(name, "resume")

    def cancel(self, name: str) -> None:
        self._change(name, "cancel")

    def delete(self, name: str) -> int:
        """Forget the job at once; its pods get their grace period: how many still live. Volumes stay."""
        with self._lock():
            directories = self._revisions(name)
            if not directories:
                raise self._not_found(name)
            ending = 0
            for directory in directories:
                ending += _living(directory)
                directory.deleted.touch()
                with contextlib.suppress(FileNotFoundError):  # its supervisor has seen the mark already
                    self._send(directory, "delete")
            self._sweep(name)
        return ending

    def logs(self, name: str, index: int | None, follow: bool) -> Iterator[LogLine]:
        """Lines of all attempts of all kept revisions, oldest first. Follows until the newest revision has ended."""
        completions = completions_of(self.record(name).job)
        if index is not None and not 0 <= index < completions:
            raise NotFoundError(f"Job {name} has no replica {index}, only 0 to {completions - 1}.")
        return logs.stream(lambda: self._revisions(name), index, follow, lambda: self._may_write(name))

    def volume(self, claim: str) -> Path:
        """The directory that the claim of this name is."""
        return self.home / "volumes" / claim

    def events(self, name: str) -> list[Event]:
        """What the supervisor did, told from the pods: it keeps no record of events beside them."""
        record = self.record(name)
        found = [
            Event(text(condition, "lastTransitionTime") or "", "Warning", f"Pod/{text(pod, 'metadata', 'name')}",
                  text(condition, "reason") or "", text(condition, "message") or "", 1)
            for pod in record.pods
            for condition in mappings(pod, "status", "conditions")
            if condition.get("type") == "DisruptionTarget"
        ]  # fmt: skip
        return sorted(found, key=lambda event: event.time)

    def metrics(self, record: Record) -> list[list[dict[str, Any]]]:
        reader = self.reader(claim_of(record.values), record)
        tails = (_tail(reader, record.name, index, of) for index, of in sorted(by_index(record.pods).items()))
        return [tail for tail in tails if tail]

    def reader(
        self, claim: str, record: Record | None, image: str | None = None, patience_seconds: float | None = None
    ) -> DirectoryReader:
        return DirectoryReader(self.volume(claim))

    def wait_for_change(self, name: str, seconds: float) -> None:
        time.sleep(min(seconds, POLL_SECONDS))

    def close(self) -> None:
        """Nothing is held."""

    def evict(self, name: str, index: int) -> None:
        """Disrupt an index's pod as the eviction API does: condition DisruptionTarget, then SIGTERM."""
        record = self.record(name)
        if not any(map(pods.is_live, by_index(record.pods).get(index, []))):
            raise NotFoundError(f"Job {name} has no pod of index {index} that could be evicted.")
        self._command(self._newest(name), "evict", index=index)

    def supervisor_pid(self, name: str) -> int | None:
        """The process that controls the newest revision, None if it has ended or was killed."""
        supervisor = _supervisor(self._newest(name))
        return None if supervisor is None else supervisor.pid

    # ---- revisions on disk

    def _lock(self) -> contextlib.AbstractContextManager[None]:
        return locked(self._jobs / ".lock")

    def _revisions(self, name: str) -> list[RevisionDir]:
        """Those that were really started and aren't deleted, oldest first."""
        if not _NAME.fullmatch(name):
            return []
        found = revisions_of(self._jobs, name)
        return [one for one in found if os.path.lexists(one.status) and not os.path.lexists(one.deleted)]

    def _newest(self, name: str) -> RevisionDir:
        revisions = self._revisions(name)
        if not revisions:
            raise self._not_found(name)
        return revisions[-1]

    def _not_found(self, name: str) -> NotFoundError:
        known = [path.name for path in self._jobs.glob("*") if self._revisions(path.name)]
        hint = nearest(name, known) if known else " (there are no jobs)"
        return NotFoundError(f"There is no job {name!r} on this machine{hint}.")

    def _sweep(self, name: str) -> None:
        """Under the lock: remove what dead supervisors left, and revisions beyond those that are kept."""
        found = revisions_of(self._jobs, name)
        for position, directory in enumerate(found):
            if _supervisor(directory) is not None:
                continue
            old = position < len(found) - KEPT_REVISIONS
            if old or os.path.lexists(directory.deleted) or not os.path.lexists(directory.status):
                directory.remove()
            else:
                for pod in directory.pods.glob("*"):
                    kubelet.clean_up(pod)

    def _create(self, directory: RevisionDir, release: Release, job_uid: str, scale: float) -> None:
        directory.path.mkdir(parents=True)
        try:
            document = {
                "name": release.name,
                "revision": release.revision,
                "values": release.values,
                "manifest": release.manifest,
                "job_uid": job_uid,
                "created_at": timestamp(),
                "backoff_scale": scale,
            }
            write_json(directory.release, document)
            start_supervisor(directory)
        except BaseException:
            shutil.rmtree(directory.path, ignore_errors=True)
            raise

    # ---- commands

    def _change(self, name: str, verb: Literal["suspend", "resume", "cancel"]) -> None:
        directory = self._newest(name)
        record = _record(directory)
        if record.controller == "finished":
            raise RefusedError(
                f"Job {name} has ended: there is nothing to {verb}. `jobctl retry {name}` runs it again."
            )
        if record.doubt is not None and record.controller == "gone":
            raise RefusedError(
                f"Job {name}: {record.doubt}. `jobctl retry {name}` starts it again, `jobctl delete {name}` forgets it."
            )
        self._command(directory, verb)

    def _command(self, directory: RevisionDir, verb: str, **arguments: Any) -> None:
        """Have the supervisor do it and wait until it is done. Without a supervisor it is done here."""
        if _supervisor(directory) is None:
            with self._lock():
                if _supervisor(directory) is None:
                    self._do_instead(directory, verb)
                    return
        path = self._send(directory, verb, **arguments)
        deadline = time.monotonic() + ANSWER_SECONDS
        while path is not None and path.exists() and time.monotonic() < deadline:
            if _supervisor(directory) is None:
                return
            time.sleep(0.005)

    def _do_instead(self, directory: RevisionDir, verb: str) -> None:
        status = read_status(directory.path)
        if _ended(status["job"]):
            return
        if verb != "evict":
            apply_verb(status["job"], verb)
            write_json(directory.status, status)
        if verb == "resume":
            start_supervisor(directory)

    def _send(self, directory: RevisionDir, verb: str, **arguments: Any) -> Path | None:
        """Leave a command and wake the supervisor up. None where there is no supervisor to read it."""
        supervisor = _supervisor(directory)
        if supervisor is None:
            return None
        path = directory.command(verb, **arguments)
        with contextlib.suppress(ProcessLookupError):
            os.kill(supervisor.pid, signal.SIGUSR1)
        return path

    def _may_write(self, name: str) -> bool:
        """Whether a log may still grow. That of a cancelled job doesn't, once its pods have ended."""
        try:
            record = self.record(name)
        except NotFoundError:
            return False
        pods_left = sum(whole(record.job, "status", key) or 0 for key in ("active", "terminating"))
        return record.controller == "alive" and not (record.cancelled and pods_left == 0)


def backoff_scale() -> float:
    """$JOBCTL_LOCAL_BACKOFF_SCALE. Raises UsageError unless it is a number of 0 or more."""
    text = os.environ.get("JOBCTL_LOCAL_BACKOFF_SCALE", str(DEFAULT_BACKOFF_SCALE))
    try:
        scale = float(text)
    except ValueError:
        scale = -1.0
    if not 0 <= scale < float("inf"):
        raise UsageError(f"JOBCTL_LOCAL_BACKOFF_SCALE must be a number of 0 or more, not {text!r}.")
    return scale


def start_supervisor(directory: RevisionDir) -> None:
    """Start it detached and wait until its state is on disk. Raises JobctlError with what it said, or OSError."""
    reader, writer = os.pipe()
    package_root = str(Path(jobctl.__file__).parents[1])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        with directory.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "jobctl.local.supervisor", str(directory.path), str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=[writer],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
    finally:
        os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            heard = select.select([pipe], [], [], START_SECONDS)[0]
            said = pipe.read().decode(errors="replace") if heard else f"no answer within {START_SECONDS:g} s"
        process.wait(START_SECONDS)  # what we started only forks; the supervisor itself lives on
    except BaseException:  # Ctrl-C above all: what isn't known to run must not run
        _kill_session(process.pid)
        raise
    if said != "ready":
        _kill_session(process.pid)
        raise JobctlError(f"The local supervisor did not start: {said.removeprefix('failed: ') or 'it died'}.")


def _kill_session(leader: int) -> None:
    """Kill a supervisor that was being started; its shims end their pods."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _supervisor(directory: RevisionDir) -> Identity | None:
    """The living supervisor of a revision, as its pulse or its status tells; None where neither does."""
    pulse = Pulse.read(directory.path)
    if pulse and pulse.supervisor and pulse.supervisor.alive:
        return pulse.supervisor
    try:
        identity = Identity.from_dict(read_object(directory.path, directory.status.name).get("supervisor"))
    except (UnreadableError, FileNotFoundError):
        return None
    return identity if identity and identity.alive else None


def _ended(job: dict[str, Any]) -> bool:
    return bool(true_conditions(job).keys() & {"Complete", "Failed"})


def _record(directory: RevisionDir) -> Record:
    name, pulse = directory.path.parent.name, Pulse.read(directory.path)  # before the status: that is as new, or newer
    living = pulse.supervisor if pulse and pulse.supervisor and pulse.supervisor.alive else None
    try:
        status = read_status(directory.path)
    except FileNotFoundError as error:  # deleted since it was listed
        raise NotFoundError(f"There is no job {name!r} on this machine.") from error
    except UnreadableError as error:
        return _unreadable(directory, f"{directory.status} can't be used: {error}", living)
    job, found = status["job"], status["pods"]
    controller: Literal["alive", "gone", "finished"] = "alive"
    doubt = None
    if _ended(job):
        controller = "finished"
    elif living is not None and pulse is not None:
        doubt = pulse.doubt(status)
    elif (saved := Identity.from_dict(status.get("supervisor"))) is None or not saved.alive:
        controller = "gone"
        _tell_truth(job, found)
    return Record(
        name=name,
        revision=directory.revision,
        values=status["values"],
        job=job,
        pods=found,
        suspended=bool(job["spec"].get("suspend")),
        cancelled=at(job, "metadata", "annotations", CANCELLED) is not None,
        controller=controller,
        created_at=parse_time(status["created_at"]) or _made_at(directory),
        doubt=doubt,
    )


def _living(directory: RevisionDir) -> int:
    """How many of its pods live, as far as that can be read: it is deleted all the same."""
    try:
        return len(live(_record(directory).pods))
    except NotFoundError:
        return 0


def _unreadable(directory: RevisionDir, doubt: str, supervisor: Identity | None) -> Record:
    """A job of which only what was submitted is known, if that."""
    try:
        release = read_object(directory.path, directory.release.name)
    except (UnreadableError, FileNotFoundError):
        release = {}
    job = next((one for one in mappings(release, "manifest") if one.get("kind") == "Job"), {})
    return Record(
        name=directory.path.parent.name,
        revision=directory.revision,
        values=mapping(release, "values"),
        job=job,
        pods=[],
        suspended=False,
        cancelled=False,
        controller="gone" if supervisor is None else "alive",
        created_at=parse_time(release.get("created_at")) or _made_at(directory),
        doubt=doubt,
    )


def _made_at(directory: RevisionDir) -> datetime:
    try:
        return datetime.fromtimestamp(directory.path.stat().st_mtime, UTC)
    except OSError:
        return datetime.now(UTC)


def _tail(reader: DirectoryReader, run: str, index: int, attempts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last metrics lines of an index' newest attempt that has some. One that has ended gives no rate: its last."""
    for pod in reversed(attempts[-ATTEMPTS_ASKED:]):
        uid = text(pod, "metadata", "uid")
        lines = reader.metrics_of_attempt(run, index, uid) if uid else []
        if lines:
            return lines if pod is attempts[-1] and phase_of(pod) == "Running" else lines[-1:]
    return []


def _tell_truth(job: dict[str, Any], found: list[dict[str, Any]]) -> None:
    """Nothing of a job without a supervisor runs, whatever it wrote last."""
    for pod in found:
        pods.set_lost(pod, "The supervisor of this pod was killed.")
    job["status"].update(active=0, ready=0, terminating=0)
