"""Pictures of a dataset, for a person to look at: how episodes end, and what one episode looks like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.episodes.ledger import Entry
from workers.episodes.reader import instants_of
from workers.episodes.schema import CAMERAS, HORIZONS, OUTCOMES, RATE_HZ, SIGNALS, SUCCESS

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


def plot_episode(entry: Entry, arrays: Mapping[str, np.ndarray], images: np.ndarray, path: Path) -> None:
    """One episode: its cameras at up to four instants, below them its twelve signals over time and its labels.

    `arrays`: signals (T, 12) f32 and horizon_labels (T, 4, 4) u8; `images` (I, 3, 224, 224, 3) u8 as read_instants
    gives them for INSTANTS; `path`: the PNG to write.
    """
    figure = _figure(9.6, 14.6)
    parts: Any = figure.subfigures(3, 1, height_ratios=[1.15, 1.0, 0.17])
    upper, lower, bottom = parts
    instants = instants_of(entry.steps, INSTANTS)
    grid = upper.subplots(len(CAMERAS), len(instants), squeeze=False)
    for row, camera in enumerate(CAMERAS):
        for column, instant in enumerate(instants):
            axes = grid[row, column]
            axes.imshow(images[column, row])
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
    seconds = [step / RATE_HZ for step in range(entry.steps)]
    for index, (axes, signal) in enumerate(zip(lower.subplots(4, 3, sharex=True).flat, SIGNALS, strict=True)):
        axes.plot(seconds, arrays["signals"][:, index], color="#1d3557", linewidth=1)
        for instant in instants:
            axes.axvline(instant / RATE_HZ, color="0.8", linewidth=0.7, zorder=0)
        axes.set_title(signal.name if signal.unit == "1" else f"{signal.name} ({signal.unit})", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.ticklabel_format(useOffset=False)
        if index >= len(SIGNALS) - 3:
            axes.set_xlabel("s", fontsize=8)
    _plot_labels(bottom.subplots(), entry, arrays["horizon_labels"])
    figure.savefig(path, dpi=110)


def _plot_labels(axes: Any, entry: Entry, labels: np.ndarray) -> None:
    """A bar a horizon where its label is 1. All labels are of the episode's own failure type."""
    ahead = labels.max(axis=2)  # (T, 4)
    for row in range(len(HORIZONS)):
        steps = ahead[:, row].nonzero()[0]
        if len(steps):
            span = (steps[0] / RATE_HZ, len(steps) / RATE_HZ)
            axes.broken_barh([span], (row - 0.4, 0.8), color=COLOURS[entry.outcome])
        axes.axhline(row, color="0.9", linewidth=0.7, zorder=0)
    axes.set_yticks(range(len(HORIZONS)), [f"{1000 * horizon / RATE_HZ:.0f} ms" for horizon in HORIZONS], fontsize=7)
    axes.set_ylim(len(HORIZONS) - 0.5, -0.5)
    axes.set_xlim(0, entry.steps / RATE_HZ)
    axes.tick_params(labelsize=7)
    told = "none of the 16 is ever 1" if entry.outcome == SUCCESS else f"where “{entry.outcome} within …” is 1"
    axes.set_title(f"labels: {told}", fontsize=9)
    axes.set_xlabel("s", fontsize=8)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # no pyplot: no global state, no display
    return figure
