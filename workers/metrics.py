"""Every Prometheus metric of the workers, in one table, and the lines of runs/RUN/metrics/INDEX.FENCE.jsonl."""

import json
import resource
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workers import untrusted
from workers.results import finite
from workers.runtime import Runtime, run_directory

if TYPE_CHECKING:
    from workers.config import Config

PREFIX = "jobctl_"
LINES_AT_MOST = 1000  # wait for a volume that is slow


@dataclass(frozen=True)
class Metric:
    kind: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

# All bear the labels run, kind, task and index, and local_rank where a pod has several processes. In base units.
METRICS: dict[str, Metric] = {
    "step": Metric("gauge", "Progress: optimizer steps (train), episodes recorded (collect) or judged (eval)."),
    "steps": Metric("gauge", "What `step` has to reach."),
    "epoch": Metric("gauge", "The current pass over the data."),
    "samples_per_second": Metric("gauge", "Training samples used a second, over the last interval."),
    "episodes_per_second": Metric("gauge", "Episodes recorded or judged a second, over the last interval."),
    "timesteps_per_second": Metric("gauge", "Simulated timesteps a second, over the last interval."),
    "loss": Metric("gauge", "Training loss, mean over the last interval."),
    "validation_loss": Metric("gauge", "Loss on the validation split."),
    "lr": Metric("gauge", "Learning rate of the last step."),
    "data_wait_seconds": Metric("histogram", "Time a step waited for its data.", buckets=SECONDS),
    "step_seconds": Metric("histogram", "Time of one step, the wait for data included.", buckets=SECONDS),
    "checkpoint_seconds": Metric("histogram", "Time to write and publish one checkpoint.", buckets=SECONDS),
    "checkpoint_stall_seconds": Metric("histogram", "Time the loop waited for a save.", buckets=SECONDS),
    "checkpoint_age_seconds": Metric("gauge", "Time since the newest checkpoint was published."),
    "checkpoint_bytes": Metric("gauge", "Size of the newest checkpoint."),
    "checkpoints_total": Metric("counter", "Checkpoints published by this attempt."),
    "checkpoint_failures_total": Metric("counter", "Checkpoints that could not be written; the one before is intact."),
    "corrupt_checkpoints_total": Metric("counter", "Checkpoints that failed verification and were passed over."),
    "episodes_total": Metric("counter", "Episodes recorded by this attempt, by outcome.", labels=("outcome",)),
    "resumes_total": Metric("counter", "Times that this attempt went on from published state: 0 or 1."),
    "restarts_total": Metric("counter", "Attempts of this index before this one."),
    "memory_high_water_bytes": Metric("gauge", "Largest resident memory of this process so far."),
}


class Metrics:
    """The metrics of one loop process: served over HTTP, and logged to the volume.

    `behind`: lines are written by a thread, so that a slow volume makes no step wait; `flush` waits for it.
    """

    def __init__(self, runtime: Runtime, config: "Config", *, behind: bool = False) -> None:
        import prometheus_client

        self.runtime = runtime
        self.registry = prometheus_client.CollectorRegistry()
        self._series: dict[str, Any] = {}
        self._labels = {"run": config.run, "kind": config.kind, "task": config.task, "index": str(runtime.index)}
        if config.gpus_per_replica > 1:
            self._labels["local_rank"] = str(runtime.local_rank)
        classes = {
            "gauge": prometheus_client.Gauge,
            "counter": prometheus_client.Counter,
            "histogram": prometheus_client.Histogram,
        }
        for name, metric in METRICS.items():
            more: dict[str, Any] = {"buckets": metric.buckets} if metric.buckets else {}
            names = (*self._labels, *metric.labels)
            self._series[name] = classes[metric.kind](PREFIX + name, metric.help, names, registry=self.registry, **more)
        suffix = f".{runtime.local_rank}" if runtime.local_rank else ""
        directory = run_directory(runtime.volume, config.run) / "metrics"
        self.log_file = directory / f"{runtime.index}.{runtime.fence:06d}{suffix}.jsonl"
        self._lines = _Lines(self.log_file)
        self._behind = behind
        self.track("memory_high_water_bytes", memory_high_water_bytes)
        self.inc("restarts_total", runtime.attempt - 1)
        self.inc("resumes_total", 0)

    def serve(self) -> None:
        """Serve /metrics on the pod's address; says so and goes on without if the port is taken."""
        import prometheus_client

        port = self.runtime.metrics_port + self.runtime.local_rank
        try:
            prometheus_client.start_http_server(port, addr=self.runtime.ip, registry=self.registry)
        except OSError as error:
            print(f"metrics are not served: {self.runtime.ip}:{port}: {error.strerror}", flush=True)

    def set(self, name: str, value: float, **labels: str) -> None:
        self._at(name, labels).set(value)

    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        self._at(name, labels).inc(amount)

    def observe(self, name: str, value: float, **labels: str) -> None:
        self._at(name, labels).observe(value)

    def record(self, name: str, value: float) -> None:
        """Set, add to or observe, as the metric's kind asks: what `Checkpoints` reports to."""
        methods: dict[str, Callable[[str, float], None]] = {
            "gauge": self.set,
            "counter": self.inc,
            "histogram": self.observe,
        }
        methods[METRICS[name].kind](name, value)

    def track(self, name: str, value: Callable[[], float]) -> None:
        """Have a gauge call `value` at each scrape: for ages and high waters, which move on their own."""
        self._at(name, {}).set_function(value)

    def log(self, step: int, **figures: Any) -> None:
        """Append {"time": unix seconds, "step", ...figures} to the run's metrics file; sets the gauges of these names.

        Counters and histograms have their own calls. A disk that is full ends no training: it is said once.
        """
        self.show(step, **figures)
        self._lines.append(json.dumps(finite({"time": round(time.time(), 3), "step": step, **figures})) + "\n")
        if not self._behind:
            self.flush()

    def flush(self, seconds: float | None = None) -> bool:
        """Wait at most `seconds` until all lines are on the volume, or given up; whether it is so."""
        return self._lines.flush(seconds)

    def show(self, step: int, **figures: Any) -> None:
        """Set the gauges of these names; nothing is written."""
        for name, value in {"step": step, **figures}.items():
            metric = METRICS.get(name)
            if metric and metric.kind == "gauge" and not metric.labels and isinstance(value, int | float):
                self.set(name, value)

    def _at(self, name: str, labels: dict[str, str]) -> Any:
        return self._series[name].labels(**self._labels, **labels)


class _Lines:
    """Appends lines to a file in a thread. Where the volume is slower for long, the oldest are dropped, and said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: deque[str] = deque()
        self._writing = False
        self._troubled = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def append(self, line: str) -> None:
        with self._changed:
            if len(self._waiting) >= LINES_AT_MOST:
                self._waiting.popleft()
                self._say(f"metrics are dropped: {self._path} is written too slowly")
            self._waiting.append(line)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._write_behind, name="metrics-writer", daemon=True)
                self._thread.start()

    def flush(self, seconds: float | None) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not (self._waiting or self._writing), seconds)

    def _write_behind(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                lines = "".join(self._waiting)
                self._waiting.clear()
                self._writing = True
            try:
                self._write(lines)
            finally:
                with self._changed:
                    self._writing = False
                    self._changed.notify_all()

    def _write(self, lines: str) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with untrusted.open_to_append(self._path) as file:
                file.write(lines.encode())
            self._troubled = False
        except OSError as error:
            self._say(f"metrics cannot be written to {self._path}: {error.strerror}")

    def _say(self, text: str) -> None:
        """Once, until lines are written again."""
        if not self._troubled:
            print(text, flush=True)
        self._troubled = True


def memory_high_water_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
