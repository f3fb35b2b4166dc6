"""Pictures and text of an evaluation, for people."""
# ruff: noqa: N806 - arrays' names end in their shape

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.episodes.schema import FAILURES, HORIZONS, RATE_HZ
from workers.tasks.predictor import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workers.episodes.ledger import Entry
    from workers.tasks import Table
    from workers.tasks.predictor.judging import Judged

EVERYTHING = (slice(None), slice(None))


def write(directory: Path, judged: Sequence[Judged], entries: Sequence[Entry], tables: Mapping[str, Table]) -> None:
    """Write plots/precision_recall.png, plots/episodes.png and report.md below `directory`."""
    (directory / "plots").mkdir(exist_ok=True)
    _save(_precision_recall(judged), directory / "plots" / "precision_recall.png")
    _save(_episodes(judged[0], entries), directory / "plots" / "episodes.png")
    (directory / "report.md").write_text(_report(judged[0], tables), encoding="utf-8")


def _precision_recall(judged: Sequence[Judged]) -> Figure:
    """Left: all 16 outputs, beside the baselines; right: each horizon. Dots: the chosen thresholds."""
    figure = _figure(11, 5)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for one in judged:
        _curve(left, one, EVERYTHING, one.name)
    for key, title, index in metrics.groups():
        if key.startswith("horizon"):
            _curve(right, judged[0], index, title)
    for axes, title in ((left, "all 16 outputs"), (right, "each horizon")):
        axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
    return figure


def _curve(axes: Axes, judged: Judged, index: tuple[slice | int, ...], label: str) -> None:
    from sklearn.metrics import precision_recall_curve

    at = (slice(None), *index)
    true = np.concatenate([labels[at].ravel() for labels in judged.labels])
    if not true.any():
        return
    scores = np.concatenate([probabilities[at].ravel() for probabilities in judged.probabilities])
    precision, recall, _ = precision_recall_curve(true, scores)
    (line,) = axes.step(recall, precision, where="post", label=label)
    chosen = metrics.figures(judged.counts()[at])
    if chosen["precision"] is not None and chosen["recall"] is not None:
        axes.plot(chosen["recall"], chosen["precision"], "o", color=line.get_color())


def _episodes(judged: Judged, entries: Sequence[Entry]) -> Figure:
    """The first test episode of each outcome: what was predicted for the longest horizon, and (shaded) what came."""
    first: dict[str, int] = {}
    for place, entry in enumerate(entries):
        first.setdefault(entry.outcome, place)
    figure = _figure(9, 1 + 1.6 * len(first))
    rows = np.atleast_1d(figure.subplots(len(first), 1, sharey=True))
    for axes, (outcome, place) in zip(rows, sorted(first.items()), strict=True):
        probabilities_BF, labels_BF = judged.probabilities[place][:, -1], judged.labels[place][:, -1]
        seconds = np.arange(len(probabilities_BF)) / RATE_HZ
        for f, failure in enumerate(FAILURES):
            axes.plot(seconds, probabilities_BF[:, f], color=f"C{f}", label=failure)
            axes.fill_between(seconds, 0, 1, where=labels_BF[:, f] > 0, color=f"C{f}", alpha=0.15)
        axes.axhline(judged.threshold, color="grey", linestyle=":")
        axes.set(ylim=(0, 1), ylabel="probability", title=f"episode {entries[place].episode}: {outcome}")
    rows[0].legend(loc="upper left", ncols=len(FAILURES), fontsize="small")
    rows[-1].set_xlabel(f"seconds; shaded: a failure comes within {HORIZONS[-1]} timesteps")
    return figure


def _report(judged: Judged, tables: Mapping[str, Table]) -> str:
    lines = [
        "# Failure predictor: what it is worth on episodes that no training saw",
        "",
        f"{len(judged.labels)} test episodes, {sum(map(len, judged.labels))} timesteps.",
        "Thresholds were chosen on validation episodes. Ranges: bootstrap over episodes.",
    ]
    for title, name in (("Beside baselines, all 16 outputs", "predictors"), ("By horizon and failure type", "outputs")):
        lines += ["", f"## {title}", "", *_markdown(tables[name])]
    lines += ["", "![precision and recall](plots/precision_recall.png)", "", "![episodes](plots/episodes.png)", ""]
    return "\n".join(lines)


def _markdown(table: Table) -> list[str]:
    """A table in which each figure and its interval share a cell."""
    columns = [column for column in table["columns"] if not column.endswith(("_low", "_high"))]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for values in table["rows"]:
        row = dict(zip(table["columns"], values, strict=True))
        lines.append("| " + " | ".join(_cell(row, column) for column in columns) + " |")
    return lines


def _cell(row: Mapping[str, Any], column: str) -> str:
    value, low, high = row[column], row.get(f"{column}_low"), row.get(f"{column}_high")
    if value is None:
        return "undefined"
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if low is None or high is None else f"{text} ({low:.2f}–{high:.2f})"


def _figure(width: float, height: float) -> Figure:
    """A figure without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=110)
