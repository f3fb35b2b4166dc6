"""The one way to write an episode: locked, deterministic, published whole, then entered in the ledger.

Order of events, so that a kill at any instant leaves an episode either recorded and whole or not at all:
lock → temporary directory → fsync and manifest → rename to episodes/000012.FENCE → ledger/000012.json → unlock.
Equal arrays give equal bytes (no time stamp, no fence inside), so checksums compare across machines and attempts.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.episodes import ledger
from workers.episodes.labels import horizon_labels
from workers.episodes.schema import ARRAYS, SCHEMA, Array
from workers.errors import InterruptedRun
from workers.storage import CorruptError, publish, verify

if TYPE_CHECKING:
    import numpy as np


class EpisodeTakenError(InterruptedRun):
    """Another writer holds or has recorded the episode; nothing was written. Only who lost the lease sees it."""


@dataclass(frozen=True)
class Episode:
    """One finished episode of T timesteps in memory.

    actions (T, 4) f32 · states (T, D) f32 · images (T, 3, 224, 224, 3) u8 · signals (T, 12) f32; the horizon labels
    follow from the outcome.
    """

    number: int
    seed: int
    outcome: str
    perturbed: bool
    actions: np.ndarray
    states: np.ndarray
    images: np.ndarray
    signals: np.ndarray

    @property
    def steps(self) -> int:
        return len(self.actions)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name, of the schema's dtypes and shapes. Raises ValueError naming one that isn't."""
        labels = horizon_labels(self.steps, self.outcome)
        arrays = {array.name: getattr(self, array.name, labels) for array in ARRAYS}
        for array in ARRAYS:
            _require_shape(array, arrays[array.name], self.steps)
        return arrays


def write_episode(dataset: Path, episode: Episode, fence: int) -> ledger.Entry:
    """Publishes one episode and records it; returns its entry.

    Raises EpisodeTakenError, before a byte is written, if another writer holds it or it is recorded; ValueError for
    arrays of a wrong shape; OSError as the volume gives it (a full disk leaves no temporary behind).
    """
    arrays = episode.arrays()
    with _only_writer(dataset, episode.number):
        if ledger.entry_path(dataset, episode.number).exists():
            raise EpisodeTakenError(f"episode {episode.number} is recorded already; a newer attempt owns this dataset")
        final = dataset / "episodes" / f"{episode.number:06d}.{fence:06d}"
        with suppress(FileExistsError):  # a killed attempt published it: the same content, for it follows from the seed
            publish(final, lambda directory: _write_group(directory, episode, arrays))
        return _record(dataset, episode.number, final)


def recover(dataset: Path, numbers: Iterable[int]) -> list[ledger.Entry]:
    """Clears what killed writers left of these episodes (those with no living writer), before an attempt starts.

    Temporaries and damaged directories go; an episode that was published whole, but not yet entered, is entered now.
    Returns the entries made.
    """
    (dataset / "episodes").mkdir(parents=True, exist_ok=True)
    found = {int(match[1]) for folder in ("episodes", "ledger") for match in _names(dataset / folder)}
    entries = [_recover_one(dataset, number) for number in numbers if number in found]
    return [entry for entry in entries if entry is not None]


def _names(folder: Path) -> Iterator[re.Match[str]]:
    names = (re.match(r"(?:\.tmp-)?(\d{6})\.", path.name) for path in folder.glob("*"))
    return (match for match in names if match)


def _recover_one(dataset: Path, number: int) -> ledger.Entry | None:
    with suppress(EpisodeTakenError), _only_writer(dataset, number):
        for temporary in (*dataset.glob(f"episodes/.tmp-{number:06d}.*"), *dataset.glob(f"ledger/.tmp-{number:06d}.*")):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink(missing_ok=True)
        if ledger.entry_path(dataset, number).exists():
            return None
        for path in ledger.published(dataset, number):
            try:
                return _record(dataset, number, path)
            except CorruptError:
                shutil.rmtree(path)
    return None


def _record(dataset: Path, number: int, final: Path) -> ledger.Entry:
    import zarr

    checksum = ledger.checksum_of(verify(final))
    attributes: dict[str, Any] = dict(zarr.open_group(final, mode="r").attrs)
    entry = ledger.Entry(
        episode=number,
        seed=int(attributes["seed"]),
        outcome=str(attributes["outcome"]),
        steps=int(attributes["steps"]),
        perturbed=bool(attributes["perturbed"]),
        checksum=checksum,
    )
    if not ledger.record(dataset, entry):
        raise EpisodeTakenError(f"episode {number} was recorded by another writer meanwhile; its content holds")
    return entry


def _write_group(directory: Path, episode: Episode, arrays: dict[str, np.ndarray]) -> None:
    import zarr

    attributes = {
        "schema": SCHEMA,
        "episode": episode.number,
        "seed": episode.seed,
        "outcome": episode.outcome,
        "steps": episode.steps,
        "perturbed": episode.perturbed,
    }
    group = zarr.create_group(zarr.storage.LocalStore(directory), attributes=attributes, overwrite=False)
    for array in ARRAYS:
        _write_array(group, array, arrays[array.name])


def _write_array(group: Any, array: Array, values: np.ndarray) -> None:
    from zarr.codecs import ZstdCodec

    chunks, shards = values.shape, None
    if array.chunk:  # one shard holds the whole episode: its length is rounded up to whole chunks
        chunks = array.chunk
        shards = tuple(-(-size // chunk) * chunk for size, chunk in zip(values.shape, chunks, strict=True))
    stored = group.create_array(
        array.name,
        shape=values.shape,
        dtype=array.dtype,
        chunks=chunks,
        shards=shards,
        chunk_key_encoding={"name": "default", "separator": "."},  # fewer directories to sync
        compressors=ZstdCodec(level=array.zstd_level),
        config={"write_empty_chunks": True},  # otherwise a zero array has no file, and a lost one reads as zeros
    )
    stored[:] = values


def _require_shape(array: Array, values: np.ndarray, steps: int) -> None:
    expected = (steps, *array.suffix)
    fits = values.ndim == len(expected) and all(
        size == want or want is None for size, want in zip(values.shape, expected, strict=True)
    )
    if not fits or values.dtype != array.dtype:
        raise ValueError(f"{array.name} is {values.dtype} {values.shape}, the schema asks {array.dtype} {expected}")


@contextmanager
def _only_writer(dataset: Path, number: int) -> Iterator[None]:
    """Holds byte `number` of DATASET/episodes/.lock for as long as this episode is written.

    An open-file-description lock ends with its holder, however that dies, so it can't go stale; and it excludes other
    threads, processes and (NFS 4, CephFS, Lustre with `flock`) nodes. Where a volume has no locks, names that bear the
    fence and the ledger's exclusive link still keep two writers from each other's bytes.
    """
    (dataset / "episodes").mkdir(parents=True, exist_ok=True)
    descriptor = os.open(dataset / "episodes" / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)  # struct flock, 64 bits
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise EpisodeTakenError(f"another writer is writing episode {number}; nothing was written") from error
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        yield
    finally:
        os.close(descriptor)
