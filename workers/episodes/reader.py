"""Reading episodes: verified against the ledger, then only the arrays that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.episodes import ledger, metadata
from workers.episodes.schema import ARRAY_NAMES
from workers.errors import BadDataError
from workers.untrusted import CorruptError

if TYPE_CHECKING:
    import numpy as np
    import zarr

_UNREADABLE = (CorruptError, KeyError, ValueError, TypeError, OSError, RuntimeError, IndexError)


def load(
    dataset: Path,
    entries: Sequence[ledger.Entry],
    arrays: Sequence[str] = ("signals", "horizon_labels"),
    beat: Callable[[], None] = lambda: None,
) -> list[dict[str, np.ndarray]]:
    """The named arrays of each entry, in the order of `entries`. Raises as `iterate` does."""
    return list(iterate(dataset, entries, arrays, beat))


def iterate(
    dataset: Path,
    entries: Sequence[ledger.Entry],
    arrays: Sequence[str] = ARRAY_NAMES,
    beat: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, np.ndarray]]:
    """The named arrays of one episode after another (actions (T, 4), states (T, D), images (T, 3, 224, 224, 3), signals
    (T, 12), horizon_labels (T, 4, 4)); only one episode is in memory.

    Every file of an episode is verified before its first array is read, and `beat` is called meanwhile. Raises
    BadDataError naming an episode that is missing, damaged, or not what the ledger records.
    """
    among = ledger.all_published(dataset)
    for entry in entries:
        yield read_arrays(ledger.path_of(dataset, entry, beat, among=among), entry, arrays)


def read_arrays(path: Path, entry: ledger.Entry, arrays: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of the verified episode in `path`. Raises BadDataError if the ledger or the schema says
    otherwise."""
    import numpy as np

    try:
        ledger.require_schema(path, metadata.attributes_of(path).get("schema"))
        return {name: np.asarray(_open(path, name, entry)) for name in arrays}
    except _UNREADABLE as error:
        raise BadDataError(f"episode {entry.episode} in {path} can't be read: {error}") from error


def _open(path: Path, name: str, entry: ledger.Entry) -> zarr.Array[Any]:
    """An array as its checked metadata describe it: nothing that stands beside them decides how it is read."""
    import zarr

    found = metadata.array_of(path, name, entry.steps)
    store = zarr.storage.LocalStore(path, read_only=True)
    return zarr.Array.from_dict(zarr.storage.StorePath(store, name), found)


def instants_of(steps: int, count: int) -> list[int]:
    """Up to `count` timesteps, evenly from the first to the last; each once, in order."""
    return sorted({round(place * (steps - 1) / max(1, count - 1)) for place in range(count)})


def read_instants(path: Path, entry: ledger.Entry, count: int = 3) -> np.ndarray:
    """Images of `count` instants, evenly from the first timestep to the last: (count, 3, 224, 224, 3) uint8.

    Reads only the chunks that hold them. Raises BadDataError as `read_arrays` does.
    """
    import numpy as np

    try:
        images: Any = _open(path, "images", entry)
        return np.stack([images[instant] for instant in instants_of(entry.steps, count)])
    except _UNREADABLE as error:
        raise BadDataError(f"episode {entry.episode} in {path} can't be read: {error}") from error
