"""Reading a run on the shared volume: how far it is, how it ended, what it left. Everything here tolerates half-written
files: workers write while this reads, and nothing is ever locked for a reader.

`Run` asks a VolumeReader: a directory of this machine here, a short-lived pod on a cluster (jobctl.cluster.reader).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from jobctl.backend import worker_python
from jobctl.errors import JobctlError, NotFoundError

RESULT = "result.json"
MANIFEST = "manifest.json"
MODEL = "model.safetensors"
TAIL_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024
RATE_LINES = 12  # lines of a metrics file that the rate is taken over
_FENCED = re.compile(r"(?P<stem>.+)\.(?P<fence>\d{6,})")
_NOTHING_THERE = 64  # the exit code of `python -m workers read` and `data` where there is no such run, file or dataset
_PROGRAM = re.compile(r"^python -m workers \w+: ")
_STEP = re.compile(r"step-(?P<step>\d{8,})")


@dataclass(frozen=True)
class Progress:
    """The newest figures of a run: `step` counts optimizer steps (train) or episodes (collect, eval) of all indexes."""

    step: int
    steps: int | None
    steps_per_second: float | None
    eta_seconds: float | None
    updated_unix_seconds: float | None
    figures: dict[str, float]  # those of the newest line


@dataclass(frozen=True)
class Published:
    """A directory that was published as a whole: its path below runs/NAME, and what its manifest lists."""

    directory: str  # results/run.000001
    files: dict[str, dict[str, Any]] | None  # path in it → {bytes, sha256}; None where no manifest can be read


@dataclass(frozen=True)
class Result(Published):
    """A published end with its result.json."""

    data: dict[str, Any]

    @property
    def exit_code(self) -> int | None:
        code = self.data.get("exitCode")
        return code if isinstance(code, int) else None

    @property
    def figures(self) -> dict[str, float]:
        figures = self.data.get("figures")
        return _numbers(figures) if isinstance(figures, dict) else {}

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
    def of(cls, document: dict[str, Any]) -> Checkpoint | None:
        """From what `python -m workers read RUN` says; None where the run has none."""
        found = document.get("checkpoint")
        if not isinstance(found, dict) or not isinstance(found.get("step"), int):
            return None
        spec_hash, spec = found.get("specHash"), found.get("spec")
        return cls(
            step=found["step"],
            spec_hash=spec_hash if isinstance(spec_hash, str) else None,
            spec=spec if isinstance(spec, dict) else None,
        )


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

    def read(self, run: str, path: str) -> Iterator[bytes]:
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

    def progress(self, since_unix_seconds: float = 0.0, indexes: int = 1) -> Progress | None:
        """From the newest metrics file of each index; None where no line (since that time) has been written yet.

        `indexes` says how many have a share of their own: the total is known when each has written a line.
        """
        return progress_of(self.volume.metrics(self.name), since_unix_seconds, indexes)

    def results(self) -> list[Result]:
        """Readable results, best first."""
        return self.volume.results(self.name)

    def attempts(self) -> dict[int, int]:
        """How many attempts each index has begun on the volume, over all revisions."""
        counts: dict[int, int] = {}
        for attempt in self.volume.attempts(self.name):
            index, _, _ = attempt.partition(".")
            if index.isdigit():
                counts[int(index)] = counts.get(int(index), 0) + 1
        return counts

    def weights(self) -> Published | None:
        return self.volume.weights(self.name)

    def checkpoint(self) -> Checkpoint | None:
        return self.volume.checkpoint(self.name)

    def place_of(self, path: str) -> str:
        """Where a path below runs/NAME lies, for people."""
        return self.volume.place(self.name, path)

    def fetch(self, source: Published, target: Path, only: str | None = None) -> list[Path]:
        """Copy a published directory (or one file of it) to `target` and check every copy against the manifest.

        Raises JobctlError naming the file that is missing or not what was published; nothing is left under its name
        then.
        """
        if source.files is None:
            place = self.place_of(source.directory)
            raise NotFoundError(f"{place} has no readable {MANIFEST}: it was not published completely.")
        copied = []
        for name, entry in sorted(source.files.items()):
            if only in (None, name) and not Path(name).is_absolute() and ".." not in Path(name).parts:
                copied.append(self._copy(f"{source.directory}/{name}", target / name, entry))
        return copied

    def _copy(self, path: str, target: Path, entry: dict[str, Any]) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        digest = hashlib.sha256()
        try:
            with partial.open("wb") as file:
                for chunk in self.volume.read(self.name, path):
                    digest.update(chunk)
                    file.write(chunk)
            if digest.hexdigest() != entry.get("sha256"):
                raise JobctlError(f"{self.place_of(path)} is damaged: its SHA-256 differs from the manifest's.")
            return partial.replace(target)
        except NotFoundError as error:
            raise JobctlError(f"{self.place_of(path)} is missing, though the manifest names it.") from error
        finally:
            partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class DirectoryReader:
    """A volume that is a directory of this machine."""

    root: Path

    def place(self, run: str, path: str = "") -> str:
        return str(self._run(run) / path)

    def exists(self, run: str) -> bool:
        return self._run(run).is_dir()

    def metrics(self, run: str) -> list[list[dict[str, Any]]]:
        return [_tail(path) for path in _newest_fence(self._run(run) / "metrics", ".jsonl").values()]

    def results(self, run: str) -> list[Result]:
        found = []
        for path, stem, fence in _fenced(self._run(run) / "results", ""):
            data = _read_object(path / RESULT)
            if data is not None:
                result = Result(f"results/{path.name}", _files(path), data)
                found.append((stem != "run", stem != "0", -fence, stem, result))
        return [item[-1] for item in sorted(found, key=lambda item: item[:-1])]

    def attempts(self, run: str) -> list[str]:
        return [path.stem for path in _listed(self._run(run) / "attempts") if path.suffix == ".json"]

    def weights(self, run: str) -> Published | None:
        for kind in ("best", "checkpoints"):
            found = [
                (int(step["step"]), fence, path)
                for path, stem, fence in _fenced(self._run(run) / kind, "")
                if (step := _STEP.fullmatch(stem)) and (path / MODEL).is_file() and (path / MANIFEST).is_file()
            ]
            if found:
                path = max(found)[-1]
                return Published(f"{kind}/{path.name}", _files(path))
        return None

    def checkpoint(self, run: str) -> Checkpoint | None:
        """As the workers read it: which of several checkpoints holds is theirs to say."""
        if not self.exists(run):
            return None
        return Checkpoint.of(_parse_object(self.ask_worker(["read", run])) or {})

    def read(self, run: str, path: str) -> Iterator[bytes]:
        try:
            with (self._run(run) / path).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError as error:
            raise NotFoundError(f"There is no {self.place(run, path)}.") from error

    def ask_worker(self, arguments: Sequence[str]) -> bytes:
        import os
        import subprocess

        command = [worker_python(os.environ), "-m", "workers", *arguments]
        environ = {**os.environ, "JOBCTL_VOLUME": str(self.root)}
        done = subprocess.run(command, capture_output=True, check=False, env=environ)
        if done.returncode != 0:
            raise failure_of(done.returncode, done.stderr, str(self.root))
        return done.stdout

    def _run(self, run: str) -> Path:
        return self.root / "runs" / run


def failure_of(exit_code: int, complaint: bytes, place: str) -> JobctlError:
    """What a `python -m workers` that failed is told as: NotFoundError where there is nothing of what was asked for.

    complaint: its stderr, which ends with one sentence behind its own name.
    """
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    said = _PROGRAM.sub("", lines[-1]) if lines else "it said nothing"
    if exit_code == _NOTHING_THERE:
        return NotFoundError(said)
    return JobctlError(f"Reading {place} failed (exit code {exit_code}): {said}")


def _files(directory: Path) -> dict[str, dict[str, Any]] | None:
    files = (_read_object(directory / MANIFEST) or {}).get("files")
    return files if isinstance(files, dict) else None


def progress_of(
    lines: Iterable[list[dict[str, Any]]], since_unix_seconds: float = 0.0, indexes: int = 1
) -> Progress | None:
    """From the last metrics lines of each index; None where none (since that time) has a step."""
    tails = [tail for tail in map(_steps, lines) if tail]
    tails = [tail for tail in tails if _number(tail[-1], "time", math.inf) >= since_unix_seconds]
    return _progress(tails, indexes) if tails else None


def _progress(tails: list[list[dict[str, Any]]], indexes: int) -> Progress:
    """One progress of all indexes: steps add up (each index has its own share), the other figures are the newest's."""
    rates = [rate for rate in (_rate(tail) for tail in tails) if rate is not None]
    last = [tail[-1] for tail in tails]
    totals = [int(total) for line in last if (total := _total(line)) is not None]
    newest = max(last, key=lambda line: _number(line, "time", 0.0))
    step = sum(int(_number(line, "step", 0)) for line in last)
    steps = sum(totals) if len(totals) == len(last) >= indexes else None
    rate = sum(rates) if rates else None
    left = None if steps is None or not rate else max(0, steps - step) / rate
    return Progress(
        step=step,
        steps=steps,
        steps_per_second=rate,
        eta_seconds=left,
        updated_unix_seconds=newest.get("time"),
        figures=_numbers({key: value for key, value in newest.items() if key not in ("time", "step")}),
    )


def _total(line: dict[str, Any]) -> float | None:
    return next((line[key] for key in ("steps", "episodes") if _is_number(line.get(key))), None)


def _rate(tail: list[dict[str, Any]]) -> float | None:
    """Steps a second over the last lines of one file; None with fewer than two moments."""
    lines = [line for line in tail[-RATE_LINES:] if _is_number(line.get("time"))]
    if len(lines) < 2:
        return None
    seconds = lines[-1]["time"] - lines[0]["time"]
    steps = _number(lines[-1], "step", 0) - _number(lines[0], "step", 0)
    return steps / seconds if seconds > 0 and steps > 0 else None


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last whole lines of a JSON-lines file that are objects; a torn last line is left out."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    return [line for line in map(_parse_object, lines) if line is not None]


def _steps(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line for line in lines if _is_number(line.get("step"))]


def _newest_fence(directory: Path, suffix: str) -> dict[str, Path]:
    newest: dict[str, tuple[int, Path]] = {}
    for path, stem, fence in _fenced(directory, suffix):
        newest[stem] = max(newest.get(stem, (fence, path)), (fence, path))
    return {stem: path for stem, (_, path) in sorted(newest.items())}


def _fenced(directory: Path, suffix: str) -> list[tuple[Path, str, int]]:
    """(path, stem, fence) of the entries named STEM.FENCE + suffix; temporaries begin with a dot and are left out."""
    found = []
    for path in _listed(directory):
        match = _FENCED.fullmatch(path.name.removesuffix(suffix)) if path.name.endswith(suffix) else None
        if match and not path.name.startswith("."):
            found.append((path, match["stem"], int(match["fence"])))
    return found


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:  # not there yet, or just removed
        return []


def _read_object(path: Path) -> dict[str, Any] | None:
    try:
        return _parse_object(path.read_bytes())
    except OSError:
        return None


def _parse_object(text: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:  # also a broken encoding
        return None
    return value if isinstance(value, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _number(line: dict[str, Any], key: str, otherwise: float) -> float:
    value = line.get(key)
    return value if value is not None and _is_number(value) else otherwise


def _numbers(figures: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in figures.items() if _is_number(value)}
