"""A real Prometheus, run by the Prometheus Operator, sees the workers through the platform chart's PodMonitor.

It is found as the Service `prometheus` of `prometheus-system`. Where there is none, JOBCTL_PROMETHEUS_INSTALL may hold
a command that installs it into the cluster of the current context; without it these tests are skipped.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import tarfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
BOARD = json.loads((ROOT / "charts" / "jobctl-platform" / "dashboards" / "jobs.json").read_text())
TARGETS = [(panel["title"], target) for panel in BOARD["panels"] for target in panel["targets"]]
CHOICES = {item["name"]: item["query"] for item in BOARD["templating"]["list"] if item["type"] == "query"}
SYSTEM = "prometheus-system"
EPISODES = 18
FIRST_SEED = 1_000_142  # every outcome falls into both the validation and the test split
OUTCOMES = ("success", "drop", "success", "timeout", "collision", "other")
INSTALL_SECONDS = 300
SECONDS = 150  # until every query has an answer, starting with the two jobs: on two busy cores, with room

pytestmark = pytest.mark.timeout(900)  # the first test's counts all that is set up for it: cluster, image, Prometheus


@dataclass(frozen=True)
class Prometheus:
    """Asked through the API server, so that no port has to be forwarded."""

    cluster: Any

    @property
    def is_there(self) -> bool:
        found = self.cluster.kubectl("get", "crd,service", "--all-namespaces", "--ignore-not-found", "--output=name")
        return {
            "customresourcedefinition.apiextensions.k8s.io/podmonitors.monitoring.coreos.com",
            "service/prometheus",
        } <= set(found.split())

    def ask(self, path: str, **parameters: str) -> Any:
        where = f"/api/v1/namespaces/{SYSTEM}/services/prometheus:9090/proxy/api/v1/{path}"
        answer = json.loads(self.cluster.kubectl("get", "--raw", f"{where}?{urllib.parse.urlencode(parameters)}"))
        assert answer["status"] == "success"
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        return self.ask("query", query=expression)["result"]

    def hurry(self) -> None:
        """A change of a pod has its kubelet refresh the pod's Secrets, here Prometheus' configuration."""
        selector = "--selector=app.kubernetes.io/name=prometheus"
        self.cluster.kubectl("annotate", "pod", "--namespace", SYSTEM, selector, "--overwrite", f"hurry={time.time()}")


@dataclass(frozen=True)
class Watched:
    """Two jobs that run while the tests look at them."""

    prometheus: Prometheus
    namespace: Any
    deadline: float

    def substituted(self, expression: str) -> str:
        chosen = expression.replace("$namespace", self.namespace.name).replace("$run", ".+")
        return chosen.replace("$__rate_interval", "30s")

    def wait(self, what: str, holds: Callable[[], Any]) -> Any:
        return self.namespace.wait_for(
            what, lambda: self._alive() and holds(), max(1, self.deadline - time.monotonic())
        )

    def _alive(self) -> bool:
        failed = [job["metadata"]["name"] for job in self.namespace.items("jobs") if job["status"].get("failed")]
        assert not failed, f"{failed} failed\n{self.namespace.picture()}"
        return True


@pytest.fixture(scope="module")
def prometheus(cluster: Any) -> Prometheus:
    found = Prometheus(cluster)
    install = os.environ.get("JOBCTL_PROMETHEUS_INSTALL")
    if not found.is_there and install:
        done = subprocess.run(shlex.split(install), cwd=ROOT, capture_output=True, text=True, timeout=INSTALL_SECONDS)
        assert done.returncode == 0, f"{install}: {done.stderr}"
    elif not found.is_there:
        pytest.skip(f"what needs the Prometheus Operator and a Service `prometheus` in {SYSTEM}: the cluster has none")
    return found


@pytest.fixture(scope="module")
def watched(prometheus: Prometheus, make_namespace: Callable[..., Any], tmp_path_factory: Any) -> Iterator[Watched]:
    """A training of two processes in one pod and a collection, both too long to end, and the platform's PodMonitor."""
    namespace = make_namespace("metrics")
    write_dataset(tmp_path_factory.mktemp("data") / "datasets" / "tiny", namespace)
    train = {"steps": 1_000_000, "batch": 16, "validateEverySteps": 20}
    checkpoint = {"everySeconds": 2}
    two = {"gpu": "a100", "gpusPerReplica": 2, "allowCpu": True}
    keys = {"kind": "train", "data": "datasets/tiny", "settings": train, "checkpoint": checkpoint}
    namespace.install("train", keys | two)
    namespace.install("collect", {"kind": "collect", "settings": {"episodes": 100_000}})
    prometheus.hurry()
    yield Watched(prometheus, namespace, time.monotonic() + SECONDS)
    for release in ("train", "collect"):
        namespace.helm("uninstall", release)


def write_dataset(dataset: Path, namespace: Any) -> None:
    """A few small episodes by the collectors' own writer, handed to the volume through a node."""
    from workers.episodes import ledger, writer

    random = np.random.default_rng(0)
    time_, camera, row = np.ogrid[:30, :3, :224]  # images that change with time, and differ between cameras
    images = np.broadcast_to((time_ + 5 * camera + row).astype(np.uint8)[..., None, None], (30, 3, 224, 224, 3))
    for number in range(EPISODES):
        episode = writer.Episode(
            number=number,
            seed=FIRST_SEED + number,
            outcome=OUTCOMES[number % len(OUTCOMES)],
            perturbed=False,
            actions=random.normal(size=(30, 4)).astype(np.float32),
            states=random.normal(size=(30, 7)).astype(np.float32),
            images=images,
            signals=random.normal(size=(30, 12)).astype(np.float32),
        )
        writer.write_episode(dataset, episode, fence=1)
    ledger.merge(dataset, EPISODES)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(dataset.parent, "datasets", filter=_of_the_pods)
    node = namespace.cluster.nodes("control-plane")[0]
    unpack = ["docker", "exec", "-i", node, "tar", "-x", "-C", f"/shared/{namespace.name}"]
    subprocess.run(unpack, input=packed.getvalue(), check=True)


def _of_the_pods(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 1000
    entry.uname = entry.gname = ""
    return entry


@pytest.mark.parametrize(("title", "target"), TARGETS, ids=[f"{title} {target['refId']}" for title, target in TARGETS])
def test_each_query_of_the_dashboard_returns_a_series_while_jobs_run(watched, title, target):
    expression = watched.substituted(target["expr"])
    series = watched.wait(f"{title}: {expression}", lambda: watched.prometheus.query(expression))
    shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
    for one in series:
        assert {"namespace": watched.namespace.name, "task": "predictor"}.items() <= one["metric"].items()
        assert one["metric"]["run"] == one["metric"]["kind"]
        assert shown <= one["metric"].keys()
        assert float(one["value"][1]) >= 0


@pytest.mark.parametrize("name", CHOICES)
def test_the_dashboards_variables_offer_what_runs(watched, name):
    selector, label = re.fullmatch(r"label_values\((.+), (\w+)\)", CHOICES[name]).groups()
    expected = {"namespace": {watched.namespace.name}, "run": {"train", "collect"}}[name]

    def offered() -> bool:
        values = watched.prometheus.ask(f"label/{label}/values", **{"match[]": watched.substituted(selector)})
        return expected <= set(values)

    watched.wait(f"{name} offers {expected}", offered)


def test_every_process_is_scraped_through_the_platforms_pod_monitor(watched):
    query = f'up{{namespace="{watched.namespace.name}"}} == 1'
    series = watched.wait("all three are scraped", lambda: len(found := watched.prometheus.query(query)) == 3 and found)
    (train,), (collect,) = (watched.namespace.pods(release) for release in ("train", "collect"))
    scraped = sorted((one["metric"]["pod"], one["metric"]["instance"].rpartition(":")[2]) for one in series)
    names = [pod["metadata"]["name"] for pod in (train, collect)]
    assert scraped == sorted([(names[0], "9400"), (names[0], "9401"), (names[1], "9400")])
    assert {one["metric"]["job"] for one in series} == {f"{watched.namespace.name}/platform"}
    assert {one["metric"]["endpoint"] for one in series} == {"metrics"}


def test_the_processes_of_a_pod_are_told_apart_and_their_rates_add_up(watched):
    query = f'jobctl_samples_per_second{{namespace="{watched.namespace.name}"}} > 0'
    series = watched.wait("both have a rate", lambda: len(found := watched.prometheus.query(query)) == 2 and found)
    assert {one["metric"]["local_rank"] for one in series} == {"0", "1"}


def test_what_prometheus_holds_is_what_the_worker_wrote(watched):
    query = f'jobctl_loss{{namespace="{watched.namespace.name}",local_rank="0"}}[30s]'
    (series,) = watched.wait("several losses are scraped", lambda: watched.prometheus.query(query))
    scraped = {float(value) for _, value in series["values"]}
    lines = (watched.namespace.volume / "runs/train/metrics/0.000001.jsonl").read_text().splitlines()
    written = {json.loads(line)["loss"] for line in lines}
    assert scraped
    assert scraped <= written
