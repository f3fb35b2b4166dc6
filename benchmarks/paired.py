"""Two ways of doing one thing, timed in turn (A B A B ...), so that a machine whose speed drifts treats both alike."""

import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Way:
    """A name for the table and one run of it; a run may return its own figure, otherwise its seconds count."""

    name: str
    run: Callable[[], float | None]


def command(name: str, arguments: Sequence[str], env: dict[str, str] | None = None) -> Way:
    """A whole process, from start to exit."""

    def run() -> None:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)

    return Way(name, run)


def measure(way: Way) -> float:
    start = time.perf_counter()
    figure = way.run()
    return time.perf_counter() - start if figure is None else figure


def spread(values: Sequence[float]) -> str:
    return f"median {statistics.median(values):.4g} (min {min(values):.4g}, max {max(values):.4g})"


def compare(claim: str, ours: Way, baseline: Way, *, unit: str = "s", runs: int = 7) -> float:
    """Prints both figures and the ratio ours ÷ baseline pair by pair; returns the median ratio."""
    measure(ours), measure(baseline)  # one run each that doesn't count: caches are warm afterwards
    pairs = [(measure(ours), measure(baseline)) for _ in range(runs)]
    ratios = [a / b for a, b in pairs]
    print(f"{claim}\n  {ours.name}: {spread([a for a, _ in pairs])} {unit}")
    print(f"  {baseline.name}: {spread([b for _, b in pairs])} {unit}\n  ratio: {spread(ratios)} over {runs} pairs")
    return statistics.median(ratios)
