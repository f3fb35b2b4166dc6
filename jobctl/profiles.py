"""GPU profiles, read from the chart: the chart must render without jobctl, so they live there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from jobctl.chart import chart_directory, profile_names, read_yaml
from jobctl.errors import UsageError, nearest


@dataclass(frozen=True)
class Profile:
    """A named GPU, and what goes with one of it on its node; what a job needs stands in the chart's tasks/.

    `gpu_memory_gib` is None where there is no GPU. `cpu_share_millicores`: the most that a job asks for each GPU of a
    replica (without a GPU: for a replica). `host_memory_mib`: what a process takes on the host for using the device.
    """

    name: str
    description: str
    device: Literal["cpu", "cuda"]
    products: tuple[str, ...]
    gpu_memory_gib: float | None
    cpu_share_millicores: int
    host_memory_mib: int


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
        cpu_share_millicores=document["share"]["cpuMillicores"],
        host_memory_mib=document["hostMemoryMiB"],
    )
