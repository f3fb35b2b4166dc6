"""What each ingredient of the predictor gives: trainings that differ in one setting, over three seeds, on one dataset.

    python scripts/ablations.py SPEC [--seeds 0 1 2] [--only VARIANT ...] [--steps N] [--write]

SPEC is a file such as examples/salus.yaml, whose dataset is there already. Every training is a job of its own, run by
`jobctl submit`, so the command can be interrupted and typed again. They are judged by their best look at the validation
episodes: the test episodes have no part in a choice.
"""

import argparse
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import marked
import yaml
from typed import ROOT, results, submit

DOCS = ROOT / "docs" / "salus.md"
BEGIN, END = "<!-- ablations: made by scripts/ablations.py -->", "<!-- end of ablations -->"
BASE = "all ingredients"
INGREDIENTS = {"posWeight": 3.0}  # what the spec has left out since, because of this table
# what differs → the settings that say so
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "medium": {"model": "medium"},
    "large": {"model": "large"},
    "no horizon weights": {"horizonWeights": [1.0, 1.0, 1.0, 1.0]},
    "no temporal consistency": {"consistency": 0.0},
    "no augmentation": {"noise": 0.0, "jitter": 0, "historyCut": 0.0},
    "no cut pasts": {"historyCut": 0.0},
    "no class weighting": {"posWeight": 1.0},
    "weights by class frequency": {"posWeight": None},
    "label smoothing 0.1": {"labelSmoothing": 0.1},
    "no dropout": {"dropout": 0.0},
    "constant rate after the warm-up": {"schedule": "constant"},
    "no warm-up": {"warmupFraction": 0.0},
    "the present timestep alone": {"context": 1},
    "the last ten timesteps alone": {"reach": 9},
    "a reach of 96": {"reach": 96},
    "the whole episode": {"reach": 199},
    "twice the timesteps seen": {"context": 20},
    "no early stopping": {"patience": None},
}


@dataclass(frozen=True)
class End:
    """How one training ended: its best F1 on validation, at which step, and what it cost."""

    f1: float
    step: float
    seconds: float


def main() -> None:
    asked = _parse()
    base = next(document for document in yaml.safe_load_all(asked.spec.read_text()) if document["kind"] == "train")
    variants = [BASE, *(asked.only or [name for name in VARIANTS if name != BASE])]
    jobs = {(name, seed): _document(base, name, seed, asked.steps) for name in variants for seed in asked.seeds}
    if code := submit(list(jobs.values())):
        sys.exit(code)
    ends = {key: _end(document["name"]) for key, document in jobs.items()}
    table = _table(ends, asked.seeds)
    print(table)
    if asked.write:
        marked.replace(DOCS, BEGIN, END, table)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains with one ingredient changed at a time, and compares.")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=sorted(VARIANTS), metavar="VARIANT", help="not all of them")
    parser.add_argument("--steps", type=int, help="instead of the spec's, for a quick look")
    parser.add_argument("--write", action="store_true", help="put the table into docs/salus.md")
    return parser.parse_args()


def _document(base: dict[str, Any], variant: str, seed: int, steps: int | None) -> dict[str, Any]:
    name = f"abl-{variant.replace(' ', '-').replace('.', '')}-s{seed}"
    own = {**VARIANTS[variant], **({"steps": steps} if steps else {}), "seed": seed}
    return {**base, "name": name, "settings": {**base["settings"], **INGREDIENTS, **own}}


def _end(name: str) -> End:
    figures = results(name)["figures"]
    return End(figures["best_validation_score"], figures["best_step"], figures["train_seconds"])


def _table(ends: dict[tuple[str, int], End], seeds: list[int]) -> str:
    """Markdown, a row a variant: means and range over the seeds, and the difference to BASE seed by seed."""
    head = (
        "what differs",
        "best F1 on validation (range)",
        f"less than with {BASE}, seed by seed",
        "best step",
        "seconds",
    )
    rows = []
    for variant in dict.fromkeys(variant for variant, _ in ends):
        own = [ends[variant, seed] for seed in seeds]
        scores = [end.f1 for end in own]
        lost = [ends[BASE, seed].f1 - ends[variant, seed].f1 for seed in seeds]
        told = "–" if variant == BASE else f"{statistics.mean(lost):+.3f} ({min(lost):+.3f} to {max(lost):+.3f})"
        rows.append(
            (
                variant,
                f"{statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})",
                told,
                f"{statistics.mean(end.step for end in own):.0f}",
                f"{statistics.mean(end.seconds for end in own):.0f}",
            )
        )
    return marked.table(head, rows)


if __name__ == "__main__":
    main()
