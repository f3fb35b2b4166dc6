"""Checkpoints of a training run: runs/RUN/checkpoints/step-SSSSSSSS.FENCE/{model,optimizer}.safetensors, state.json.

A save takes a snapshot of the tensors and is written behind by one thread; at most one waits, and a newer one replaces
it. Nothing is ever unpickled: tensors are safetensors, the rest is JSON.
"""

import contextlib
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from workers import lease, storage
from workers.errors import BadConfigError, BadDataError
from workers.tensors import Tensors, save_file, snapshot
from workers.untrusted import CorruptError, read_json

Place = Literal["checkpoints", "best"]

STATE = "state.json"
LAYOUT = 1  # of state.json; a higher one is for what this number's readers would misread, not for what is only added
BEGIN_ANEW = (
    "submit with --fresh to begin anew and keep aside what is there "
    "(plain Helm: --set planned.freshToken=TEXT, a new one)"
)
DAMAGED_NAMED = 3


@dataclass(frozen=True)
class Publication:
    """A checkpoint's name on the volume. Publications order by step, then by fence; never by modification time."""

    step: int
    fence: int
    path: Path


@dataclass(frozen=True)
class Restored:
    """A verified checkpoint. `tensors`: {"model": {...}, "optimizer": {...}} on the CPU; `state` as it was saved."""

    step: int
    tensors: Tensors
    state: dict[str, Any]
    path: Path

    def require(self, *keys: str) -> None:
        """Raises BadConfigError where the state, as another version of the workers saved it, lacks one of `keys`."""
        if missing := [key for key in keys if key not in self.state]:
            raise BadConfigError(
                f"the checkpoint {self.path} lacks {', '.join(missing)}: it is of an older layout than this worker "
                f"reads; use the worker's version that wrote it, or {BEGIN_ANEW}"
            )


@dataclass(frozen=True, eq=False)
class _Save:
    place: Place
    step: int
    tensors: Tensors
    state: bytes


def publications(run_dir: Path, place: Place = "checkpoints") -> list[Publication]:
    """Newest first; without those that a later lease superseded."""
    limits = lease.adopted_limits(run_dir / "lease" / "0")
    return [found for found in _all(run_dir / place) if not limits.superseded(found.step, found.fence)]


def read(publication: Publication, beat: Callable[[], None] = lambda: None) -> Restored:
    """Verify every file, calling `beat` all the while, then load.

    Raises CorruptError, FileNotFoundError if it was pruned meanwhile, and BadConfigError for a layout that only
    a newer worker knows.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    manifest = storage.verify(publication.path, beat=beat)
    state = read_json(publication.path / STATE)
    _require_layout(state, publication.path)
    files = [Path(name) for name in manifest["files"]]
    try:
        tensors = {file.stem: load_file(publication.path / file) for file in files if file.suffix == ".safetensors"}
    except SafetensorError as error:
        raise CorruptError(publication.path, f"its tensors cannot be read ({error})") from error
    return Restored(publication.step, tensors, state, publication.path)


def newest(
    run_dir: Path,
    place: Place = "checkpoints",
    *,
    on_corrupt: Callable[[CorruptError], None] = lambda error: None,
    beat: Callable[[], None] = lambda: None,
) -> Restored | None:
    """The newest checkpoint that verifies, or None. `on_corrupt` hears of each one that was passed over."""
    return _first_sound(publications(run_dir, place), on_corrupt, beat)


def _first_sound(
    candidates: Iterable[Publication], on_corrupt: Callable[[CorruptError], None], beat: Callable[[], None]
) -> Restored | None:
    for publication in candidates:
        try:
            return read(publication, beat)
        except CorruptError as error:
            damage = error
        except FileNotFoundError as error:
            damage = CorruptError(Path(error.filename or publication.path), "it is missing")
        if publication.path.exists():  # or a late writer pruned it under our eyes; it never had what we rely on
            on_corrupt(damage)
    return None


def _require_layout(state: Any, path: Path) -> None:
    if not isinstance(state, dict):
        raise CorruptError(path / STATE, "it holds no JSON object")
    layout = state.get("layout", 1)  # the first one had no number
    if not isinstance(layout, int) or layout > LAYOUT:
        raise BadConfigError(
            f"the checkpoint {path} has layout {layout}, but this worker reads none above {LAYOUT}: use the worker's "
            f"version that wrote it or a newer one, or {BEGIN_ANEW}"
        )


class Checkpoints:
    """The checkpoints that one attempt writes and reads.

    `report(name, value)` hears the metrics checkpoint_seconds, checkpoint_stall_seconds, checkpoint_bytes,
    checkpoints_total, checkpoint_failures_total and corrupt_checkpoints_total; `say(text)` what a person should know;
    `beat()` is called while a checkpoint is read.
    """

    def __init__(
        self,
        run_dir: Path,
        fence: int,
        keep: int,
        *,
        report: Callable[[str, float], None] = lambda name, value: None,
        say: Callable[[str], None] = lambda text: print(text, flush=True),
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.run_dir = run_dir
        self.fence = fence
        self.keep = keep
        self.failures = 0
        self.saved_step: int | None = None  # the newest step of this attempt that lies on the volume
        self.best: Restored | None = None  # what `restore` found in best/, without its tensors
        self._report = report
        self._say = say
        self._beat = beat
        self._saved_at = time.monotonic()
        self._changed = threading.Condition()
        self._queue: list[_Save] = []
        self._writing: _Save | None = None
        self._owed: _Save | None = None  # best weights that could not be written yet
        self._spare: Tensors | None = None
        self._failed: dict[Place, Exception] = {}  # where the last write failed, and why
        self._damaged: set[Path] = set()  # what this attempt passed over
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None

    def restore(
        self,
        accept: Callable[[Restored], None] = lambda restored: None,
        best_of: Callable[[dict[str, Any]], int | None] = lambda state: None,
        accept_none: Callable[[], None] = lambda: None,
    ) -> Restored | None:
        """The newest checkpoint that verifies, published again under this attempt's own number; None: begin at step 0.

        Falls back over damaged ones and says so; raises BadDataError where all are damaged. `accept` may raise to
        refuse the one that was found, `accept_none` to refuse to begin anew, before anything is changed.
        `best_of(state)`: the step of the best weights that a checkpoint's state speaks of; `best` is what there is of
        them. From here on, what older writers publish beyond the checkpoint is superseded.
        """
        found = self.newest()
        if found is not None:
            accept(found)
        else:
            accept_none()
        for place in ("checkpoints", "best"):
            storage.clean_temporaries(self.run_dir / place, self.fence)
        restored = self._adopt("checkpoints", found) if found else None
        if restored is not None:
            self._restore_best(restored, best_of)
            self._say(f"resuming from {restored.path.name}")
        with contextlib.suppress(FileNotFoundError):  # without a supervisor there is no lease
            name = restored.path.name if restored else None
            lease.adopt(self.run_dir / "lease" / "0", self.fence, name, restored.step if restored else None)
        return restored

    def newest(self) -> Restored | None:
        """The newest checkpoint that verifies, None where there is none at all: damaged ones are said and counted.

        Raises BadDataError where there are some and none can be used: that is no reason to begin anew.
        """
        damaged: list[CorruptError] = []

        def pass_over(error: CorruptError) -> None:
            damaged.append(error)
            self._pass_over(error)

        found = newest(self.run_dir, on_corrupt=pass_over, beat=self._beat)
        while found is None and not damaged and publications(self.run_dir):
            # a late writer pruned what was listed; what it did so for is listed by now
            found = newest(self.run_dir, on_corrupt=pass_over, beat=self._beat)
        if found is None and damaged:
            named = "; ".join(map(str, damaged[:DAMAGED_NAMED]))
            more = f" (and {len(damaged) - DAMAGED_NAMED} more)" if len(damaged) > DAMAGED_NAMED else ""
            raise BadDataError(
                f"the run has checkpoints, but none that can be used: {named}{more}; put back what was damaged, or "
                f"{BEGIN_ANEW}"
            )
        return found

    def save(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """Take a snapshot, to be published behind.

        `tensors`: {"model": {...}, "optimizer": {...}}; `state`: plain JSON, otherwise ValueError or TypeError is
        raised. A disk that fails is counted and said, and the next save starts afresh.
        """
        self._hand_over("checkpoints", step, tensors, state)

    def publish_best(self, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        """As `save`, into best/: replaces the best one of before as soon as no restart can fall back behind it.

        A checkpoint that is saved after it is never published before it: what a checkpoint says of the best is there.
        """
        self._hand_over("best", step, tensors, state)

    def withdraw_best(self, after: int) -> None:
        """Take back the best weights of steps beyond `after`, to which the training goes back: they may come otherwise.

        Call it while nothing is left to write.
        """
        if self._owed is not None and self._owed.step > after:
            self._owed = None
            self._failed.pop("best", None)
        for publication in publications(self.run_dir, "best"):
            if publication.fence == self.fence and publication.step > after:
                storage.remove(publication.path)

    def has_best(self, step: float) -> bool:
        """Whether best/ has the weights of this step, not found damaged."""
        there = publications(self.run_dir, "best")
        return any(found.step == step and found.path not in self._damaged for found in there)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds until nothing is left to write; whether what came last is on disk."""
        with self._changed:
            idle = self._changed.wait_for(lambda: self._broken or not (self._queue or self._writing), timeout)
        self._raise_broken()
        return bool(idle) and not self._failed

    @property
    def writer(self) -> int | None:
        """The native id of the thread that writes; None before the first save."""
        return self._thread.native_id if self._thread is not None else None

    @property
    def is_writing(self) -> bool:
        """Whether something is left to write. Raises RuntimeError if the writer broke."""
        self._raise_broken()
        with self._changed:
            return bool(self._queue or self._writing)

    @property
    def error(self) -> Exception | None:
        """Why what came last is not on disk, if it isn't."""
        return next(iter(self._failed.values()), None)

    def age_seconds(self) -> float:
        """Time since the newest checkpoint of this attempt was published, or since the attempt began."""
        return time.monotonic() - self._saved_at

    def prune(self, place: Place = "checkpoints") -> None:
        """Remove older publications, only names that bear this attempt's number or a lower one.

        checkpoints/ keeps the newest `keep` steps. best/ keeps the newest one that the oldest kept checkpoint knows of,
        and any that is newer still: a restart from that checkpoint would supersede those. What was found damaged takes
        no other's place.
        """
        valid: dict[int, Publication] = {}
        for publication in publications(self.run_dir, place):
            if publication.path not in self._damaged:
                valid.setdefault(publication.step, publication)
        if place == "checkpoints":
            keep = self.keep
        else:
            known = min((found.step for found in publications(self.run_dir)), default=0)
            keep = 1 + sum(step > known for step in valid)
        kept = {publication.path for publication in list(valid.values())[:keep]}
        for publication in _all(self.run_dir / place):
            if publication.fence <= self.fence and publication.path not in kept:
                storage.remove(publication.path)

    def _adopt(self, place: Place, found: Restored) -> Restored:
        own = _path(self.run_dir, place, found.step, self.fence)
        if found.path != own:
            self._link(found.path, own)
        return replace(found, path=own)

    def _restore_best(self, restored: Restored, best_of: Callable[[dict[str, Any]], int | None]) -> None:
        """Adopt the best weights that `restored` speaks of; where they are damaged or gone, older ones of best/.

        Before that a checkpoint of the same step is looked for: it holds the same weights.
        """
        wanted = best_of(restored.state)
        there = [found for found in publications(self.run_dir, "best") if found.step <= restored.step]
        same = [found for found in publications(self.run_dir) if found.step == wanted]
        older = [found for found in there if found.step != wanted]
        candidates = [*(found for found in there if found.step == wanted), *same, *older]
        if (found := _first_sound(candidates, self._pass_over, self._beat)) is not None:
            self.best = replace(self._adopt("best", found), tensors={})

    def _link(self, source: Path, own: Path) -> None:
        """Publish `source` again as `own`; the manifest is made from the new files, and has to be the old one."""
        manifest = read_json(source / storage.MANIFEST)

        def write(directory: Path) -> None:
            for name in manifest["files"]:
                _link_or_copy(source / name, directory / name)

        with contextlib.suppress(FileExistsError):
            storage.publish(own, write)
        if read_json(own / storage.MANIFEST) != manifest:
            raise CorruptError(own, f"it differs from {source.name}, which it was made from")

    def _pass_over(self, error: CorruptError) -> None:
        self._damaged |= {error.path, *error.path.parents}
        self._report("corrupt_checkpoints_total", 1)
        self._say(f"passed over a checkpoint: {error}")

    def _hand_over(self, place: Place, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        self._raise_broken()
        began = time.monotonic()
        encoded = json.dumps(state, allow_nan=False).encode()
        with self._changed:
            spare, self._spare = self._spare, None
        copies = snapshot(tensors, spare)
        with self._changed:
            self._enqueue(_Save(place, step, copies, encoded))
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_behind, name="checkpoint-writer", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        self._report("checkpoint_stall_seconds", time.monotonic() - began)

    def _enqueue(self, save: _Save) -> None:
        """At most one checkpoint waits; of best weights with no checkpoint between them, the newer ones suffice."""
        queue = [waiting for waiting in self._queue if not waiting.place == save.place == "checkpoints"]
        queue.append(save)
        places = [*(waiting.place for waiting in queue[1:]), None]  # of the one behind each
        self._queue = [one for one, behind in zip(queue, places, strict=True) if not one.place == behind == "best"]

    def _write_behind(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._queue))
                save = self._writing = self._queue.pop(0)
            try:
                self._write(save)
            except BaseException as error:
                self._broken = error  # raised again in the loop's thread, by its next call
                raise
            finally:
                with self._changed:
                    self._writing = None
                    if save is not self._owed:  # these tensors are still to be written
                        self._spare = save.tensors
                    self._changed.notify_all()

    def _write(self, save: _Save) -> None:
        began = time.monotonic()
        try:
            if self._owed is not None and save.place == "checkpoints":
                self._publish(self._owed)
                self._owed = None
                self._failed.pop("best", None)
            published = self._publish(save)
        except (OSError, CorruptError) as error:
            self.failures += 1
            self._failed[save.place] = error
            self._owed = save if save.place == "best" else self._owed
            self._report("checkpoint_failures_total", 1)
            self._say(f"the save of step {save.step} failed ({error}); what was published before is intact")
            return
        self._failed.pop(save.place, None)
        if save.place == "best":
            self._owed = None
        else:
            self.saved_step = save.step
            self._saved_at = time.monotonic()
            self._report("checkpoints_total", 1)
            self._report("checkpoint_bytes", sum(file.stat().st_size for file in published.iterdir()))
        self._report("checkpoint_seconds", time.monotonic() - began)
        try:
            self.prune("checkpoints")
            self.prune("best")
        except OSError as error:
            self._say(f"old checkpoints could not be removed ({error})")

    def _publish(self, save: _Save) -> Path:
        if max(lease.numbers(self.run_dir / "lease" / "0"), default=0) > self.fence:
            raise OSError(errno.ESTALE, "a newer attempt holds the run's lease")

        def write(directory: Path) -> None:
            for name, group in save.tensors.items():
                save_file(group, directory / f"{name}.safetensors")
            (directory / STATE).write_bytes(save.state)

        final = _path(self.run_dir, save.place, save.step, self.fence)
        if final in self._damaged:  # a training that went back comes to the same step again
            storage.remove(final)
        with contextlib.suppress(FileExistsError):
            storage.publish(final, write)
        self._damaged.discard(final)
        return final

    def _raise_broken(self) -> None:
        if self._broken is not None:
            raise RuntimeError("the checkpoint writer stopped") from self._broken


def _all(directory: Path) -> list[Publication]:
    found = [(storage.STEP.fullmatch(stem), fence, path) for stem, fence, path in storage.fenced(directory)]
    named = [Publication(int(match["step"]), fence, path) for match, fence, path in found if match]
    return sorted(named, key=lambda publication: (publication.step, publication.fence), reverse=True)


def _path(run_dir: Path, place: Place, step: int, fence: int) -> Path:
    return run_dir / place / f"step-{step:08d}.{fence:06d}"


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in storage.NO_LINKS:
            raise
        shutil.copyfile(source, target)
