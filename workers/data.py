"""`python -m workers data`: what a dataset on the shared volume holds, and one episode of it to look at.

Prints one JSON document. It changes nothing on the volume.
"""

import argparse
import base64
import dataclasses
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers.episodes import ledger, plots, reader
from workers.episodes.schema import FAILURES, HORIZONS, RATE_HZ, SIGNALS
from workers.errors import BadConfigError, WorkerError
from workers.read import Parser, behave_as_a_process, dataset_directory, mounted_volume

SCHEMA = "jobctl.data/v1"
DATASETS = "datasets"


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0, or the error's with one sentence on stderr."""
    behave_as_a_process()
    try:
        asked = _parse(arguments)
        volume = mounted_volume()
        data = asked.data or _only_dataset(volume)
        found = episodes(volume, data) if asked.show is None else episode(volume, data, asked.show)
        print(json.dumps(found, separators=(",", ":")))
    except WorkerError as error:
        print(f"python -m workers data: {error}", file=sys.stderr)
        return error.code
    return 0


def episodes(volume: Path, data: str) -> dict[str, Any]:
    """The ledger: {"data", "complete": whether all parts were merged, "episodes": entries}. Raises BadDataError."""
    dataset = _dataset(volume, data)
    entries = ledger.read(dataset)
    return {
        "schema": SCHEMA,
        "data": data,
        "complete": ledger.read_manifest(dataset) is not None,
        "episodes": [dataclasses.asdict(entry) for entry in entries],
    }


def episode(volume: Path, data: str, number: int) -> dict[str, Any]:
    """One episode, verified against the ledger: its entry, its signals' ranges, its positive labels, and its picture
    (PNG, in base64). Raises BadConfigError where there is no such episode, BadDataError where it is damaged."""
    dataset = _dataset(volume, data)
    entries = {entry.episode: entry for entry in ledger.read(dataset)}
    if number not in entries:
        raise BadConfigError(
            f"{data} has no episode {number}, but {len(entries)} from {min(entries)} to {max(entries)}"
        )
    entry = entries[number]
    path = ledger.path_of(dataset, entry)
    arrays = reader.read_arrays(path, entry, ("signals", "horizon_labels"))
    with tempfile.NamedTemporaryFile(suffix=".png") as picture:
        plots.plot_episode(entry, arrays, reader.read_instants(path, entry, plots.INSTANTS), Path(picture.name))
        png = base64.b64encode(Path(picture.name).read_bytes()).decode("ascii")
    return {
        "schema": SCHEMA,
        "data": data,
        "episode": {**dataclasses.asdict(entry), "seconds": entry.steps / RATE_HZ},
        "signals": {
            signal.name: {"unit": signal.unit, "min": float(low), "mean": float(mean), "max": float(high)}
            for signal, low, mean, high in zip(
                SIGNALS, *(getattr(arrays["signals"], figure)(axis=0) for figure in ("min", "mean", "max")), strict=True
            )
        },
        "positive_timesteps": {
            failure: dict(zip(map(str, HORIZONS), counts, strict=True))
            for failure, counts in zip(FAILURES, arrays["horizon_labels"].sum(axis=0).T.tolist(), strict=True)
        },
        "picture": png,
    }


def _dataset(volume: Path, data: str) -> Path:
    directory = dataset_directory(volume, data)
    if not directory.is_dir():
        raise BadConfigError(f"the volume has no {data!r}; {_known(volume)}")
    return directory


def _only_dataset(volume: Path) -> str:
    names = _names(volume)
    if len(names) != 1:
        raise BadConfigError(f"say which dataset: {_known(volume)}")
    return names[0]


def _known(volume: Path) -> str:
    return f"it has {', '.join(_names(volume))}" if _names(volume) else "no dataset has been collected on it yet"


def _names(volume: Path) -> list[str]:
    return sorted(f"{DATASETS}/{path.parent.name}" for path in (volume / DATASETS).glob("*/dataset.json"))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser(prog="python -m workers data", description="Prints what a dataset on the volume holds, as JSON.")
    parser.add_argument("data", metavar="DATASET", nargs="?", help="datasets/NAME; may be left out where there is one")
    parser.add_argument("--show", type=int, metavar="EPISODE", help="one episode of it, with a picture")
    return parser.parse_args(arguments)
