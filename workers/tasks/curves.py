"""The curve of a training over all its attempts, from the metrics files that they left on the volume."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workers import untrusted

METRICS_BYTES = 2**29  # of one attempt: 2 million lines


def history(run_dir: Path, index: int = 0) -> list[dict[str, Any]]:
    """The metric lines of an index by step, each step once: where attempts overlap, the later one counts.

    A line cut by a kill is left out, and whatever else is none of ours.
    """
    found: dict[int, dict[str, Any]] = {}
    for path in sorted((run_dir / "metrics").glob(f"{index}.[0-9]*.jsonl")):
        lines = list(_lines(path))
        began = min((line["step"] for line in lines), default=0)
        found = {step: line for step, line in found.items() if step < began}
        for line in lines:
            found[line["step"]] = {**found.get(line["step"], {}), **line}
    return [found[step] for step in sorted(found)]


def draw_training(run_dir: Path, directory: Path) -> None:
    """Write plots/training.png: training and validation loss, and validation F1, over the steps of all attempts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = history(run_dir)
    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, sharex=True)
    for axes, names in ((upper, ("loss", "validation_loss")), (lower, ("validation_f1",))):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if _is_number(line.get(name))]
            axes.plot(*zip(*points, strict=True) if points else ([], []), label=name.replace("_", " "))
        axes.legend()
        axes.grid(alpha=0.3)
    lower.set_xlabel("step")
    (directory / "plots").mkdir(exist_ok=True)
    figure.savefig(directory / "plots" / "training.png", dpi=110)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = untrusted.read_bytes(path, limit=METRICS_BYTES)
    except (FileNotFoundError, untrusted.CorruptError):
        return
    for text in data.splitlines():
        with contextlib.suppress(ValueError):
            line = untrusted.parse_json(text)
            if untrusted.misfit(line, {"step": int}) is None:
                yield line


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
