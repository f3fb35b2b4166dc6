"""The text of an evaluation: what a person is told, in the order in which they ask."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from workers.document import Block, Heading, Paragraph, Picture, cell, with_intervals
from workers.episodes.schema import OUTCOMES, RATE_HZ
from workers.tasks import Table
from workers.tasks.predictor.alarms import HOLD
from workers.tasks.predictor.baselines import LEAVES, MOST_SAMPLES, TREES
from workers.tasks.predictor.calibration import BINS
from workers.tasks.predictor.tables import WHOLE, Findings, Row

if TYPE_CHECKING:
    from workers.episodes.ledger import Entry

TITLE = "Failure predictor: what it is worth on episodes that no training saw"
WORDS = {
    "predictor": "the predictor",
    "boosted": "gradient-boosted trees",
    "logistic": "logistic regression",
    "time": "the clock alone",
    "prevalence": "prevalence",
}
TITLES = {
    "f1": "F1",
    "f1_without_timeout": "F1 without timeout",
    "f1_gain": "F1 of the predictor, less the baseline's",
    "allowed_false_alarms": "false alarms allowed",
    "false_alarms": "false alarms an episode",
    "false_alarms_in_successes": "false alarms a success",
    "alarmed_share": "share of failures announced",
    "median_lead_seconds": "median lead time, s",
}
HOLD_SECONDS = HOLD / RATE_HZ


def document(findings: Findings, tables: Mapping[str, Table], split: Mapping[str, Sequence[Entry]]) -> list[Block]:
    """The report's blocks: the findings in three sentences, then tables and pictures. `split`: episodes by split."""

    def shown(name: str) -> Block:
        return with_intervals(tables[name], TITLES)

    blocks: list[Block] = [
        *(Paragraph(text, lead=True) for text in headlines(findings)),
        Paragraph(_data(findings, split)),
        Heading("Beside baselines"),
        Paragraph(_baselines(findings)),
        shown("predictors"),
    ]
    if len(findings.judged) > 1:
        blocks += [Paragraph(compared(findings, "without_timeout")), shown("comparison")]
    return [
        *blocks,
        Picture("plots/precision_recall.png", "Precision and recall; dots: the chosen thresholds"),
        Heading("By horizon and failure type"),
        shown("outputs"),
        Paragraph("F1 of each of the 16 outputs alone, at the threshold of all:"),
        shown("f1_by_horizon_and_type"),
        Heading("How long before a failure it warns"),
        Paragraph(_alarms()),
        shown("lead_time"),
        Picture("plots/lead_time.png", "Failures announced, against false alarms (left) and time (right)"),
        Paragraph(
            "The same without timeouts: their outputs raise no alarm, and their episodes count as without failure."
        ),
        shown("lead_time_without_timeout"),
        Heading("Do failures come as often as the probabilities say?"),
        Paragraph(
            f"The answers are sorted into {BINS} bins that hold as many expected failures each (most probabilities are "
            "near 0). The calibration error is the mean distance of a bin's probability to its share of positives."
        ),
        shown("calibration"),
        Picture("plots/calibration.png", "Calibration: on the dotted line, the probabilities are what they say"),
        Heading("What it looks like"),
        Picture("plots/episodes.png", "One test episode of each outcome: probabilities for the longest horizon"),
    ]


def headlines(findings: Findings) -> list[str]:
    """How good, better than what, how early: one sentence each."""
    model = findings.model
    whole, rest = (findings.row(model, group) for group in WHOLE.values())
    quality = (
        f"On {len(model.labels)} test episodes: F1 {_of(whole, 'f1')}, precision {_of(whole, 'precision')}, "
        f"recall {_of(whole, 'recall')} over all outputs; without timeouts F1 {_of(rest, 'f1')}."
    )
    return [quality, *([compared(findings, "all")] if len(findings.judged) > 1 else []), _lead(findings)]


def compared(findings: Findings, scope: str) -> str:
    """Who wins against the best baseline, by how much, and whether that may be chance."""
    group, percent = WHOLE[scope], 100 * findings.settings.confidence
    rows = {one.name: findings.row(one, group) for one in findings.judged}
    best = max(findings.judged[1:], key=lambda one: rows[one.name]["f1"] or 0.0)
    own, other = rows[findings.model.name], rows[best.name]
    gain, low, high = findings.gain(best, scope)
    where = f"Over {group.title}, "
    if gain is None or low is None or high is None:
        return f"{where}the predictor and {WORDS[best.name]} can't be compared: F1 is undefined for one of them."
    first, second = ("the predictor", WORDS[best.name]) if gain > 0 else (WORDS[best.name], "the predictor")
    verb = "are" if first == WORDS["boosted"] else "is"
    values = (own, other) if gain > 0 else (other, own)
    ends = (low, high) if gain > 0 else (-high, -low)
    chance = "which contains 0: chance is not ruled out" if ends[0] <= 0 <= ends[1] else "which does not contain 0"
    overlap = "overlap" if _overlap(own, other) else "do not overlap"
    return (
        f"{where}{first} {verb} ahead of {second}"
        f"{', the best baseline,' if gain > 0 else ''} by {abs(gain):.3f}: F1 {_of(values[0], 'f1')} against "
        f"{_of(values[1], 'f1')}. {percent:g} % of paired draws lie between {ends[0]:.3f} and {ends[1]:.3f}, {chance}; "
        f"the two intervals {overlap}."
    ).replace(" -0", " −0")


def _lead(findings: Findings) -> str:
    """At the middle one of the budgets."""
    rows = list(findings.alarms(findings.model, "all"))
    budget, _, row = rows[len(rows) // 2]
    share, seconds = row["alarmed_share"], row["median_lead_seconds"]
    if share is None:
        return "No test episode fails, so nothing can be said of lead times."
    early = f", half of these at least {_of(row, 'median_lead_seconds')} s before" if seconds is not None else ""
    return (
        f"At a threshold for at most {budget:g} false alarms an episode, {_of(row, 'false_alarms')} in the test, "
        f"{100 * share:.0f} % of the failures are announced{early}."
    )


def _data(findings: Findings, split: Mapping[str, Sequence[Entry]]) -> str:
    labels = findings.model.labels
    outcomes = Counter(entry.outcome for entry in split["test"])
    counted = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in OUTCOMES)
    answers = sum(label.size for label in labels)
    positives = sum(float(label.sum()) for label in labels)
    return (
        f"Test episodes: {len(labels)} ({counted}), {sum(map(len, labels)):,} timesteps, "
        f"{100 * positives / max(1, answers):.2f} % of the labels positive. All thresholds were chosen on "
        f"{len(split['validation'])} validation episodes, {_chosen_for(findings.settings.beta)}. "
        f"In brackets: {100 * findings.settings.confidence:g} % intervals from {findings.settings.bootstrap:,} draws "
        "of whole episodes."
    )


def _chosen_for(beta: float) -> str:
    return "for F1" if beta == 1 else f"for F-beta: recall counts {beta:g} times as much as precision"


def _baselines(findings: Findings) -> str:
    if len(findings.judged) == 1:
        return "No baseline was asked for, or there was no training episode to fit one on."
    return (
        "All see the same windows of signals of the same training episodes, but time (timesteps since the start, "
        "nothing else: what the clock alone foretells) and prevalence (how often each failure comes). Boosted and "
        f"time: {TREES} trees of at most {LEAVES} leaves for each output (scikit-learn's "
        f"HistGradientBoostingClassifier). Baselines are fitted on at most {MOST_SAMPLES:,} timesteps. "
        "Without timeout: 12 outputs, at the threshold that is best for them."
    )


def _alarms() -> str:
    return (
        "An alarm is on while the highest of the probabilities reaches the threshold. It says that a failure comes "
        f"within {HOLD_SECONDS:g} s, the longest horizon, so in the last {HOLD_SECONDS:g} s before a failure it is "
        "true. Lead time: from the first such moment to the failure. At any other time it is false, in episodes that "
        f"fail as in those that succeed, and one that stays on is counted again every {HOLD_SECONDS:g} s. The "
        "threshold is the lowest that keeps to the false alarms allowed on validation episodes."
    )


def _of(row: Row, name: str) -> str:
    return cell(row[name], row[f"{name}_low"], row[f"{name}_high"])


def _overlap(one: Row, two: Row) -> bool:
    bounds = [row[f"f1_{end}"] for row in (one, two) for end in ("low", "high")]
    low, high, other_low, other_high = (bound if bound is not None else float("nan") for bound in bounds)
    return low <= other_high and other_low <= high
