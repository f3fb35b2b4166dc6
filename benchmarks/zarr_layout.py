"""Claim: the images' layout (chunks of 8 timesteps of one camera, one shard, zstd 1) is a good one.

    python benchmarks/zarr_layout.py DATASET [EPISODES]

Ours, the baseline of the table: the schema's layout. Beside it: chunks of 1, 8 and 50 timesteps of one camera or all,
without a shard, other codecs and none. Each episode goes through every layout in turn; figures are medians over the
episodes, "x" is how many times better than ours, episode by episode, with the quartiles: above 1 the other is better.
`to disk` is wall time until fsync has returned, the others are MB of pictures a second of processor time: `write`,
`window` (8 timesteps of one camera at a random place), `whole` (all images). Reads come from the page cache. What the
predictor's training reads (signals and labels, after every file was verified) doesn't depend on it: said last.
Without DATASET two episodes are simulated.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, ZstdCodec

from workers.envs import maker
from workers.envs.settings import CollectSettings
from workers.episodes import ledger, reader
from workers.episodes.schema import ARRAYS, CAMERAS, IMAGE_SHAPE
from workers.episodes.writer import write_episode
from workers.rollouts import Timesteps, rollout

WINDOW, WINDOWS = 8, 10
IMAGES = next(array for array in ARRAYS if array.name == "images")
FIGURES = ("bytes", "to disk", "write", "window", "whole")


@dataclass(frozen=True)
class Layout:
    name: str
    steps: int
    cameras: int
    codec: Any
    sharded: bool = True


def layouts() -> list[Layout]:
    assert IMAGES.chunk == (8, 1, *IMAGE_SHAPE)
    zstd = ZstdCodec(level=IMAGES.zstd_level)
    sizes = [(1, 1), (50, 1), (1, len(CAMERAS)), (8, len(CAMERAS)), (50, len(CAMERAS))]
    return [
        Layout("8 x 1 camera, shard, zstd 1", 8, 1, zstd),
        *(Layout(f"{steps} x {cameras} camera(s)", steps, cameras, zstd) for steps, cameras in sizes),
        Layout("no shard", 8, 1, zstd, sharded=False),
        Layout("zstd 3", 8, 1, ZstdCodec(level=3)),
        Layout("blosc lz4", 8, 1, BloscCodec(cname="lz4", clevel=5, shuffle="noshuffle", typesize=1)),
        Layout("blosc zstd 1", 8, 1, BloscCodec(cname="zstd", clevel=1, shuffle="noshuffle", typesize=1)),
        Layout("not compressed", 8, 1, None),
    ]


def seconds(action: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    start = clock()
    action()
    return clock() - start


def write(directory: Path, layout: Layout, images: np.ndarray) -> None:
    chunks = (layout.steps, layout.cameras, *IMAGE_SHAPE)
    shards = tuple(-(-size // chunk) * chunk for size, chunk in zip(images.shape, chunks, strict=True))
    stored = zarr.create_group(zarr.storage.LocalStore(directory)).create_array(
        "images",
        shape=images.shape,
        dtype=images.dtype,
        chunks=chunks,
        shards=shards if layout.sharded else None,
        chunk_key_encoding={"name": "default", "separator": "."},
        compressors=layout.codec,
        config={"write_empty_chunks": True},
    )
    stored[:] = images
    for path in (*directory.rglob("*"), directory):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def read_windows(directory: Path, starts: Sequence[int]) -> None:
    stored: Any = zarr.open_group(directory, mode="r")["images"]
    for i, start in enumerate(starts):
        stored[start : start + WINDOW, i % len(CAMERAS)]


def figures_of(layout: Layout, images: np.ndarray) -> dict[str, float]:
    """Bytes; MB/s of what is written or read, before compression."""
    starts = np.random.default_rng(0).integers(0, max(1, len(images) - WINDOW), WINDOWS).tolist()
    window = images[:WINDOW, 0].nbytes * WINDOWS
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary, "episode")
        start, processor = time.perf_counter(), seconds(lambda: write(directory, layout, images))
        to_disk = time.perf_counter() - start
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        windows = min(seconds(lambda: read_windows(directory, starts)) for _ in range(2))
        whole = min(seconds(lambda: np.asarray(zarr.open_group(directory, mode="r")["images"])) for _ in range(2))
    sizes = {"to disk": images.nbytes, "write": images.nbytes, "window": window, "whole": images.nbytes}
    rates = {name: sizes[name] / took for name, took in zip(sizes, (to_disk, processor, windows, whole), strict=True)}
    return {"bytes": float(size), **{name: rate / 1e6 for name, rate in rates.items()}}


def simulate(dataset: Path) -> None:
    settings = CollectSettings(episodes=2)
    timesteps = Timesteps(settings.max_steps)
    with closing(maker(settings)()) as env:
        for number in range(settings.episodes):
            episode = rollout(env, number, settings, timesteps, lambda: False, lambda: None)
            assert episode is not None
            write_episode(dataset, episode, 1)


def ratio(ours: Sequence[float], other: Sequence[float], name: str) -> str:
    """Above 1: the other is better."""
    ratios = [a / b if name == "bytes" else b / a for a, b in zip(ours, other, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def compare(dataset: Path, entries: list[ledger.Entry]) -> None:
    ways = layouts()
    found: dict[str, list[dict[str, float]]] = {layout.name: [] for layout in ways}
    figures_of(ways[0], np.zeros((16, len(CAMERAS), *IMAGE_SHAPE), np.uint8))  # does not count: imports, first files
    for arrays in reader.iterate(dataset, entries, ("images",)):
        for layout in ways:
            found[layout.name].append(figures_of(layout, arrays["images"]))
    columns = {name: {figure: [row[figure] for row in rows] for figure in FIGURES} for name, rows in found.items()}
    ours = columns[ways[0].name]
    print(
        "| images | MB an episode | to disk MB/s | write MB/s | window MB/s | whole MB/s |\n|---|---|---|---|---|---|"
    )
    for name, column in columns.items():
        cells = []
        for figure in FIGURES:
            median = statistics.median(column[figure])
            value = f"{median / 1e6:.2f}" if figure == "bytes" else f"{median:.0f}"
            cells.append(value if column is ours else f"{value}, x {ratio(ours[figure], column[figure], figure)}")
        print(f"| {name} | {' | '.join(cells)} |")


def read_as_training(dataset: Path, entries: list[ledger.Entry]) -> None:
    verifying = [seconds(lambda entry=entry: ledger.path_of(dataset, entry)) for entry in entries]
    paths = [ledger.path_of(dataset, entry) for entry in entries]
    names = ("signals", "horizon_labels")
    reading = [
        seconds(lambda path=path, entry=entry: reader.read_arrays(path, entry, names))
        for path, entry in zip(paths, entries, strict=True)
    ]
    print(
        f"training's read of an episode: {statistics.median(verifying) * 1e3:.1f} ms to verify its files, "
        f"{statistics.median(reading) * 1e3:.1f} ms to read signals and labels"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        dataset = Path(sys.argv[1] if len(sys.argv) > 1 else temporary)
        if len(sys.argv) < 2:
            simulate(dataset)
        entries = ledger.read(dataset)
        count = min(len(entries), int(sys.argv[2]) if len(sys.argv) > 2 else 10)
        sample = [entries[i * len(entries) // count] for i in range(count)]
        print(f"{count} episodes of {statistics.mean(entry.steps for entry in sample):.0f} timesteps on average")
        compare(dataset, sample)
        read_as_training(dataset, sample)
