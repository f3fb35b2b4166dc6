"""Pictures of a dataset, for a person to look at: how episodes end, and what one episode looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.episodes.ledger import Entry
from workers.episodes.schema import CAMERAS, OUTCOMES, RATE_HZ, SIGNALS, SUCCESS

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

INSTANTS = 4
COLOURS = {SUCCESS: "#2a9d8f", "drop": "#e76f51", "timeout": "#e9c46a", "collision": "#9d0208", "other": "#6c757d"}


def plot_outcomes(entries: Sequence[Entry], path: Path) -> None:
    """How many episodes ended how, the perturbed ones hatched, with their shares; written to `path` (PNG)."""
    figure = _figure(6.4, 3.6)
    axes = figure.add_subplot()
    total = max(1, len(entries))
    for position, outcome in enumerate(OUTCOMES):
        perturbed = sum(entry.perturbed for entry in entries if entry.outcome == outcome)
        count = sum(entry.outcome == outcome for entry in entries)
        axes.bar(position, count - perturbed, color=COLOURS[outcome])
        axes.bar(position, perturbed, bottom=count - perturbed, color=COLOURS[outcome], hatch="//", edgecolor="white")
        axes.text(position, count, f"{count} ({100 * count / total:.0f} %)", ha="center", va="bottom")
    axes.set_xticks(range(len(OUTCOMES)), OUTCOMES)
    axes.set_ylabel("episodes")
    axes.set_title(f"Outcomes of {len(entries)} episodes (hatched: perturbed)")
    axes.set_ylim(0, 1.12 * max(1, max(sum(entry.outcome == outcome for entry in entries) for outcome in OUTCOMES)))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def plot_episode(entry: Entry, arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """One episode: its cameras at four instants, and below them its twelve signals over time; written to `path` (PNG).

    `arrays`: images (T, 3, 224, 224, 3) u8 and signals (T, 12) f32.
    """
    import numpy as np

    figure = _figure(9.6, 13.2)
    parts: Any = figure.subfigures(2, 1, height_ratios=[1.15, 1.0])
    upper, lower = parts
    instants = np.linspace(0, entry.steps - 1, INSTANTS).round().astype(int)
    grid = upper.subplots(len(CAMERAS), INSTANTS)
    for row, camera in enumerate(CAMERAS):
        for column, instant in enumerate(instants):
            axes = grid[row, column]
            axes.imshow(arrays["images"][instant, row])
            axes.set_xticks([])
            axes.set_yticks([])
            if row == 0:
                axes.set_title(f"{instant / RATE_HZ:.2f} s", fontsize=10)
            if column == 0:
                axes.set_ylabel(camera, fontsize=10)
    disturbed = ", perturbed" if entry.perturbed else ""
    figure.suptitle(
        f"Episode {entry.episode} (seed {entry.seed}{disturbed}): {entry.outcome} after {entry.steps} steps"
    )
    seconds = np.arange(entry.steps) / RATE_HZ
    for index, (axes, signal) in enumerate(zip(lower.subplots(4, 3, sharex=True).flat, SIGNALS, strict=True)):
        axes.plot(seconds, arrays["signals"][:, index], color="#1d3557", linewidth=1)
        for instant in instants:
            axes.axvline(instant / RATE_HZ, color="0.8", linewidth=0.7, zorder=0)
        axes.set_title(signal.name if signal.unit == "1" else f"{signal.name} ({signal.unit})", fontsize=9)
        axes.tick_params(labelsize=7)
        if index >= len(SIGNALS) - 3:
            axes.set_xlabel("s", fontsize=8)
    figure.savefig(path, dpi=110)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no global state, no display
    return figure
