"""Reading a run on the shared volume: how far it is, how it ended, what it left. Everything here tolerates half-written
files: workers write while this reads, and nothing is ever locked for a reader. Nothing that lies there is trusted.

`Run` asks a VolumeReader: a directory of this machine here, a short-lived pod on a cluster (jobctl.cluster.reader).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, Self

from jobctl.backend import worker_python
from jobctl.errors import JobctlError, NotFoundError
from jobctl.fetching import Copy, File, check_targets, fetch, files_of
from jobctl.progress import Progress, numbers, progress_of
from jobctl.untrusted import (
    UnreadableError,
    at,
    is_directory_below,
    mapping,
    names_below,
    object_or_none,
    open_below,
    read_object,
    text,
    whole,
    why_unopened,
)

RESULT = "result.json"
MANIFEST = "manifest.json"
MODEL, STATE = "model.safetensors", "state.json"
TAIL_BYTES = 64 * 1024
TAIL_LINES = 64
CHUNK_BYTES = 1024 * 1024
SENTENCE_CHARACTERS = 2000  # of what a worker says about why it failed
_FENCED = re.compile(r"(?P<stem>[A-Za-z0-9_-]{1,64})\.(?P<fence>[0-9]{6,18})")
_NOTHING_THERE = 64  # the exit code of `python -m workers read` and `data` where there is no such run, file or dataset
_PROGRAM = re.compile(r"^python -m workers \w+: ")
_STEP = re.compile(r"step-(?P<step>[0-9]{8,18})")


@dataclass(frozen=True)
class Published:
    """A directory that was published as a whole: its path below runs/NAME, and what its manifest lists."""

    directory: str  # results/run.000001
    files: dict[str, File] | None  # by their paths in it; None where no manifest can be read
    others: tuple[str, ...] = ()  # what its manifest names and no publication has: never fetched

    @classmethod
    def of(cls, directory: str, listed: Any, **more: Any) -> Self:
        """`listed`: what the manifest has under `files`, whatever that is."""
        if not isinstance(listed, dict):
            return cls(directory, None, **more)
        files, others = files_of(listed)
        return cls(directory, files, tuple(others), **more)


@dataclass(frozen=True)
class Result(Published):
    """A published end with its result.json."""

    data: dict[str, Any] = field(default_factory=dict)

    @property
    def exit_code(self) -> int | None:
        code = self.data.get("exitCode")
        return code if isinstance(code, int) else None

    @property
    def reason(self) -> str | None:
        return text(self.data, "reason")

    @property
    def figures(self) -> dict[str, float]:
        return numbers(mapping(self.data, "figures"))

    @property
    def tables(self) -> dict[str, Any]:
        """By their names, as they were published: print_table makes the best of them."""
        return mapping(self.data, "tables")

    @property
    def plots(self) -> list[str]:
        """Paths below runs/NAME."""
        return self._named("plots/*.png")

    @property
    def reports(self) -> list[str]:
        """Paths below runs/NAME, the one for a browser first."""
        return self._named("report.*")

    def _named(self, pattern: str) -> list[str]:
        names = (name for name in sorted(self.files or {}) if PurePosixPath(name).match(pattern))
        return [f"{self.directory}/{name}" for name in names]

    def belongs_to(self, spec_hash: str | None, job_uid: str | None) -> bool:
        """Whether it is the end of this job: 0 holds for every Job with that hash, other codes for that Job alone."""
        if self.data.get("specHash") != spec_hash:
            return False
        return self.exit_code == 0 or self.data.get("jobUid") == job_uid


@dataclass(frozen=True)
class Checkpoint:
    """The newest checkpoint of a training, as its state tells: of the spec that wrote it, what is known."""

    step: int
    spec_hash: str | None
    spec: dict[str, Any] | None

    @classmethod
    def of(cls, found: object) -> Checkpoint | None:
        """From {"step", "specHash", "spec"}; None where that names no step."""
        step = whole(found, "step")
        return None if step is None else cls(step, text(found, "specHash"), mapping(found, "spec") or None)


class VolumeReader(Protocol):
    """How the runs of one volume are read. What can't be read, or is half-written, is left out."""

    def place(self, run: str, path: str = "") -> str:
        """Where it lies, for people."""

    def exists(self, run: str) -> bool:
        """Whether the volume has such a run."""

    def metrics(self, run: str) -> list[list[dict[str, Any]]]:
        """The last lines of each index' newest metrics file, oldest line first."""

    def results(self, run: str) -> list[Result]:
        """Every published end, best first: the run's own, index 0's newest first, then the other indexes'."""

    def attempts(self, run: str) -> list[str]:
        """INDEX.PODUID of every attempt on record."""

    def weights(self, run: str) -> Published | None:
        """The best published weights, else those of the newest checkpoint."""

    def checkpoint(self, run: str) -> Checkpoint | None:
        """The newest checkpoint of a training. Raises JobctlError where the volume can't be read."""

    def read(self, run: str, path: str) -> Generator[bytes, None, None]:
        """A file below runs/NAME, in chunks. Raises NotFoundError where there is none."""

    def ask_worker(self, arguments: Sequence[str]) -> bytes:
        """What `python -m workers ARGUMENTS...` prints beside the volume.

        Raises NotFoundError with its sentence where what was asked for isn't there, JobctlError where it fails.
        """


@dataclass(frozen=True)
class Run:
    """runs/NAME on a volume."""

    volume: VolumeReader
    name: str

    @property
    def place(self) -> str:
        return self.volume.place(self.name)

    def exists(self) -> bool:
        return self.volume.exists(self.name)

    def progress(self, indexes: int = 1) -> Progress | None:
        """From the newest metrics file of each index; None where no line has been written yet.

        `indexes` says how many have a share of their own: the total is known when each has written a line.
        """
        return progress_of(self.volume.metrics(self.name), indexes)

    def results(self) -> list[Result]:
        """Readable results, best first."""
        return self.volume.results(self.name)

    def attempts(self) -> dict[int, int]:
        """How many attempts each index has begun on the volume, over all revisions."""
        counts: dict[int, int] = {}
        for attempt in self.volume.attempts(self.name):
            index = whole(attempt.partition(".")[0])
            if index is not None:
                counts[index] = counts.get(index, 0) + 1
        return counts

    def weights(self) -> Published | None:
        return self.volume.weights(self.name)

    def checkpoint(self) -> Checkpoint | None:
        return self.volume.checkpoint(self.name)

    def place_of(self, path: str) -> str:
        """Where a path below runs/NAME lies, for people."""
        return self.volume.place(self.name, path)

    def copies_of(self, source: Published, target: Path, below: str = "", only: str | None = None) -> list[Copy]:
        """What fetching a published directory (or one file of it) to `target`, below a directory in it, would copy."""
        if source.files is None:
            place = self.place_of(source.directory)
            raise NotFoundError(f"{place} has no readable {MANIFEST}: it was not published completely.")
        return [
            Copy(f"{source.directory}/{name}", target, f"{below}/{name}" if below else name, file)
            for name, file in source.files.items()
            if only in (None, name)
        ]

    def fetch(self, copies: Sequence[Copy], *, force: bool = False) -> list[Path]:
        """Copy and check each against its manifest.

        Raises UsageError, before anything is written, where something is there already (unless `force`) or there is no
        room, and JobctlError naming the file that is missing or not what was published; nothing is left under its
        name then.
        """
        check_targets(copies, force=force)
        return [
            fetch(copy, lambda path=copy.path: self.volume.read(self.name, path), self.place_of(copy.path))  # type: ignore[misc]
            for copy in copies
        ]


@dataclass(frozen=True)
class DirectoryReader:
    """A volume that is a directory of this machine. No link below it is followed, and nothing but files is opened."""

    root: Path

    def place(self, run: str, path: str = "") -> str:
        return str(self.root / "runs" / run / path)

    def exists(self, run: str) -> bool:
        return is_directory_below(self.root, "runs", run)

    def metrics(self, run: str) -> list[list[dict[str, Any]]]:
        newest: dict[str, int] = {}
        for _, stem, fence in self._fenced(run, "metrics", ".jsonl"):
            newest[stem] = max(newest.get(stem, fence), fence)
        return [self._tail(run, index, fence) for index, fence in sorted(newest.items())]

    def metrics_of_attempt(self, run: str, index: int, pod_uid: str) -> list[dict[str, Any]]:
        """The last metrics lines of one attempt, by the lease that its record names; none where it has none yet."""
        fence = whole(self._object(run, "attempts", f"{index}.{pod_uid}.json"), "fence")
        return [] if fence is None else self._tail(run, str(index), fence)

    def results(self, run: str) -> list[Result]:
        found = []
        for name, stem, fence in self._fenced(run, "results"):
            data = self._object(run, "results", name, RESULT)
            if data is not None:
                result = Result.of(f"results/{name}", self._listed(run, "results", name), data=data)
                found.append((stem != "run", stem != "0", -fence, stem, result))
        return [item[-1] for item in sorted(found, key=lambda item: item[:-1])]

    def attempts(self, run: str) -> list[str]:
        names = names_below(self.root, "runs", run, "attempts")
        return [name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")]

    def weights(self, run: str) -> Published | None:
        for kind in ("best", "checkpoints"):
            for _, name in self._steps(run, kind):
                found = Published.of(f"{kind}/{name}", self._listed(run, kind, name))
                if found.files and MODEL in found.files:
                    return found
        return None

    def checkpoint(self, run: str) -> Checkpoint | None:
        for step, name in self._steps(run, "checkpoints"):
            if (state := self._object(run, "checkpoints", name, STATE)) is not None:
                return Checkpoint.of({**state, "step": step})
        return None

    def _steps(self, run: str, kind: str) -> list[tuple[int, str]]:
        """(step, name) of the publications, newest first.

        Those of a writer that woke up after its successor had taken over are passed over, as the workers do.
        """
        adopted = self._adopted(run)
        found = [
            (int(step["step"]), fence, name)
            for name, stem, fence in self._fenced(run, kind)
            if (step := _STEP.fullmatch(stem)) and not _superseded(adopted, int(step["step"]), fence)
        ]
        return [(step, name) for step, _, name in sorted(found, reverse=True)]

    def read(self, run: str, path: str) -> Generator[bytes, None, None]:
        try:
            with open_below(self.root, ("runs", run, *PurePosixPath(path).parts)) as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no {self.place(run, path)}.") from error
        except OSError as error:
            raise JobctlError(f"{self.place(run, path)} can't be read: {why_unopened(error)}.") from error

    def ask_worker(self, arguments: Sequence[str]) -> bytes:
        import os
        import subprocess

        command = [worker_python(os.environ), "-m", "workers", *arguments]
        environ = {**os.environ, "JOBCTL_VOLUME": str(self.root)}
        # Python looks for modules where it is started, too: not in a directory that somebody else may have filled
        done = subprocess.run(command, capture_output=True, check=False, env=environ, cwd="/")
        if done.returncode != 0:
            raise failure_of(done.returncode, done.stderr, str(self.root))
        return done.stdout

    def _object(self, run: str, *parts: str) -> dict[str, Any] | None:
        try:
            return read_object(self.root, "runs", run, *parts)
        except (UnreadableError, OSError):
            return None

    def _listed(self, run: str, *directory: str) -> Any:
        """What a publication's manifest lists."""
        return at(self._object(run, *directory, MANIFEST), "files")

    def _tail(self, run: str, index: str, fence: int) -> list[dict[str, Any]]:
        """The last whole lines of a metrics file that are objects; a torn last line is left out."""
        try:
            with open_below(self.root, ("runs", run, "metrics", f"{index}.{fence:06d}.jsonl")) as file:
                size = file.seek(0, 2)
                file.seek(max(0, size - TAIL_BYTES))
                lines = file.read(TAIL_BYTES).splitlines()[-TAIL_LINES:]
        except OSError:
            return []
        return [line for line in map(object_or_none, lines) if line is not None]

    def _fenced(self, run: str, directory: str, suffix: str = "") -> list[tuple[str, str, int]]:
        """(name, stem, fence) of the entries named STEM.FENCE + suffix; temporaries begin with a dot."""
        names = names_below(self.root, "runs", run, directory)
        matches = [(name, _FENCED.fullmatch(name.removesuffix(suffix))) for name in names if name.endswith(suffix)]
        return [(name, match["stem"], int(match["fence"])) for name, match in matches if match and name[0] != "."]

    def _adopted(self, run: str) -> list[tuple[int, int | None]]:
        """(lease, step that it went on from, or None for nothing) of the leases that began to publish."""
        numbered = [name for name in names_below(self.root, "runs", run, "lease", "0") if whole(name) is not None]
        found = ((int(name), mapping(self._object(run, "lease", "0", name), "adopted")) for name in numbered)
        return [(number, whole(adopted, "step")) for number, adopted in found if adopted]


def _superseded(adopted: Sequence[tuple[int, int | None]], step: int, fence: int) -> bool:
    """Whether a later lease went on from before `step`."""
    return any(fence < number and (limit is None or step > limit) for number, limit in adopted)


def failure_of(exit_code: int, complaint: bytes, place: str) -> JobctlError:
    """What a `python -m workers` that failed is told as: NotFoundError where there is nothing of what was asked for.

    complaint: its stderr, which ends with one sentence behind its own name.
    """
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    said = _PROGRAM.sub("", lines[-1])[:SENTENCE_CHARACTERS] if lines else "it said nothing"
    if exit_code == _NOTHING_THERE:
        return NotFoundError(said)
    return JobctlError(f"Reading {place} failed (exit code {exit_code}): {said}")
