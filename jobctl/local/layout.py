"""Where a revision's files lie.

HOME/local/NAME/r3-1a2b3c4d/        one revision of a job (its number, the Job's uid)
    release.json                    what was submitted
    status.json                     what the supervisor says: the one file that a reader needs
    pulse.json                      that it still says so
    control/TIME-RANDOM.json        commands to the supervisor, gone once they are carried out
    deleted                         there: the job is deleted, the rest goes as soon as its pods have ended
    pods/0000/{attempt.json, ended, log, termination-log, v/VOLUME/}    attempts in order of their start
    supervisor.log
HOME/volumes/CLAIM/                 claims; no job's end touches them
HOME/secrets/SECRET/KEY             what a spec's secretEnv means here; the user's own files
HOME itself is for its owner alone (0700), and so are release.json, status.json and what lies in control/.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobctl.local.state import write_json
from jobctl.untrusted import UnreadableError, read_object

RELEASE = "release.json"
STATUS = "status.json"
VERBS_OF_END = ("delete", "supersede")
_REVISION = re.compile(r"r(?P<revision>[0-9]{1,9})-[0-9a-f]+")


def jobs_directory(home: Path) -> Path:
    """Where every job has a directory of its name."""
    return home / "local"


def make_private(home: Path) -> None:
    """Make the home, or take it from everybody else's eyes: what a job was given in its environment lies there."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = home.stat().st_mode & 0o777
    if mode & 0o077:
        with contextlib.suppress(PermissionError):  # it is somebody else's, who lets us write there
            home.chmod(mode & 0o700)


def revisions_of(home_jobs: Path, name: str) -> list["RevisionDir"]:
    """Every revision's directory of this name, by number; what else lies there is passed over."""
    found = [RevisionDir(path) for path in (home_jobs / name).glob("r*-*") if _REVISION.fullmatch(path.name)]
    return sorted(found, key=lambda directory: directory.revision)


def may_be_known(home: Path, name: str) -> bool:
    """Whether there is anything of this name to look at: spares loading the backend where there is not."""
    return (jobs_directory(home) / name).exists()


class RevisionDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.release = path / RELEASE
        self.status = path / STATUS
        self.control = path / "control"
        self.deleted = path / "deleted"
        self.pods = path / "pods"
        self.log = path / "supervisor.log"
        self.home = path.parents[2]
        self.volumes = self.home / "volumes"

    def __repr__(self) -> str:
        return f"RevisionDir({self.path})"

    @property
    def revision(self) -> int:
        match = _REVISION.fullmatch(self.path.name)
        return int(match["revision"]) if match else 0

    @property
    def attempts(self) -> list[Path]:
        """The directories of its attempts, in order of their start."""
        numbered = [path for path in self.pods.glob("[0-9]*") if path.name.isdecimal()]
        return sorted(numbered, key=lambda path: int(path.name))

    @property
    def is_given_up(self) -> bool:
        """Whether the job was deleted: marked so, or already gone. Not where the whole home is away for a moment."""
        if os.path.lexists(self.deleted):
            return True
        return self.is_gone and self.path.parents[1].is_dir()

    @property
    def is_gone(self) -> bool:
        try:
            self.path.stat()
        except FileNotFoundError:
            return True
        except OSError:  # nobody knows
            pass
        return False

    def pod(self, attempt: int) -> Path:
        return self.pods / f"{attempt:04d}"

    def add_attempt(self, directory: Path, index: int, pod: str) -> None:
        """Raises OSError; may be called again."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "log").touch()
        write_json(directory / "attempt.json", {"index": index, "pod": pod})

    def end_attempt(self, directory: Path) -> None:
        """A hint to readers of the log that nothing will follow: not worth failing for."""
        with contextlib.suppress(OSError):
            (directory / "ended").touch()

    def command(self, verb: str, **arguments: Any) -> Path:
        """Leave a command for the supervisor. Raises OSError."""
        self.control.mkdir(exist_ok=True)
        path = self.control / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.json"
        write_json(path, {"verb": verb, **arguments})
        return path

    def commands(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Commands in order of their time; one that can't be read is passed over."""
        try:
            names = sorted(entry.name for entry in os.scandir(self.control) if entry.name.endswith(".json"))
        except FileNotFoundError:
            return
        for name in names:
            if not name.startswith("."):
                with contextlib.suppress(FileNotFoundError, UnreadableError):
                    yield self.control / name, read_object(self.control, name)

    def drop_commands(self, handled: set[str]) -> None:
        for name in sorted(handled):
            with contextlib.suppress(OSError):  # one that stays is remembered as handled
                (self.control / name).unlink(missing_ok=True)
                handled.discard(name)

    def remove(self) -> None:
        """Remove the revision, and the job's directory with the last of them. Volumes stay.

        Under another name first: whoever still writes there must not bring it back.
        """
        gone = self.path.with_name(f".{self.path.name}")
        with contextlib.suppress(OSError):
            self.path.rename(gone)
        for path in (self.path, gone):
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # another revision is there, or was made just now
            self.path.parent.rmdir()
