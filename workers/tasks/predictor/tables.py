"""What an evaluation found, as tables and as flat figures that gates may name. Undefined figures are None or absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workers import sampling
from workers.episodes.schema import FAILURES, HORIZONS, RATE_HZ
from workers.tasks import Table
from workers.tasks.predictor import alarms, metrics
from workers.tasks.predictor.calibration import Reliability, reliability
from workers.tasks.predictor.judged import Judged, fails, scores
from workers.tasks.predictor.settings import EvalSettings

Row = dict[str, float | None]
MODEL = "predictor"
GROUPS = {group.key: group for group in metrics.groups()}
WHOLE = {"all": GROUPS["micro"], "without_timeout": GROUPS["without_timeout"]}  # all outputs of each scope
SUFFIX = {"all": "", "without_timeout": "_without_timeout"}
WITH_INTERVAL = ("", "_low", "_high")
ALARM_FIGURES = ("false_alarms", "false_alarms_in_successes", "alarmed_share", "median_lead_seconds")


def gates(settings: EvalSettings) -> list[str]:
    """Figures that a spec may set a lower bound for: those that are better the higher they are."""
    found = [*metrics.FIGURES]
    found += [f"{figure}_{key}" for key in GROUPS if key != "micro" for figure in metrics.FIGURES]
    found += [f"gain_over_{baseline}{suffix}" for suffix in SUFFIX.values() for baseline in settings.baselines]
    for scope in SUFFIX:
        for budget in settings.false_alarms:
            found += [f"{figure}{_at(budget, scope)}" for figure in ("alarmed_share", "median_lead_seconds")]
    return found


@dataclass(frozen=True)
class Findings:
    """All that is computed from the answers: the model's first, then the baselines'."""

    judged: Sequence[Judged]
    settings: EvalSettings

    @property
    def model(self) -> Judged:
        return self.judged[0]

    @cached_property
    def weights(self) -> np.ndarray:
        """The bootstrap's draws (D, E): the same for every figure, so that figures can be compared."""
        random = sampling.generator("bootstrap", self.settings.seed)
        return metrics.resampled(len(self.model.labels), self.settings.bootstrap, random)

    def row(self, judged: Judged, group: metrics.Group) -> Row:
        """Precision, recall and F1 of some of the outputs, each with its interval."""
        counted = judged.of(group)
        between = metrics.intervals(counted, self.weights, self.settings.confidence)
        found: Row = {}
        for name, value in metrics.figures(counted).items():
            low, high = between.get(name, (None, None)) if value is not None else (None, None)
            found |= {name: value, f"{name}_low": low, f"{name}_high": high}
        return found

    def gain(self, baseline: Judged, scope: str) -> tuple[float | None, float | None, float | None]:
        """The model's F1 less a baseline's, and the interval of the paired difference."""
        group = WHOLE[scope]
        return metrics.gain(self.model.of(group), baseline.of(group), self.weights, self.settings.confidence)

    def alarms(self, judged: Judged, scope: str) -> Iterator[tuple[float, float, Row]]:
        """(budget, threshold, figures) of each budget of false alarms."""
        rises, failing = scores(judged.probabilities, scope), fails(judged.labels, scope)
        succeeds = ~fails(judged.labels, "all")
        for budget, threshold in zip(self.settings.false_alarms, judged.alarm_thresholds[scope], strict=True):
            raised = alarms.raised(rises, failing, np.array([threshold]))
            found = alarms.figures(raised, failing, succeeds, self.weights, self.settings.confidence)
            yield budget, threshold, found

    def reliability(self, judged: Judged, group: metrics.Group) -> Reliability:
        answers = [probabilities[:, group.outputs] for probabilities in judged.probabilities]
        labels = [labels[:, group.outputs] for labels in judged.labels]
        return reliability(answers, labels, self.weights, self.settings.confidence)

    def figures(self) -> dict[str, float]:
        """Flat figures. The model's bear no name, a baseline's end in its name."""
        labels = self.model.labels
        found: Row = {
            "episodes": len(labels),
            "timesteps": sum(map(len, labels)),
            "positives": int(sum(label.sum() for label in labels)),
            "threshold": self.model.thresholds["all"],
            "threshold_without_timeout": self.model.thresholds["without_timeout"],
        }
        for key, group in GROUPS.items():
            found |= _named(self.row(self.model, group), "" if key == "micro" else f"_{key}")
        for baseline in self.judged[1:]:
            for scope, group in WHOLE.items():
                found |= _named(self.row(baseline, group), f"{SUFFIX[scope]}_{baseline.name}")
                gained = zip(WITH_INTERVAL, self.gain(baseline, scope), strict=True)
                found |= {f"gain_over_{baseline.name}{SUFFIX[scope]}{bound}": value for bound, value in gained}
        for scope in WHOLE:
            for budget, _, row in self.alarms(self.model, scope):
                found |= _named(row, _at(budget, scope))
        for key in ("micro", *(f"horizon_{horizon}" for horizon in HORIZONS)):
            suffix = "" if key == "micro" else f"_{key}"
            found[f"calibration_error{suffix}"] = self.reliability(self.model, GROUPS[key]).error
        return {name: value for name, value in found.items() if value is not None}

    def tables(self) -> dict[str, Table]:
        """By name. Those with `detail` are for the report, not for a terminal."""
        return {
            "predictors": self._predictors(),
            "comparison": self._comparison(),
            "outputs": self._outputs(),
            "f1_by_horizon_and_type": self._cells() | {"detail": True},
            "lead_time": self._lead_time("all"),
            "lead_time_without_timeout": self._lead_time("without_timeout") | {"detail": True},
            "calibration": self._calibration() | {"detail": True},
        }

    def _predictors(self) -> Table:
        rows = []
        for one in self.judged:
            whole, rest = (self.row(one, group) for group in WHOLE.values())
            beside = {f"f1_without_timeout{bound}": rest[f"f1{bound}"] for bound in WITH_INTERVAL}
            rows.append({"predictor": one.name, "threshold": one.thresholds["all"], **whole, **beside})
        return _table(rows)

    def _comparison(self) -> Table:
        rows = []
        for scope, group in WHOLE.items():
            for baseline in self.judged[1:]:
                gain, low, high = self.gain(baseline, scope)
                decided = low is not None and high is not None and (low > 0 or high < 0)
                winner = MODEL if (gain or 0) > 0 else baseline.name
                rows.append(
                    {"outputs": group.title, "baseline": baseline.name, "f1_gain": gain}
                    | {"f1_gain_low": low, "f1_gain_high": high, "better": winner if decided else "not decided"}
                )
        return _table(rows, ["outputs", "baseline", "f1_gain", "f1_gain_low", "f1_gain_high", "better"])

    def _outputs(self) -> Table:
        rows = []
        for group in GROUPS.values():
            positives = int(sum(label[:, group.outputs].sum() for label in self.model.labels))
            rows.append({"outputs": group.title, "positives": positives} | self.row(self.model, group))
        return _table(rows)

    def _cells(self) -> Table:
        """F1 of each of the 16 outputs alone."""
        rows = []
        for h, horizon in enumerate(HORIZONS):
            row: dict[str, object] = {"horizon": f"{horizon} timesteps ({1000 * horizon // RATE_HZ} ms)"}
            for f, failure in enumerate(FAILURES):
                only = np.zeros((len(HORIZONS), len(FAILURES)), dtype=bool)
                only[h, f] = True
                found = self.row(self.model, metrics.Group("", "", "all", only))
                row |= {f"{failure}{bound}": found[f"f1{bound}"] for bound in WITH_INTERVAL}
            rows.append(row)
        return _table(rows)

    def _lead_time(self, scope: str) -> Table:
        found = ((one, *told) for one in self.judged for told in self.alarms(one, scope))
        return _table(
            [
                {"allowed_false_alarms": budget, "predictor": one.name, "threshold": _finite(threshold), **row}
                for one, budget, threshold, row in sorted(found, key=lambda told: told[1])
            ]
        )

    def _calibration(self) -> Table:
        horizons = [GROUPS[f"horizon_{horizon}"] for horizon in HORIZONS]
        pairs = [(self.model, group) for group in (GROUPS["micro"], *horizons)]
        pairs += [(baseline, GROUPS["micro"]) for baseline in self.judged[1:]]
        rows = []
        for one, group in pairs:
            curve = self.reliability(one, group)
            mean, share = (float(np.average(of, weights=curve.answers)) for of in (curve.predicted, curve.observed))
            rows.append(
                {"predictor": one.name, "outputs": group.title, "mean_probability": mean}
                | {"share_of_positives": share, "calibration_error": curve.error}
            )
        return _table(rows)


def _named(row: Row, suffix: str) -> Row:
    """A row's figures as f1_SUFFIX, f1_SUFFIX_low and f1_SUFFIX_high."""
    bounds = {column: next((end for end in ("_low", "_high") if column.endswith(end)), "") for column in row}
    return {f"{column.removesuffix(bounds[column])}{suffix}{bounds[column]}": value for column, value in row.items()}


def _at(budget: float, scope: str) -> str:
    """`_at_0_5`, `_at_0_5_without_timeout`: no dots, which `helm --set` would take for levels."""
    return f"_at_{budget:g}{SUFFIX[scope]}".replace(".", "_")


def _finite(threshold: float) -> float | None:
    return threshold if np.isfinite(threshold) else None


def _table(rows: Sequence[Mapping[str, object]], columns: Sequence[str] | None = None) -> Table:
    names = list(rows[0]) if rows else list(columns or ())
    return {"columns": names, "rows": [[row[name] for name in names] for row in rows]}
