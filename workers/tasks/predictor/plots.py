"""Pictures of an evaluation, for people."""
# ruff: noqa: N806 - arrays' names end in their shape

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workers.episodes.schema import FAILURES, HORIZONS, OUTCOMES, RATE_HZ
from workers.tasks.predictor import alarms, metrics
from workers.tasks.predictor.judged import Judged, fails, scores
from workers.tasks.predictor.tables import GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from workers.episodes.ledger import Entry
    from workers.tasks.predictor.calibration import Reliability
    from workers.tasks.predictor.tables import Findings

HORIZON_GROUPS = [GROUPS[f"horizon_{horizon}"] for horizon in HORIZONS]
COLOURS = {"predictor": "#1d3557", "boosted": "#e76f51", "logistic": "#2a9d8f", "time": "#9d4edd", "prevalence": "0.6"}
SHADES = ("#0b2545", "#2f6690", "#5fa8d3", "#a9d6e5")  # of the horizons, the shortest first
MOST_FALSE_ALARMS = 3.0  # an episode; who wants more does not need a predictor


def write(directory: Path, findings: Findings, entries: Sequence[Entry]) -> None:
    """Write plots/*.png below `directory`."""
    (directory / "plots").mkdir(exist_ok=True)
    drawn = {
        "precision_recall": _precision_recall(findings),
        "lead_time": _lead_time(findings),
        "calibration": _calibration(findings),
        "episodes": _episodes(findings.model, entries),
    }
    for name, figure in drawn.items():
        figure.savefig(directory / "plots" / f"{name}.png", dpi=110)


def _precision_recall(findings: Findings) -> Figure:
    """Left: all 16 outputs, beside the baselines; right: each horizon. Dots: the chosen thresholds."""
    figure = _figure(11, 5)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for one in findings.judged:
        _curve(left, one, GROUPS["micro"], one.name, COLOURS[one.name])
    for group, colour in zip(HORIZON_GROUPS, SHADES, strict=True):
        _curve(right, findings.model, group, group.title, colour)
    for axes, title in ((left, "all 16 outputs"), (right, "the predictor, each horizon")):
        _dress(axes, title, "recall", "precision")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(loc="best", fontsize="small", title="average precision", title_fontsize="small")
    return figure


def _curve(axes: Axes, judged: Judged, group: metrics.Group, label: str, colour: str) -> None:
    from sklearn.metrics import average_precision_score, precision_recall_curve

    true = np.concatenate([labels[:, group.outputs].ravel() for labels in judged.labels])
    if not true.any():
        return
    answers = np.concatenate([probabilities[:, group.outputs].ravel() for probabilities in judged.probabilities])
    precision, recall, _ = precision_recall_curve(true, answers, drop_intermediate=True)
    label = f"{average_precision_score(true, answers):.2f}  {label}"
    axes.step(recall, precision, where="post", label=label, color=colour)
    chosen = metrics.figures(judged.of(group))
    if chosen["precision"] is not None and chosen["recall"] is not None:
        axes.plot(chosen["recall"], chosen["precision"], "o", color=colour)


def _lead_time(findings: Findings) -> Figure:
    """Left: failures announced against false alarms, beside the baselines; right: how long before they are."""
    figure = _figure(11, 5)
    left, right = figure.subplots(1, 2, sharey=True)
    _announced(left, findings)
    _in_time(right, findings)
    return figure


def _announced(axes: Axes, findings: Findings) -> None:
    failing = fails(findings.model.labels, "all")
    for one in findings.judged:
        rises = scores(one.probabilities, "all")
        found = alarms.raised(rises, failing, alarms.thresholds_of(rises))
        false, share = found.false_EA.mean(0), (found.lead_EA[failing] > 0).mean(0) if failing.any() else None
        if share is not None:
            shown = false <= MOST_FALSE_ALARMS
            points = np.array([[0, 0], *zip(false[shown], share[shown], strict=True)])
            axes.step(*points.T, where="post", label=one.name, color=COLOURS[one.name])
    for _, _, row in findings.alarms(findings.model, "all"):
        if row["false_alarms"] is not None and row["alarmed_share"] is not None:
            axes.plot(row["false_alarms"], row["alarmed_share"], "o", color=COLOURS["predictor"])
    _dress(axes, "failures announced", "false alarms an episode", "share of failures")
    axes.set(xlim=(-0.03, MOST_FALSE_ALARMS), ylim=(0, 1.02))
    axes.legend(loc="best", fontsize="small")


def _in_time(axes: Axes, findings: Findings) -> None:
    """The share of failures that the model announces at least so long before."""
    model, failing = findings.model, fails(findings.model.labels, "all")
    rises, seconds = scores(model.probabilities, "all"), np.arange(1, alarms.HOLD + 1) / RATE_HZ
    shown = list(zip(findings.settings.false_alarms, model.alarm_thresholds["all"], strict=True))
    for (budget, threshold), colour in zip(shown, SHADES * 2, strict=False):
        lead = alarms.raised(rises, failing, np.array([threshold])).lead_EA[failing, 0]
        if len(lead):
            share = (lead[:, None] >= np.arange(1, alarms.HOLD + 1)).mean(0)
            axes.step(seconds, share, where="pre", color=colour, label=f"at most {budget:g} false alarms an episode")
    _dress(axes, "the predictor: how long before", "seconds before the failure", "")
    axes.set(xlim=(seconds[-1], 0))
    axes.legend(loc="best", fontsize="small", title="threshold for", title_fontsize="small")


def _calibration(findings: Findings) -> Figure:
    """Probability against how often the failure came. Left: all outputs, with intervals; right: each horizon."""
    figure = _figure(11, 5)
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for one in findings.judged:
        _reliability(left, findings.reliability(one, GROUPS["micro"]), one.name, COLOURS[one.name], bars=True)
    for group, colour in zip(HORIZON_GROUPS, SHADES, strict=True):
        _reliability(right, findings.reliability(findings.model, group), group.title, colour, bars=False)
    for axes, title in ((left, "all 16 outputs"), (right, "the predictor, each horizon")):
        axes.plot((0, 1), (0, 1), color="0.4", linestyle=":", zorder=0)
        _dress(axes, title, "probability, mean of a bin", "share of positives in the bin")
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(loc="upper left", fontsize="small", title="expected calibration error", title_fontsize="small")
    return figure


def _reliability(axes: Axes, curve: Reliability, label: str, colour: str, bars: bool) -> None:
    below, above = (curve.observed - curve.low).clip(0), (curve.high - curve.observed).clip(0)
    axes.errorbar(
        curve.predicted,
        curve.observed,
        yerr=(below, above) if bars else None,
        marker="o",
        markersize=4,
        linewidth=1.2,
        elinewidth=0.6,
        color=colour,
        label=f"{curve.error:.3f}  {label}",
    )


def _episodes(judged: Judged, entries: Sequence[Entry]) -> Figure:
    """The first test episode of each outcome: what was predicted for the longest horizon, and (shaded) what came."""
    first: dict[str, int] = {}
    for place, entry in enumerate(entries):
        first.setdefault(entry.outcome, place)
    figure = _figure(9, 1 + 1.6 * len(first))
    rows = np.atleast_1d(figure.subplots(len(first), 1, sharey=True))
    outcomes = sorted(first, key=OUTCOMES.index)
    for axes, place in zip(rows, (first[outcome] for outcome in outcomes), strict=True):
        probabilities_BF, labels_BF = judged.probabilities[place][:, -1], judged.labels[place][:, -1]
        seconds = np.arange(len(probabilities_BF)) / RATE_HZ
        for f, failure in enumerate(FAILURES):
            axes.plot(seconds, probabilities_BF[:, f], color=f"C{f}", label=failure)
            axes.fill_between(seconds, 0, 1, where=labels_BF[:, f] > 0, color=f"C{f}", alpha=0.15)
        axes.axhline(judged.thresholds["all"], color="grey", linestyle=":")
        axes.set(ylim=(0, 1), ylabel="probability", title=f"episode {entries[place].episode}: {entries[place].outcome}")
        axes.set_xlim(0, max(seconds[-1], 1 / RATE_HZ) if len(seconds) else 1)
    handles, labels = rows[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=len(FAILURES), fontsize="small")
    rows[-1].set_xlabel(f"seconds; shaded: a failure comes within {HORIZONS[-1]} timesteps")
    return figure


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(width: float, height: float) -> Figure:
    """A figure without pyplot: no global state, no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
