"""`python -m workers read RUN`: what a run left on the shared volume, for a reader pod. It changes nothing there.

Standard library only. Workers write while this reads, so a file that is half-written or gone again is left out, and so
is what no worker writes: see workers/untrusted.py. A link on the way below runs/RUN is refused: none leads elsewhere.
"""

import argparse
import contextlib
import difflib
import errno
import io
import json
import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

from workers import lease, untrusted
from workers.errors import BadConfigError, WorkerError
from workers.results import RESULT
from workers.storage import FENCED, MANIFEST, STEP

SCHEMA = "jobctl.read/v1"
METRICS_LINES = 64
MODEL, STATE = "model.safetensors", "state.json"
TAIL_BYTES = 2**20  # of a metrics file
LOG_TAIL_BYTES = 2**26  # a whole log: see attempts.MAX_LOG_BYTES
_METRICS = re.compile(r"(?P<index>[0-9]{1,9})\.(?P<fence>[0-9]{6,9})\.jsonl")
_BLOCK_BYTES = 64 * 1024


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or 64 with one sentence on stderr if there is nothing to read."""
    behave_as_a_process()
    try:
        asked = _parse(arguments)
        run = RunFiles(mounted_volume(), asked.run)
        if asked.file is not None:
            with run.open(asked.file) as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
        elif asked.log_tail is not None:
            count, path = asked.log_tail
            with run.open(path) as file:
                sys.stdout.buffer.write(tail(file, _count(count), LOG_TAIL_BYTES))
        else:
            sys.stdout.write(json.dumps(document(run, asked.data), separators=(",", ":")) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # nobody listens any more; the interpreter must not try to flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except WorkerError as error:
        print(f"python -m workers read: {error}", file=sys.stderr)
        return error.code
    return 0


def document(run: "RunFiles", data: str | None = None) -> dict[str, Any]:
    """All that is known of a run.

    metrics: {"INDEX.FENCE": the last 64 lines} of each index' newest file. results: the run's own first, then index
    0's, newest fence first, then the others'. attempts: {"INDEX.PODUID": record}. logs: paths below runs/RUN.
    weights: the best published ones, else the newest checkpoint's; None if there are none.
    checkpoint: {"directory", "step", "specHash", "spec"} of the newest one, which is not verified; None for what its
    state does not say.
    data, if asked for: the dataset's manifest (None until it is complete) and how many episodes are recorded.
    "files" are those of a publication's manifest: {path below "directory": {"bytes", "sha256"}}.
    """
    found = {
        "schema": SCHEMA,
        "run": run.name,
        "metrics": _metrics(run),
        "results": _results(run),
        "attempts": _attempts(run),
        "logs": [f"attempts/{name}" for name in run.names("attempts") if name.endswith(".log")],
        "weights": _weights(run),
        "checkpoint": _checkpoint(run),
    }
    return found if data is None else found | {"data": _dataset(run.volume, data)}


class RunFiles:
    """The files of one run. Raises BadConfigError naming the nearest runs if there is no such one."""

    def __init__(self, volume: Path, name: str) -> None:
        self.volume, self.name = volume, name
        known = _directories(volume / "runs")
        if name not in known:
            near = difflib.get_close_matches(name, known) or known[:3]
            raise BadConfigError(f"there is no run {name!r} on the volume; {_nearest(near, 'it has no run yet')}")

    def open(self, relative: str) -> BinaryIO:
        """A regular file below runs/RUN. Raises BadConfigError if it isn't one, or a link or .. leads elsewhere."""
        parts = PurePosixPath(relative).parts
        where = f"{relative!r} of run {self.name!r}"
        if not parts or "\0" in relative or PurePosixPath(relative).is_absolute() or ".." in parts:
            raise BadConfigError(f"{where} is no path below runs/{self.name}: give one such as attempts/0.UID.log")
        try:
            file = untrusted.open_below(self.volume, ("runs", self.name, *parts))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise BadConfigError(f"{where} is a link, or lies behind one or in no directory: not read") from error
            beside = self.names(str(PurePosixPath(relative).parent)) if error.errno == errno.ENOENT else []
            near = difflib.get_close_matches(parts[-1], beside) or beside[:3]
            raise BadConfigError(f"{where} cannot be read: {error.strerror}{_hint(near)}") from error
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise BadConfigError(f"{where} is no file{_hint(self.names(relative)[:3])}")
        return file

    def names(self, relative: str) -> list[str]:
        """Names in a directory, sorted, without temporaries; [] if there is none."""
        try:
            descriptor = untrusted.descend(self.volume, ("runs", self.name, *PurePosixPath(relative).parts))
        except OSError:
            return []
        try:
            with os.scandir(descriptor) as entries:
                return sorted(entry.name for entry in entries if not entry.name.startswith("."))
        finally:
            os.close(descriptor)

    def object(self, relative: str, limit: int = untrusted.RECORD_BYTES) -> dict[str, Any] | None:
        """A JSON object; None if it is not there, not whole, larger than `limit` bytes, or something else."""
        with contextlib.suppress(OSError, untrusted.CorruptError):
            run_dir = self.volume / "runs" / self.name
            return untrusted.read_record(run_dir / relative, {}, root=self.volume, limit=limit)
        return None


def tail(file: BinaryIO, lines: int, limit: int) -> bytes:
    """The last `lines` lines of a file, a torn last one included, without reading what comes before them.

    Of more than `limit` bytes the last ones.
    """
    position = file.seek(0, os.SEEK_END)
    first = max(0, position - limit)
    blocks: list[bytes] = []
    breaks = 0
    while position > first and breaks <= lines:
        size = min(_BLOCK_BYTES, position - first)
        position = file.seek(position - size)
        blocks.append(file.read(size))
        breaks += blocks[-1].count(b"\n")
    kept = io.BytesIO(b"".join(reversed(blocks))).readlines()  # a carriage return ends no line
    return b"".join(kept[-lines:]) if lines else b""


def _metrics(run: RunFiles) -> dict[str, list[dict[str, Any]]]:
    newest: dict[int, tuple[int, str]] = {}
    for name in run.names("metrics"):
        if match := _METRICS.fullmatch(name):
            index, fence = int(match["index"]), int(match["fence"])
            newest[index] = max(newest.get(index, (fence, name)), (fence, name))
    found = {}
    for _, (_, name) in sorted(newest.items()):
        with contextlib.suppress(OSError, BadConfigError), run.open(f"metrics/{name}") as file:
            parsed = (_object(line) for line in tail(file, METRICS_LINES, TAIL_BYTES).splitlines())
            found[name.removesuffix(".jsonl")] = [line for line in parsed if line is not None]
    return found


def _results(run: RunFiles) -> list[dict[str, Any]]:
    found = []
    for stem, fence, name in _fenced(run, "results"):
        data = run.object(f"results/{name}/{RESULT}", untrusted.MAX_JSON_BYTES)
        if data is not None:
            published = {"directory": f"results/{name}", "data": data, "files": _files(run, f"results/{name}") or {}}
            found.append(((stem != "run", stem != "0", -fence, stem), published))
    return [published for _, published in sorted(found, key=lambda item: item[0])]


def _attempts(run: RunFiles) -> dict[str, dict[str, Any]]:
    names = [name for name in run.names("attempts") if name.endswith(".json")]
    records = {name.removesuffix(".json"): run.object(f"attempts/{name}") for name in names}
    return {name: record for name, record in records.items() if record is not None}


def _weights(run: RunFiles) -> dict[str, Any] | None:
    """Weights of a writer that woke up after its successor had taken over are passed over, as the workers do."""
    for place in ("best", "checkpoints"):
        for _, directory in _steps(run, place):
            files = _files(run, directory)
            if files and MODEL in files:
                return {"directory": directory, "files": files}
    return None


def _checkpoint(run: RunFiles) -> dict[str, Any] | None:
    for step, directory in _steps(run, "checkpoints"):
        state = run.object(f"{directory}/{STATE}")
        if state is not None:
            return {"directory": directory, "step": step, "specHash": state.get("specHash"), "spec": state.get("spec")}
    return None


def _steps(run: RunFiles, place: str) -> list[tuple[int, str]]:
    """(step, path below runs/RUN) of the publications that no later lease superseded, newest first."""
    limits = lease.adopted_limits(run.volume / "runs" / run.name / "lease" / "0")
    found = [
        (int(step["step"]), fence, f"{place}/{name}")
        for stem, fence, name in _fenced(run, place)
        if (step := STEP.fullmatch(stem)) and not limits.superseded(int(step["step"]), fence)
    ]
    return [(step, directory) for step, _, directory in sorted(found, reverse=True)]


def dataset_directory(volume: Path, data: str) -> Path:
    """Raises BadConfigError if `data` leads off the volume."""
    directory = (volume / data).resolve()
    if not directory.is_relative_to(volume.resolve()):
        raise BadConfigError(f"{data!r} does not lie on the volume: give a path such as datasets/NAME")
    return directory


def _dataset(volume: Path, data: str) -> dict[str, Any]:
    directory = dataset_directory(volume, data)
    manifest = None
    with contextlib.suppress(OSError, untrusted.CorruptError):
        manifest = untrusted.read_record(directory / MANIFEST, {})
    recorded = sum(1 for _ in (directory / "ledger").glob("[!.]*.json"))
    return {"directory": data, "manifest": manifest, "recorded": recorded}


def _files(run: RunFiles, directory: str) -> dict[str, Any] | None:
    """Those of a manifest that names plain paths with sizes and hashes; None where there is none."""
    files = (run.object(f"{directory}/{MANIFEST}", untrusted.MAX_JSON_BYTES) or {}).get("files")
    return files if isinstance(files, dict) and all(map(_is_file, files.items())) else None


def _is_file(item: tuple[str, Any]) -> bool:
    return untrusted.is_plain_path(item[0]) and untrusted.misfit(item[1], {"bytes": int, "sha256": str}) is None


def _fenced(run: RunFiles, directory: str) -> list[tuple[str, int, str]]:
    """(stem, fence, name) of the publications STEM.FENCE in a directory."""
    matches = [(FENCED.fullmatch(name), name) for name in run.names(directory)]
    return [(match["stem"], int(match["fence"]), name) for match, name in matches if match]


def _object(text: bytes) -> dict[str, Any] | None:
    with contextlib.suppress(ValueError):
        value = untrusted.parse_json(text)
        return value if isinstance(value, dict) else None
    return None


def _directories(parent: Path) -> list[str]:
    try:
        with os.scandir(parent) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadConfigError(f"{parent} cannot be read: {error.strerror}") from error


def mounted_volume() -> Path:
    """$JOBCTL_VOLUME. Raises BadConfigError where it names no directory."""
    volume = os.environ.get("JOBCTL_VOLUME")
    if not volume:
        raise BadConfigError("JOBCTL_VOLUME is not set: it names the directory where the shared volume is mounted")
    if not Path(volume).is_dir():
        raise BadConfigError(f"JOBCTL_VOLUME is {volume!r}, which is no directory: mount the shared volume there")
    return Path(volume)


def _count(text: str) -> int:
    number = untrusted.whole_number(text)
    if number is None:
        raise BadConfigError(f"--log-tail {text!r} must be a number of lines, 0 or more")
    return number


def _nearest(near: Sequence[str], otherwise: str) -> str:
    return f"nearest: {', '.join(near)}" if near else otherwise


def _hint(near: Sequence[str]) -> str:
    return f"; nearest: {', '.join(near)}" if near else ""


def behave_as_a_process() -> None:
    """PID 1 gets no default signal handling, and `python -m workers` starts with these signals held back."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})


class Parser(argparse.ArgumentParser):
    """Raises BadConfigError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise BadConfigError(message)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m workers read", description="Prints what a run left on the volume, as JSON.")
    parser.add_argument("run", metavar="RUN")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--data", metavar="DATASET", help="also count this dataset, for example datasets/NAME")
    what.add_argument("--file", metavar="PATH", help="write this file's bytes instead; PATH below runs/RUN")
    what.add_argument("--log-tail", nargs=2, metavar=("N", "PATH"), help="write the last N lines of a file instead")
    return parser.parse_args(arguments)
