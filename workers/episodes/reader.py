"""Reading episodes: verified against the ledger, then only the arrays that are asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.episodes import ledger
from workers.episodes.schema import ARRAY_NAMES
from workers.errors import BadDataError

if TYPE_CHECKING:
    import numpy as np


def load(
    dataset: Path, entries: Sequence[ledger.Entry], arrays: Sequence[str] = ("signals", "horizon_labels")
) -> list[dict[str, np.ndarray]]:
    """The named arrays of each entry, in the order of `entries`. Raises as `iterate` does."""
    return list(iterate(dataset, entries, arrays))


def iterate(
    dataset: Path, entries: Sequence[ledger.Entry], arrays: Sequence[str] = ARRAY_NAMES
) -> Iterator[dict[str, np.ndarray]]:
    """The named arrays of one episode after another (actions (T, 4), states (T, D), images (T, 3, 224, 224, 3), signals
    (T, 12), horizon_labels (T, 4, 4)); only one episode is in memory.

    Every file of an episode is verified before its first array is read. Raises BadDataError naming an episode that is
    missing, damaged, or not what the ledger records.
    """
    for entry in entries:
        yield read_arrays(ledger.path_of(dataset, entry), entry, arrays)


def read_arrays(path: Path, entry: ledger.Entry, arrays: Sequence[str]) -> dict[str, np.ndarray]:
    """The named arrays of the verified episode in `path`. Raises BadDataError if the ledger says otherwise."""
    import numpy as np
    import zarr

    try:
        group = zarr.open_group(path, mode="r")
        ledger.require_schema(path, group.attrs.get("schema"))
        content = {name: np.asarray(group[name]) for name in arrays}
    except (KeyError, ValueError, OSError, RuntimeError) as error:
        raise BadDataError(f"episode {entry.episode} in {path} can't be read: {error}") from error
    for name, values in content.items():
        if len(values) != entry.steps:
            raise BadDataError(
                f"episode {entry.episode} in {path}: {name} has {len(values)} timesteps, the ledger says {entry.steps}"
            )
    return content


def instants_of(steps: int, count: int) -> list[int]:
    """Up to `count` timesteps, evenly from the first to the last; each once, in order."""
    return sorted({round(place * (steps - 1) / max(1, count - 1)) for place in range(count)})


def read_instants(path: Path, entry: ledger.Entry, count: int = 3) -> np.ndarray:
    """Images of `count` instants, evenly from the first timestep to the last: (count, 3, 224, 224, 3) uint8.

    Reads only the chunks that hold them. Raises BadDataError as `read_arrays` does.
    """
    import numpy as np
    import zarr

    try:
        images: Any = zarr.open_group(path, mode="r")["images"]
        return np.stack([images[instant] for instant in instants_of(entry.steps, count)])
    except (KeyError, ValueError, OSError, RuntimeError, IndexError) as error:
        raise BadDataError(f"episode {entry.episode} in {path} can't be read: {error}") from error
