"""Checkpoints of a training run: runs/RUN/checkpoints/step-SSSSSSSS.FENCE/{model,optimizer}.safetensors, state.json.

A save takes a snapshot of the tensors and is written behind by one thread; at most one waits, and a newer one replaces
it. Nothing is ever unpickled: tensors are safetensors, the rest is JSON.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workers import lease, storage

if TYPE_CHECKING:
    import torch

Tensors = dict[str, dict[str, "torch.Tensor"]]  # file name without suffix -> tensor name -> tensor
Place = Literal["checkpoints", "best"]

STATE = "state.json"
_STEM = re.compile(r"^step-(\d{8})$")


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


def read(publication: Publication) -> Restored:
    """Verify every file, then load. Raises storage.CorruptError, or FileNotFoundError if it was pruned meanwhile."""
    from safetensors.torch import load_file

    manifest = storage.verify(publication.path)
    files = [Path(name) for name in manifest["files"]]
    tensors = {file.stem: load_file(publication.path / file) for file in files if file.suffix == ".safetensors"}
    return Restored(publication.step, tensors, storage.read_json(publication.path / STATE), publication.path)


def newest(
    run_dir: Path,
    place: Place = "checkpoints",
    *,
    max_step: int | None = None,
    on_corrupt: Callable[[storage.CorruptError], None] = lambda error: None,
) -> Restored | None:
    """The newest checkpoint that verifies, or None. `on_corrupt` hears of each one that was passed over."""
    for publication in publications(run_dir, place):
        if max_step is not None and publication.step > max_step:
            continue
        try:
            return read(publication)
        except storage.CorruptError as error:
            if publication.path.exists():
                on_corrupt(error)
        except FileNotFoundError:  # a late writer pruned it under our eyes; it never had what we rely on
            continue
    return None


class Checkpoints:
    """The checkpoints that one attempt writes and reads.

    `report(name, value)` hears the metrics checkpoint_seconds, checkpoint_stall_seconds, checkpoint_bytes,
    checkpoints_total, checkpoint_failures_total and corrupt_checkpoints_total; `say(text)` what a person should know.
    """

    def __init__(
        self,
        run_dir: Path,
        fence: int,
        keep: int,
        *,
        report: Callable[[str, float], None] = lambda name, value: None,
        say: Callable[[str], None] = lambda text: print(text, flush=True),
    ) -> None:
        self.run_dir = run_dir
        self.fence = fence
        self.keep = keep
        self.failures = 0
        self.saved_step: int | None = None  # the newest step of this attempt that lies on the volume
        self._report = report
        self._say = say
        self._saved_at = time.monotonic()
        self._changed = threading.Condition()
        self._queue: list[_Save] = []
        self._writing: _Save | None = None
        self._owed: _Save | None = None  # best weights that could not be written yet
        self._spare: Tensors | None = None
        self._failed: set[Place] = set()  # where the last write failed
        self._broken: BaseException | None = None
        self._thread: threading.Thread | None = None

    def restore(self) -> Restored | None:
        """The newest checkpoint that verifies, published again under this attempt's own number; None: begin at step 0.

        Falls back over damaged ones and says so. From here on, what older writers publish beyond it is superseded.
        """
        for place in ("checkpoints", "best"):
            storage.clean_temporaries(self.run_dir / place, self.fence)
        restored = self._adopt("checkpoints", max_step=None)
        if restored is not None:
            self._adopt("best", max_step=restored.step)
            self._say(f"resuming from {restored.path.name}")
        with contextlib.suppress(FileNotFoundError):  # without a supervisor there is no lease
            name = restored.path.name if restored else None
            lease.adopt(self.run_dir / "lease" / "0", self.fence, name, restored.step if restored else None)
        return restored

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

    def flush(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds until nothing is left to write; whether what came last is on disk."""
        with self._changed:
            idle = self._changed.wait_for(lambda: self._broken or not (self._queue or self._writing), timeout)
        self._raise_broken()
        return bool(idle) and not self._failed

    def age_seconds(self) -> float:
        """Time since the newest checkpoint of this attempt was published, or since the attempt began."""
        return time.monotonic() - self._saved_at

    def prune(self, place: Place = "checkpoints") -> None:
        """Remove older publications, only names that bear this attempt's number or a lower one.

        checkpoints/ keeps the newest `keep` steps. best/ keeps the newest one that the oldest kept checkpoint knows of,
        and any that is newer still: a restart from that checkpoint would supersede those.
        """
        valid: dict[int, Publication] = {}
        for publication in publications(self.run_dir, place):
            valid.setdefault(publication.step, publication)
        if place == "checkpoints":
            keep = self.keep
        else:
            known = min((found.step for found in publications(self.run_dir)), default=0)
            keep = 1 + sum(step > known for step in valid)
        kept = {publication.path for publication in list(valid.values())[:keep]}
        for publication in _all(self.run_dir / place):
            if publication.fence <= self.fence and publication.path not in kept:
                _remove(publication.path)

    def _adopt(self, place: Place, max_step: int | None) -> Restored | None:
        restored = newest(self.run_dir, place, max_step=max_step, on_corrupt=self._pass_over)
        if restored is None:
            return None
        own = _path(self.run_dir, place, restored.step, self.fence)
        if restored.path != own:
            self._link(restored.path, own)
        return Restored(restored.step, restored.tensors, restored.state, own)

    def _link(self, source: Path, own: Path) -> None:
        """Publish `source` again as `own`; the manifest is made from the new files, and has to be the old one."""
        manifest = storage.read_json(source / storage.MANIFEST)

        def write(directory: Path) -> None:
            for name in manifest["files"]:
                _link_or_copy(source / name, directory / name)

        with contextlib.suppress(FileExistsError):
            storage.publish(own, write)
        if storage.read_json(own / storage.MANIFEST) != manifest:
            raise storage.CorruptError(own, f"it differs from {source.name}, which it was made from")

    def _pass_over(self, error: storage.CorruptError) -> None:
        self._report("corrupt_checkpoints_total", 1)
        self._say(f"passed over a checkpoint: {error}")

    def _hand_over(self, place: Place, step: int, tensors: Tensors, state: dict[str, Any]) -> None:
        self._raise_broken()
        began = time.monotonic()
        encoded = json.dumps(state, allow_nan=False).encode()
        with self._changed:
            spare, self._spare = self._spare, None
        snapshot = _snapshot(tensors, spare)
        with self._changed:
            self._enqueue(_Save(place, step, snapshot, encoded))
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
                    self._spare = save.tensors
                    self._changed.notify_all()

    def _write(self, save: _Save) -> None:
        from safetensors import SafetensorError

        began = time.monotonic()
        try:
            if self._owed is not None and save.place == "checkpoints":
                self._publish(self._owed)
                self._owed = None
                self._failed.discard("best")
            published = self._publish(save)
        except (OSError, SafetensorError, storage.CorruptError) as error:
            self.failures += 1
            self._failed.add(save.place)
            self._owed = save if save.place == "best" else self._owed
            self._report("checkpoint_failures_total", 1)
            self._say(f"the save of step {save.step} failed ({error}); what was published before is intact")
            return
        self._failed.discard(save.place)
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
        from safetensors.torch import save_file

        if max(lease.numbers(self.run_dir / "lease" / "0"), default=0) > self.fence:
            raise OSError(errno.ESTALE, "a newer attempt holds the run's lease")

        def write(directory: Path) -> None:
            for name, group in save.tensors.items():
                save_file(group, directory / f"{name}.safetensors")
            (directory / STATE).write_bytes(save.state)

        final = _path(self.run_dir, save.place, save.step, self.fence)
        with contextlib.suppress(FileExistsError):
            storage.publish(final, write)
        return final

    def _raise_broken(self) -> None:
        if self._broken is not None:
            raise RuntimeError("the checkpoint writer stopped") from self._broken


def flatten_optimizer(optimizer: "torch.optim.Optimizer") -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """An optimizer's state as named tensors ("3.exp_avg": of parameter 3) and the JSON that the rest fits into."""
    import torch

    state = optimizer.state_dict()
    entries = {f"{number}.{key}": value for number, item in state["state"].items() for key, value in item.items()}
    tensors = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    scalars = {name: value for name, value in entries.items() if name not in tensors}
    groups = [{key: _plain(value) for key, value in group.items()} for group in state["param_groups"]]
    return tensors, {"groups": groups, "scalars": scalars}


def load_optimizer(
    optimizer: "torch.optim.Optimizer", tensors: dict[str, "torch.Tensor"], meta: dict[str, Any]
) -> None:
    """The inverse of `flatten_optimizer`. Raises ValueError if the parameter groups differ."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **meta["scalars"]}.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    groups = [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in meta["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _all(directory: Path) -> list[Publication]:
    found = [(_STEM.match(stem), fence, path) for stem, fence, path in storage.fenced(directory)]
    named = [Publication(int(match[1]), fence, path) for match, fence, path in found if match]
    return sorted(named, key=lambda publication: (publication.step, publication.fence), reverse=True)


def _path(run_dir: Path, place: Place, step: int, fence: int) -> Path:
    return run_dir / place / f"step-{step:08d}.{fence:06d}"


def _snapshot(tensors: Tensors, spare: Tensors | None) -> Tensors:
    """Contiguous copies on the CPU, in the spare's memory where it fits: fresh pages cost more than the copy."""
    import torch

    copies: Tensors = {}
    for file, group in tensors.items():
        old = (spare or {}).get(file, {})
        copies[file] = {}
        for name, tensor in group.items():
            copy = old.get(name)
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype)
            copies[file][name] = copy.copy_(tensor.detach())
    return copies


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in storage.NO_LINKS:
            raise
        shutil.copyfile(source, target)


def _remove(path: Path) -> None:
    """Out of sight by one rename first, so that nobody takes a half-removed checkpoint for a damaged one."""
    hidden = path.parent / f".tmp-{path.name}.{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.suppress(FileNotFoundError):
        path.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)
