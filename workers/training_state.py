"""What a training has come to know over all its attempts: the plain part of a checkpoint, beside the tensors."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.episodes.ledger import Entry
    from workers.tasks import Table


@dataclass
class State:
    """What a run has come to know, over all its attempts. `seen_seeds`: of every episode that shaped the weights."""

    split: Table
    seen_seeds: list[int]
    best: dict[str, float] | None = None
    validation: dict[str, float] = field(default_factory=dict)
    lost_best: dict[str, float] | None = None  # better ones that were damaged or removed, and none as good since
    resumes: int = 0
    stopped_early: bool = False
    seconds: float = 0.0

    def as_in(self, state: dict[str, Any]) -> State:
        """What a checkpoint knows; of what it lacks, this state's own, with which the run began."""
        known = {name: value for name, value in state.get("progress", {}).items() if name in PROGRESS}
        return replace(self, **known, seen_seeds=state.get("seenSeeds", self.seen_seeds))

    def ending(self, step: int, settings: Any) -> str:
        """`trained 60 steps; best on validation is step 40 with F1 0.713`."""
        told = f"trained {step} steps"
        if self.stopped_early:
            told += f" of {settings.steps}, as {settings.patience} looks brought nothing better"
        if self.best:
            told += f"; best on validation is step {self.best['step']:.0f} with F1 {score(self.best):.3f}"
        else:
            told += "; no look at the validation episodes gave a finite score, so there are no best weights"
        if self.lost_best:
            step_lost, score_lost = self.lost_best["step"], score(self.lost_best)
            told += f" (those of step {step_lost:.0f}, with F1 {score_lost:.3f}, were damaged or removed)"
        return told


PROGRESS = {found.name for found in fields(State)} - {"seen_seeds"}


def score(figures: dict[str, float] | None) -> float:
    return (figures or {}).get("validation_score", float("-inf"))


def best_step(state: dict[str, Any]) -> int | None:
    """Of the best weights that a checkpoint's state speaks of."""
    best = state.get("progress", {}).get("best")
    return best["step"] if best else None


def split_table(episodes: dict[str, list[Entry]]) -> Table:
    rows = [[name, entry.episode, entry.seed, entry.outcome] for name, some in episodes.items() for entry in some]
    return {"columns": ["split", "episode", "seed", "outcome"], "rows": rows}


def seen_seeds(episodes: dict[str, list[Entry]]) -> list[int]:
    """Seeds of the episodes that shape the weights: trained on, or used to choose the best."""
    return sorted(entry.seed for name in ("train", "validation") for entry in episodes[name])
