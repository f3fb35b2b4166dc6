"""The tables of docs/salus.md: examples/salus.yaml with several seeds, each stage killed once on its way, and the same
weights on as many episodes that nobody has looked at.

    python scripts/salus.py [--seeds 0 1 2]

Every stage is a job, run by `jobctl submit`. The first seed's have the spec's own names, and lose their process once to
SIGKILL, as a node that dies would take it. Typed again, the command goes on where it was, and ends with the same table.
"""

import argparse
import os
import platform
import signal
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import marked
import yaml
from typed import ROOT, pid_of, progress_of, results, say, status, submit

from workers.episodes.schema import FAILURES, HORIZONS, RATE_HZ

SPEC = ROOT / "examples" / "salus.yaml"
DOCS = ROOT / "docs" / "salus.md"
BEGIN, END = "<!-- figures: made by `make salus` -->", "<!-- end of figures -->"
KILL_FROM = 0.3  # of a job's steps
FRESH_SEED = 23  # of the second collection, from which nothing was ever chosen
SOURCE = {  # the source's targets: seeds 000
    "f1": "> 0.60",
    "precision": "> 0.50",
    "recall": "> 0.60",
    "f1_horizon_6": "0.70–0.75",
    "f1_horizon_9": "0.65–0.70",
    "f1_horizon_12": "0.60–0.65",
    "f1_horizon_15": "0.55–0.60",
}
ROWS = {
    "f1": "**F1, all 16 outputs**",
    "precision": "precision",
    "recall": "recall",
    **{f"f1_horizon_{steps}": f"F1 within {1000 * steps // RATE_HZ} ms" for steps in HORIZONS},
    **{f"f1_{failure}": f"F1 of {failure}" for failure in FAILURES},
    "f1_without_timeout": "**F1 without timeout**",
    "precision_without_timeout": "precision without timeout",
    "recall_without_timeout": "recall without timeout",
    **{
        f"f1_horizon_{steps}_without_timeout": f"F1 within {1000 * steps // RATE_HZ} ms, without timeout"
        for steps in HORIZONS
    },
    "calibration_error": "calibration error",
}
BASELINES = ("predictor", "boosted", "logistic", "time", "prevalence")


class Kills(threading.Thread):
    """Sends SIGKILL once to each of these jobs, when it has done KILL_FROM of its steps (or says nothing of steps)."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self.names, self.finished = list(names), threading.Event()

    def run(self) -> None:
        while self.names and not self.finished.wait(1):
            now = status(self.names[0])
            if now is None:
                continue
            if now["state"] in ("succeeded", "failed"):
                self.names.pop(0)
            elif now["state"] == "running" and progress_of(now) >= KILL_FROM and (pid := pid_of(now)):
                os.kill(pid, signal.SIGKILL)
                say(f"kill -KILL {pid}: the process of {self.names.pop(0)} is gone")


def main() -> int:
    seeds = _parse().seeds
    collect, train, evaluate = yaml.safe_load_all(SPEC.read_text())
    trained = [_seeded(train, evaluate, seed, seeds[0]) for seed in seeds]
    fresh = _fresh(collect)
    again = [_on_fresh(document, fresh["data"]) for _, document in trained]
    parts = [[collect], *trained, [fresh], *([document] for document in again)]
    documents = [document for part in parts for document in part]
    kills = Kills([document["name"] for document in documents[:3] if status(document["name"]) is None])
    kills.start()
    code = max(map(submit, parts))  # one after the other: a gate that one seed misses does not keep the others
    kills.finished.set()
    names = [document["name"] for document in documents]
    jobs = [job for name in names if (job := status(name))]
    if code not in (0, 1) or len(jobs) < len(names):
        say(f"jobctl submit ended with {code}: typed again, this goes on")
        return code
    ends = {name: results(name) for name in names}
    blocks = [_facts(seeds), _stages(jobs, ends)]
    for title, judged in (
        ("The test split", [document for _, document in trained]),
        ("500 episodes that nobody had looked at", again),
    ):
        reports = [ends[document["name"]] for document in judged]
        found = {seed: report["figures"] for seed, report in zip(seeds, reports, strict=True)}
        blocks += [f"### {title}", _figures(found), _beside(found), _alarms(reports)]
    text = "\n\n".join(blocks)
    marked.replace(DOCS, BEGIN, END, text)
    print(text)
    return code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Runs examples/salus.yaml with several seeds and writes the table.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    return parser.parse_args()


def _seeded(train: dict[str, Any], evaluate: dict[str, Any], seed: int, first: int) -> list[dict[str, Any]]:
    """A training and its evaluation; the first seed's are the spec's own, so that gates are enforced there alone."""
    if seed == first:
        return [train, evaluate]
    name = f"{train['name']}-seed{seed}"
    return [
        {**train, "name": name, "settings": {**train["settings"], "seed": seed}},
        _not_enforced({**evaluate, "name": f"{evaluate['name']}-seed{seed}", "from": name}),
    ]


def _fresh(collect: dict[str, Any]) -> dict[str, Any]:
    """The same collection with another seed. Its shares are told, not enforced: they are what they are."""
    settings = {**collect["settings"], "seed": FRESH_SEED}
    own = {"name": f"{collect['name']}-fresh", "data": f"{collect['data']}-fresh", "settings": settings}
    return _not_enforced({**collect, **own})


def _on_fresh(evaluate: dict[str, Any], data: str) -> dict[str, Any]:
    """The evaluation of the same weights, at thresholds of the same validation episodes, on all episodes of `data`."""
    settings = {**evaluate["settings"], "testData": data}
    return _not_enforced({**evaluate, "name": f"{evaluate['name']}-fresh", "settings": settings})


def _not_enforced(document: dict[str, Any]) -> dict[str, Any]:
    """The same with gates that are told and end no job."""
    return {**document, "gates": {**document["gates"], "enforce": False}}


def _facts(seeds: Sequence[int]) -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Made by `make salus` on {time.strftime('%Y-%m-%d')}: {platform.machine()}, {os.cpu_count()} CPU cores, "
        f"{memory:.0f} GiB, no GPU, local backend. Seeds of the trainings: {', '.join(map(str, seeds))}."
    )


def _stages(jobs: Sequence[Mapping[str, Any]], ends: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [(job["name"], _minutes(job), _attempts(job), ends[job["name"]]["reason"]) for job in jobs]
    return marked.table(("job", "minutes", "attempts", "what it says"), rows)


def _minutes(job: Mapping[str, Any]) -> str:
    begin, end = (datetime.fromisoformat(job[name]) for name in ("startedAt", "finishedAt"))
    return f"{(end - begin).total_seconds() / 60:.1f}"


def _attempts(job: Mapping[str, Any]) -> str:
    return str(sum(replica["attemptsOnVolume"] for replica in job["replicaStatuses"]))


def _figures(found: Mapping[int, Mapping[str, float]]) -> str:
    head = ("test episodes", "the source asks", "mean", *(f"seed {seed} (95 % interval)" for seed in found))
    rows = [(ROWS[key], SOURCE.get(key, "–"), _mean(found, key), *_each(found, key)) for key in ROWS]
    return marked.table(head, rows)


def _beside(found: Mapping[int, Mapping[str, float]]) -> str:
    head = (
        "F1 on test episodes",
        "all outputs, mean",
        "without timeout, mean",
        *(f"seed {seed}, all outputs" for seed in found),
    )
    rows = []
    for name in BASELINES:
        suffix = "" if name == "predictor" else f"_{name}"
        keys = (f"f1{suffix}", f"f1_without_timeout{suffix}")
        rows.append((name, *(_mean(found, key) for key in keys), *_each(found, keys[0])))
    return marked.table(head, rows)


def _alarms(ends: Sequence[Mapping[str, Any]]) -> str:
    """Lead time at each budget, means over the seeds, of all predictors."""
    told: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for end in ends:
        table = end["tables"]["lead_time_without_timeout"]
        for cells in table["rows"]:
            row = dict(zip(table["columns"], cells, strict=True))
            told.setdefault((row["allowed_false_alarms"], row["predictor"]), []).append(row)
    head = (
        "false alarms allowed an episode",
        "predictor",
        "false alarms in the test",
        "failures announced",
        "median lead, s",
    )
    columns = ("false_alarms", "alarmed_share", "median_lead_seconds")
    rows = [
        (f"{budget:g}", who, *(_mean_of([row[name] for row in rows]) for name in columns))
        for (budget, who), rows in told.items()
    ]
    return marked.table(head, rows)


def _mean(found: Mapping[int, Mapping[str, float]], key: str) -> str:
    return _mean_of([figures.get(key) for figures in found.values()])


def _mean_of(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.3f}" if known else "–"


def _each(found: Mapping[int, Mapping[str, float]], key: str) -> list[str]:
    return [_with_interval(figures, key) for figures in found.values()]


def _with_interval(figures: Mapping[str, float], key: str) -> str:
    """The interval's name has its bound where `tables.figures` puts it: at the end."""
    if key not in figures:
        return "–"
    between = f" ({figures[f'{key}_low']:.2f}–{figures[f'{key}_high']:.2f})" if f"{key}_low" in figures else ""
    return f"{figures[key]:.3f}{between}"


if __name__ == "__main__":
    sys.exit(main())
