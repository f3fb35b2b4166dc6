"""The one way to write an episode: locked, deterministic, published whole, then entered in the ledger.

Order of events, so that a kill at any instant leaves an episode either recorded and whole or not at all:
lock → temporary directory → fsync and manifest → rename to episodes/000012.FENCE → ledger/000012.json → unlock.
Equal arrays give equal bytes (no time stamp, no fence inside), so checksums compare across machines and attempts.
An episode that is recorded, but gone or damaged, may be written again: its entry stays, and it has to be equal to that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import untrusted
from workers.episodes import ledger, metadata
from workers.episodes.labels import horizon_labels
from workers.episodes.schema import ARRAYS, SCHEMA, Array
from workers.errors import BadDataError, InterruptedRun
from workers.storage import publish, remove, verify
from workers.untrusted import CorruptError

if TYPE_CHECKING:
    import numpy as np


_NAME = re.compile(r"(?P<temporary>(\.tmp-)+)?(?P<episode>[0-9]{6})\.")


class EpisodeTakenError(InterruptedRun):
    """Another writer holds or has recorded the episode; nothing was written. Only who lost the lease sees it."""


class OtherContentError(BadDataError):
    """An episode that was damaged can't be recorded again as it was. What the ledger says of it stays."""


_ATTRIBUTES: dict[str, untrusted.Types] = {"seed": int, "outcome": str, "steps": int, "perturbed": bool}


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

    Raises EpisodeTakenError, before a byte is written, if another writer holds it or it is recorded and whole;
    OtherContentError if it is recorded with other content; ValueError for arrays of a wrong shape; OSError as the
    volume gives it (a full disk leaves no temporary behind).
    """
    arrays, number = episode.arrays(), episode.number
    with _only_writer(dataset, number):
        known = ledger.entry_of(dataset, number)
        if known is not None and not _clear(dataset, known, ledger.published(dataset, number)):
            raise EpisodeTakenError(f"episode {number} is recorded already; a newer attempt owns this dataset")
        final = dataset / "episodes" / f"{number:06d}.{fence:06d}"
        with suppress(FileExistsError):  # a killed attempt published it: the same content, for it follows from the seed
            publish(final, lambda directory: _write_group(directory, episode, arrays))
        return _record(dataset, number, final) if known is None else _require_equal(dataset, known, final)


def recover(
    dataset: Path,
    numbers: Iterable[int],
    beat: Callable[[], None] = lambda: None,
    say: Callable[[str], None] = lambda text: None,
) -> list[ledger.Entry]:
    """Clears what killed writers left of these episodes (those with no living writer), before an attempt starts.

    Temporaries and damaged directories go, of recorded episodes too (as far as names and sizes tell, hashes are the
    data check's), and so do damaged entries; an episode that was published whole, but not yet entered, is entered now.
    Returns the entries made.
    """
    (dataset / "episodes").mkdir(parents=True, exist_ok=True)
    left = _left(dataset)
    among = ledger.all_published(dataset)
    entries = []
    for number in numbers:
        if number in left:
            entries.append(_recover_one(dataset, number, left[number], among.get(number, []), say))
            beat()
    return [entry for entry in entries if entry is not None]


def missing(dataset: Path, numbers: Iterable[int]) -> list[int]:
    """Those of the episodes that are not recorded, or have no directory any more."""
    there = ledger.numbers(dataset) & ledger.all_published(dataset).keys()
    return [number for number in numbers if number not in there]


def _left(dataset: Path) -> dict[int, list[Path]]:
    """Of each episode of which there is anything, the temporaries."""
    found: dict[int, list[Path]] = {}
    for path in (*dataset.glob("episodes/*"), *dataset.glob("ledger/*")):
        if match := _NAME.match(path.name):
            temporaries = found.setdefault(int(match["episode"]), [])
            if match["temporary"]:
                temporaries.append(path)
    return found


def _recover_one(
    dataset: Path, number: int, temporaries: list[Path], published: list[Path], say: Callable[[str], None]
) -> ledger.Entry | None:
    with suppress(EpisodeTakenError), _only_writer(dataset, number):
        for temporary in temporaries:
            remove(temporary)
        known = _sound_entry(dataset, number, say)
        if known is not None:
            _clear(dataset, known, published, hashes=False, say=say)
            return None
        for path in published:
            try:
                return _record(dataset, number, path)
            except (CorruptError, FileNotFoundError):
                remove(path)
    return None


def _sound_entry(dataset: Path, number: int, say: Callable[[str], None]) -> ledger.Entry | None:
    """An episode's entry; an empty or damaged one is removed, for it follows from the episode."""
    try:
        entry = ledger.entry_of(dataset, number)
    except BadDataError as error:
        say(f"{error}: it is made again")
        entry = None
    if entry is None:
        ledger.entry_path(dataset, number).unlink(missing_ok=True)
    return entry


def _clear(
    dataset: Path,
    known: ledger.Entry,
    published: list[Path],
    hashes: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> bool:
    """Whether a recorded episode is gone or damaged; then nothing is left of it but its entry."""
    try:
        ledger.path_of(dataset, known, hashes=hashes, among={known.episode: published})
    except BadDataError as error:
        say(str(error))
        for path in published:
            remove(path)
        return True
    return False


def _record(dataset: Path, number: int, final: Path) -> ledger.Entry:
    checksum = ledger.checksum_of(verify(final))
    attributes = metadata.attributes_of(final)
    if wrong := untrusted.misfit(attributes, _ATTRIBUTES):
        raise CorruptError(final / metadata.METADATA, wrong)
    described = {name: attributes[name] for name in _ATTRIBUTES}
    entry = ledger.Entry(episode=number, checksum=checksum, **described)
    if not ledger.record(dataset, entry):
        raise EpisodeTakenError(f"episode {number} was recorded by another writer meanwhile; its content holds")
    return entry


def _require_equal(dataset: Path, known: ledger.Entry, final: Path) -> ledger.Entry:
    found = ledger.checksum_of(verify(final))
    if found != known.checksum:
        remove(final)
        raise OtherContentError(
            f"episode {known.episode} of {dataset} was damaged, and recorded again it is not what it was (its checksum "
            f"is {found[:16]}, not {known.checksum[:16]}): the simulator or its libraries have changed since. Collect "
            "into another `data`, or start with --fresh"
        )
    return known


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
