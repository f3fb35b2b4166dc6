"""What each ingredient of the predictor gives: trainings that differ in one setting, over three seeds, on one dataset.

    python scripts/ablations.py SPEC [--seeds 0 1 2] [--steps N] [--out FILE]

SPEC is a file such as examples/salus.yaml, whose dataset is there already. Every training is a job of its own, run by
`jobctl submit`, so the command can be interrupted and typed again. They are judged by their best look at the validation
episodes: the test episodes have no part in a choice.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

JOBCTL = str(Path(sys.executable).parent / "jobctl")
BASE = "as chosen"
# what differs → the settings that say so
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "medium": {"model": "medium"},
    "large": {"model": "large"},
    "no horizon weights": {"horizonWeights": [1.0, 1.0, 1.0, 1.0]},
    "no temporal consistency": {"consistency": 0.0},
    "no augmentation": {"noise": 0.0, "jitter": 0},
    "no class weighting": {"posWeight": 1.0},
    "weights by class frequency": {"posWeight": None},
    "label smoothing 0.1": {"labelSmoothing": 0.1},
    "no dropout": {"dropout": 0.0},
    "constant rate after the warm-up": {"schedule": "constant"},
    "no warm-up": {"warmupFraction": 0.0},
    "the present timestep alone": {"context": 1},
    "twice the context": {"context": 20},
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
    jobs = {
        (variant, seed): _document(base, variant, seed, asked.steps) for variant in VARIANTS for seed in asked.seeds
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump_all(jobs.values(), file, sort_keys=False)
        file.flush()
        subprocess.run([JOBCTL, "submit", "-f", file.name, "--wait"], check=True)
    ends = {key: _end(document["name"]) for key, document in jobs.items()}
    table = _table(ends, asked.seeds)
    print(table)
    if asked.out:
        asked.out.write_text(table + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Trains with one ingredient changed at a time, and compares.")
    parser.add_argument("spec", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="instead of the spec's, for a quick look")
    parser.add_argument("--out", type=Path, help="a file for the table")
    return parser.parse_args()


def _document(base: dict[str, Any], variant: str, seed: int, steps: int | None) -> dict[str, Any]:
    name = f"abl-{variant.replace(' ', '-').replace('.', '')}-s{seed}"
    own = {"steps": steps} if steps else {}
    return {**base, "name": name, "settings": {**base["settings"], **VARIANTS[variant], **own, "seed": seed}}


def _end(name: str) -> End:
    asked = subprocess.run([JOBCTL, "results", name, "-o", "json"], check=True, capture_output=True, text=True)
    figures = json.loads(asked.stdout)["result"]["figures"]
    return End(figures["best_validation_score"], figures["best_step"], figures["train_seconds"])


def _table(ends: dict[tuple[str, int], End], seeds: list[int]) -> str:
    """Markdown, a row a variant: means and range over the seeds, and the difference to BASE seed by seed."""
    head = ("what differs", "best F1 on validation (range)", f"less than {BASE}, seed by seed", "best step", "seconds")
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for variant in VARIANTS:
        own = [ends[variant, seed] for seed in seeds]
        scores = [end.f1 for end in own]
        lost = [ends[BASE, seed].f1 - ends[variant, seed].f1 for seed in seeds]
        told = "–" if variant == BASE else f"{statistics.mean(lost):+.3f} ({min(lost):+.3f} to {max(lost):+.3f})"
        rows.append(
            f"| {variant} | {statistics.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f}) | {told} | "
            f"{statistics.mean(end.step for end in own):.0f} | {statistics.mean(end.seconds for end in own):.0f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    main()
