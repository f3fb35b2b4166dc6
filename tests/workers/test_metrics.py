import json
import re
import socket
import threading
import urllib.request
from pathlib import Path

import pytest

from workers.config import Config
from workers.metrics import METRICS, Metrics
from workers.runtime import Runtime

CONFIG = Config(version="0.1.0", run="x", kind="train", task="predictor", spec_hash="h")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
def metrics(tmp_path) -> Metrics:
    return Metrics(Runtime(volume=tmp_path, tmp=tmp_path, metrics_port=free_port(), fence=7, attempt=3), CONFIG)


def scrape(metrics: Metrics) -> str:
    port = metrics.runtime.metrics_port + metrics.runtime.local_rank
    return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_metrics_are_served_with_prefix_and_labels(metrics):
    metrics.serve()
    metrics.set("loss", 0.25)
    metrics.inc("episodes_total", outcome="drop")
    metrics.observe("step_seconds", 0.02)
    metrics.record("checkpoint_failures_total", 1)
    metrics.record("checkpoint_bytes", 12)
    metrics.track("checkpoint_age_seconds", lambda: 4.5)
    text = scrape(metrics)
    labels = 'index="0",kind="train",run="x",task="predictor"'
    for line in (
        f"jobctl_loss{{{labels}}} 0.25",
        'jobctl_episodes_total{index="0",kind="train",outcome="drop",run="x",task="predictor"} 1.0',
        f"jobctl_step_seconds_count{{{labels}}} 1.0",
        f"jobctl_checkpoint_failures_total{{{labels}}} 1.0",
        f"jobctl_checkpoint_bytes{{{labels}}} 12.0",
        f"jobctl_checkpoint_age_seconds{{{labels}}} 4.5",
        f"jobctl_restarts_total{{{labels}}} 2.0",
    ):
        assert line in text.splitlines()
    assert float(re.search(r"jobctl_memory_high_water_bytes{.*} (\S+)", text)[1]) > 2**20


@pytest.mark.parametrize("name", METRICS)
def test_names_say_their_unit(name):
    metric = METRICS[name]
    assert (metric.kind == "counter") == name.endswith("_total")
    assert metric.help.endswith(".")
    assert not re.search(r"_(ms|mb|mib|gb|percent|sec)(_|$)", name)


def test_a_line_an_interval_lies_on_the_volume_and_sets_the_gauges(metrics, tmp_path):
    metrics.serve()
    metrics.log(10, loss=0.5, lr=0.001, own_figure=3, epoch=1)
    metrics.log(20, loss=float("nan"))
    found = lines(tmp_path / "runs" / "x" / "metrics" / "0.000007.jsonl")
    assert [{key: line[key] for key in line if key != "time"} for line in found] == [
        {"step": 10, "loss": 0.5, "lr": 0.001, "own_figure": 3, "epoch": 1},
        {"step": 20, "loss": None},
    ]
    assert found[0]["time"] <= found[1]["time"]
    assert "jobctl_step{" in scrape(metrics)


def test_a_port_that_is_taken_is_said_and_training_goes_on(metrics, capsys):
    metrics.serve()
    second = Metrics(metrics.runtime, CONFIG)
    second.serve()
    assert "metrics are not served" in capsys.readouterr().out
    second.log(1, loss=1.0)


def test_a_disk_that_fails_is_said_once_and_training_goes_on(metrics, capsys):
    metrics.log_file.parent.parent.mkdir(parents=True)
    metrics.log_file.parent.write_text("no directory")
    metrics.log(1, loss=1.0)
    metrics.log(2, loss=1.0)
    assert capsys.readouterr().out.count("metrics cannot be written") == 1
    metrics.log_file.parent.unlink()
    metrics.log(3, loss=1.0)
    assert [line["step"] for line in lines(metrics.log_file)] == [3]


def test_a_volume_that_hangs_makes_nobody_wait_and_its_lines_come_later_in_order(tmp_path, monkeypatch, capsys):
    """The directory is a name that nobody can open for a while: each write waits for the test."""
    metrics = Metrics(Runtime(volume=tmp_path, tmp=tmp_path, metrics_port=0, fence=7), CONFIG, behind=True)
    monkeypatch.setattr("workers.metrics.LINES_AT_MOST", 50)
    real, hangs, entered = type(metrics._lines)._write, threading.Event(), threading.Event()

    def write(self, text):
        entered.set()
        assert hangs.wait(60)
        real(self, text)

    monkeypatch.setattr(type(metrics._lines), "_write", write)
    metrics.log(0, loss=1.0)
    assert entered.wait(60)
    for step in range(1, 100):  # of which a thread that hangs holds the first, and the queue the newest
        metrics.log(step, loss=1.0)
    assert metrics.flush(0.01) is False
    assert not metrics.log_file.exists()
    hangs.set()
    assert metrics.flush(60) is True
    steps = [line["step"] for line in lines(metrics.log_file)]
    assert steps == [0, *range(50, 100)]
    assert capsys.readouterr().out.count("metrics are dropped") == 1


def test_several_processes_of_a_pod_serve_at_a_port_each_and_are_told_apart(tmp_path):
    config = CONFIG.model_copy(update={"gpus_per_replica": 2})
    port = free_port()
    both = [
        Metrics(Runtime(volume=tmp_path, tmp=tmp_path, metrics_port=port, local_rank=rank, fence=7), config)
        for rank in range(2)
    ]
    for rank, metrics in enumerate(both):
        metrics.serve()
        metrics.set("samples_per_second", 100 + rank)
    assert [metrics.log_file.name for metrics in both] == ["0.000007.jsonl", "0.000007.1.jsonl"]
    for rank, metrics in enumerate(both):
        labels = f'index="0",kind="train",local_rank="{rank}",run="x",task="predictor"'
        served = [line for line in scrape(metrics).splitlines() if line.startswith("jobctl_samples_per_second{")]
        assert served == [f"jobctl_samples_per_second{{{labels}}} {100 + rank}.0"]
