"""GPU profiles, read from the chart: the chart must render without jobctl, so they live there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from jobctl.chart import chart_directory, profile_names, read_yaml
from jobctl.errors import UsageError, nearest


@dataclass(frozen=True)
class Sizes:
    """What one replica of a kind is given unless the spec's `resources` says otherwise: Kubernetes quantities."""

    cpu: str
    memory: str  # /dev/shm included
    shm: str
    tmp: str


@dataclass(frozen=True)
class Profile:
    """A named GPU and the needs of each kind of job on it. `gpu_memory_gib` is None where there is no GPU."""

    name: str
    description: str
    device: Literal["cpu", "cuda"]
    products: tuple[str, ...]
    gpu_memory_gib: float | None
    kinds: Mapping[str, Sizes]


def names() -> list[str]:
    """The known profiles, `cpu` among them, sorted."""
    return profile_names()


def load(name: str) -> Profile:
    """The profile of this name. Raises UsageError naming the nearest ones."""
    if name not in names():
        raise UsageError(f"There is no profile {name!r}{nearest(name, names())}.")
    return _read(chart_directory() / "profiles" / f"{name}.yaml")


def load_all() -> list[Profile]:
    """Every profile, by name."""
    return [load(name) for name in names()]


@cache
def _read(path: Path) -> Profile:
    document = read_yaml(path)
    return Profile(
        name=path.stem,
        description=document["description"],
        device=document["device"],
        products=tuple(document.get("products", ())),
        gpu_memory_gib=document.get("gpuMemoryGiB"),
        kinds={kind: Sizes(**sizes) for kind, sizes in document["kinds"].items()},
    )
