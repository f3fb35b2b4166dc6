"""Evaluation: `python -m workers eval`. Index k of n judges every n-th test episode; whoever sees all parts reports.

runs/RUN/predictions/INDEX.FENCE/{predictions.safetensors, part.json, manifest.json}     one index' part
runs/RUN/results/INDEX.FENCE, runs/RUN/results/run.NUMBER                                its end, and the run's
"""

from __future__ import annotations

import contextlib
import difflib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import document, results, storage, tasks, untrusted
from workers.errors import BadConfigError, BadDataError, GateMissedError, InterruptedRun
from workers.metrics import Metrics
from workers.runtime import Runtime, run_directory

if TYPE_CHECKING:
    import torch

    from workers.checkpoint import Restored
    from workers.config import Config
    from workers.episodes.ledger import Entry

PREDICTIONS, PART = "predictions.safetensors", "part.json"
NAMED_AT_MOST = 5


def run(config: Config, runtime: Runtime) -> None:
    """Judge this index' share, and report once all shares are there. Raises GateMissedError below a gate."""
    from workers.tasks import compute, weights

    settings = config.settings_as(tasks.settings_model(config.task, "eval"))
    if not config.from_:
        raise BadConfigError("from is missing: name the training whose weights are to be judged")
    judged = weights.weights_of(runtime.volume, config.from_, config.task)
    dataset = compute.required_data(config, runtime)
    named = settings.test_data
    test = compute.dataset_at(runtime.volume, "settings.testData", named) if named else None
    device = compute.choose_device(config)
    compute.make_exact(device, settings.threads)
    weights_of_best, identity = judged.tensors["model"], judged.state["identity"]
    task = tasks.judging(config.task, settings, weights_of_best, identity, dataset, test, device)
    _require_gates(config.gates, task.gates)
    _require_unseen(judged, task)
    print(f"judging {judged.path.name} of {config.from_} on {len(task.episodes)} test episodes", flush=True)

    parts = Parts(config, runtime, identity={"weights": _identity(judged), "data": " ".join(task.checksums)})
    metrics = Metrics(runtime, config)
    metrics.serve()
    share = task.episodes[runtime.index :: config.replicas]
    own = parts.read(runtime.index) or parts.publish(_judge(task, share, runtime, metrics))
    if not parts.all_published():
        reason = f"judged {len(own)} of {len(task.episodes)} episodes; the index that ends last writes the report"
        results.publish_result(runtime, config, scope="index", code=0, reason=reason, figures={"episodes": len(own)})
        print(reason, flush=True)
        return
    predictions = dict(own)
    for index in set(range(config.replicas)) - {runtime.index}:
        theirs = parts.read(index)
        if theirs is None:
            print(f"index {index} judged other weights or data: judging its share again", flush=True)
            theirs = _judge(task, task.episodes[index :: config.replicas], runtime, metrics)
        predictions |= theirs

    def alive() -> None:
        runtime.progress()
        if runtime.stop.is_set():
            raise InterruptedRun("told to stop before the report was written: the predictions are saved")

    report = task.report(predictions, alive)
    alive()
    _conclude(report, _facts(config, judged, task), config, runtime)


def _judge(
    task: tasks.JudgingTask, share: Sequence[Entry], runtime: Runtime, metrics: Metrics
) -> dict[str, torch.Tensor]:
    """The predictions of a share of the episodes, one at a time."""
    found: dict[str, torch.Tensor] = {}
    for done, entry in enumerate(share, start=1):
        if runtime.stop.is_set():
            raise InterruptedRun(f"told to stop after {done - 1} of {len(share)} episodes: they are judged again")
        found |= task.judge([entry])
        runtime.progress(step=done, steps=len(share))
        metrics.log(done, steps=len(share))
    return found


def _conclude(report: tasks.Report, facts: Mapping[str, Any], config: Config, runtime: Runtime) -> None:
    """Publish the run's result and this index'; raises GateMissedError below a gate."""
    misses = missed_gates(config.gates, report.figures)
    code = GateMissedError.code if misses and config.enforce_gates else 0
    names = [name for name in ("precision", "recall", "f1") if name in report.figures]
    shown = ", ".join(f"{name} {report.figures[name]:.2f}" for name in names) or "nothing to find"
    reason = f"judged {report.figures['episodes']:.0f} episodes: {shown}"
    if misses:
        reason = "; ".join(misses) if code else f"{reason}; gates missed, not enforced: {'; '.join(misses)}"
    tables = {**report.tables, "gates": _gates_table(config.gates, report.figures)}
    results.publish_result(
        runtime,
        config,
        scope="run",
        code=code,
        reason=reason,
        figures=report.figures,
        tables=tables,
        files=lambda directory: _write(directory, report, tables["gates"], facts, runtime),
    )
    results.publish_result(
        runtime, config, scope="index", code=code, reason=reason, figures=report.figures, tables=tables
    )
    for row in report.tables["predictors"]["rows"]:
        print(_line(dict(zip(report.tables["predictors"]["columns"], row, strict=True))), flush=True)
    print(reason, flush=True)
    if code:
        raise GateMissedError(reason)


def _facts(config: Config, judged: Restored, task: tasks.JudgingTask) -> dict[str, Any]:
    """What the report is about, and what it takes to make it again."""
    identity = _identity(judged)
    settings = config.settings_as(tasks.settings_model(config.task, "eval"))
    datasets = [name for name in (config.data, settings.test_data) if name]
    return {
        "run": config.run,
        "spec hash": config.spec_hash,
        "data": "; ".join(
            f"{name}, ledger's SHA-256 {checksum[:16]}" for name, checksum in zip(datasets, task.checksums, strict=True)
        ),
        "weights": f"{config.from_}, step {identity['step']:,}, SHA-256 {identity['sha256'][:16]}",
        "training": _listed({name: value for name, value in judged.state["identity"].items() if name != "data"}),
        "evaluation": _listed(settings.model_dump(by_alias=True, exclude_none=True)),
        "replicas": config.replicas,
    }


def _listed(settings: Mapping[str, Any]) -> str:
    """`model small, seed 0, baselines ["time"]`."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _write(
    directory: Path, report: tasks.Report, gates: tasks.Table, facts: Mapping[str, Any], runtime: Runtime
) -> None:
    """plots/*.png, report.md and report.html, the last one with the pictures inside."""
    report.draw(directory)
    made = results.provenance()
    made_by = {
        **facts,
        "versions": ", ".join(f"{name} {version}" for name, version in made["versions"].items()),
        "image": made["image"],
        "machine": f"{made['platform']}, {made['device']}",
        "finished": results.iso(time.time()),
        "seconds": f"{time.monotonic() - runtime.started_monotonic:.0f}, of this attempt",
    }
    blocks = [*report.document]
    if gates["rows"]:
        blocks += [document.Heading("Gates"), document.with_intervals(gates, {})]
    rows = [[name, str(value)] for name, value in made_by.items() if value is not None]
    blocks += [document.Heading("Where these figures come from"), document.Table((), rows)]
    (directory / "report.md").write_text(document.markdown(report.title, blocks), encoding="utf-8")
    (directory / "report.html").write_text(document.html(report.title, blocks, directory), encoding="utf-8")


def missed_gates(gates: Mapping[str, float], figures: Mapping[str, float]) -> list[str]:
    """One clause for each figure below its gate; what is undefined is below every gate."""
    return [
        _below(name, figures[name], gate) if name in figures else f"{name} is undefined, the gate is {gate:.2f}"
        for name, gate in gates.items()
        if name not in figures or figures[name] < gate
    ]


def _below(name: str, value: float, gate: float) -> str:
    """`f1 0.41 < 0.60`, with more digits where two would make them equal."""
    digits = next(digits for digits in range(2, 18) if round(value, digits) < round(gate, digits) or digits == 17)
    return f"{name} {value:.{digits}f} < {gate:.{digits}f}"


def _gates_table(gates: Mapping[str, float], figures: Mapping[str, float]) -> tasks.Table:
    rows = [[name, gate, figures.get(name), not missed_gates({name: gate}, figures)] for name, gate in gates.items()]
    return {"columns": ["figure", "gate", "reached", "met"], "rows": rows}


class Parts:
    """What each index published. `identity` says of which weights and data; a part of others is as good as none."""

    def __init__(self, config: Config, runtime: Runtime, identity: Mapping[str, Any]) -> None:
        self._directory = run_directory(runtime.volume, config.run) / "predictions"
        self._runtime, self._replicas = runtime, config.replicas
        self._identity = {**identity, "replicas": config.replicas}
        storage.clean_temporaries(self._directory, runtime.fence)

    def publish(self, predictions: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Publish this index' part under its own number."""
        from safetensors.torch import save_file

        def write(directory: Path) -> None:
            save_file(predictions, directory / PREDICTIONS)
            (directory / PART).write_text(json.dumps(self._identity))

        with contextlib.suppress(FileExistsError):
            storage.publish(self._directory / f"{self._runtime.index}.{self._runtime.fence:06d}", write)
        return predictions

    def read(self, index: int) -> dict[str, torch.Tensor] | None:
        """The newest part of an index that is sound and of the same weights and data."""
        from safetensors.torch import load_file

        for path in self._of(index):
            with contextlib.suppress(untrusted.CorruptError, FileNotFoundError):
                storage.verify(path, root=self._directory.parent, beat=self._runtime.progress)
                if untrusted.read_json(path / PART, limit=untrusted.RECORD_BYTES) == self._identity:
                    return load_file(path / PREDICTIONS)
        return None

    def all_published(self) -> bool:
        return all(self._of(index) for index in range(self._replicas))

    def _of(self, index: int) -> list[Path]:
        found = [(fence, path) for stem, fence, path in storage.fenced(self._directory) if stem == str(index)]
        return [path for _, path in sorted(found, reverse=True)]


def _identity(judged: Restored) -> dict[str, Any]:
    manifest = storage.read_json(judged.path / storage.MANIFEST)
    return {"step": judged.step, "sha256": manifest["files"]["model.safetensors"]["sha256"]}


def _require_gates(gates: Mapping[str, float], known: Any) -> None:
    for name in gates:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or known[:NAMED_AT_MOST]
            raise BadConfigError(f"gates.{name} is an unknown figure; nearest: {', '.join(near)}")


def _require_unseen(judged: Restored, task: tasks.JudgingTask) -> None:
    """Raises BadDataError if an episode that shaped the weights would be judged by them."""
    seen = set(judged.state["seenSeeds"])
    leaked = [entry.episode for entry in task.episodes if entry.seed in seen]
    if leaked:
        named = ", ".join(map(str, leaked[:NAMED_AT_MOST]))
        raise BadDataError(
            f"{len(leaked)} of {len(task.episodes)} test episodes were seen by the training ({named}, ...): "
            "the figures would be worth nothing; train again, or judge on another dataset"
        )


def _line(row: Mapping[str, Any]) -> str:
    def shown(name: str) -> str:
        value = row[name]
        return (
            f"{name} undefined"
            if value is None
            else f"{name} {value:.3f} ({row[name + '_low']:.2f}–{row[name + '_high']:.2f})"
        )

    return f"{row['predictor']:>10}: " + "  ".join(shown(name) for name in ("precision", "recall", "f1"))
