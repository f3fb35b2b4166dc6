"""One kind cluster for the whole run, a namespace with a volume of its own for every test.

Where there can be none, these tests are skipped with one reason; with JOBCTL_REQUIRE_CLUSTER=1 that is a failure.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from runs import make_tiny_dataset
from waiting import wait_for

from jobctl.errors import JobctlError

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.3
Dict = dict[str, Any]


def _load_script() -> ModuleType:
    """scripts/cluster.py, which `make cluster` runs: the tests make their namespaces by the same functions."""
    if "cluster_script" in sys.modules:
        return sys.modules["cluster_script"]
    spec = importlib.util.spec_from_file_location("cluster_script", ROOT / "scripts" / "cluster.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = _load_script()


class Cluster:
    """The cluster that runs, by kubectl and Helm, whatever the user's current context is."""

    name: str = script.CLUSTER
    context: str = script.CONTEXT
    images: dict[str, str] = script.IMAGES

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return script.kubectl(*arguments, stdin=stdin)

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        return script.helm(*arguments, stdin=stdin)

    def get(self, *arguments: str) -> Dict:
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, *documents: Dict) -> None:
        script.apply(*documents)

    def nodes(self, role: str = "worker") -> list[str]:
        """The names of the nodes of kind's role, `worker` or `control-plane`."""
        return [name for name in script.nodes() if role in name.removeprefix(f"{self.name}-")]


@dataclass(frozen=True)
class Namespace:
    """A namespace of one test, with Pod Security `restricted`, and `shared` claimed on a volume of its own."""

    cluster: Cluster
    name: str
    volume: Path  # what its pods see as /shared
    image: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Dict:
        return self.cluster.get("--namespace", self.name, *arguments)

    def items(self, *arguments: str) -> list[Dict]:
        return self.get(*arguments)["items"]

    def pods(self, release: str) -> list[Dict]:
        """The pods of a release, oldest first."""
        pods = self.items("pods", f"--selector=app.kubernetes.io/instance={release}")
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def helm(self, *arguments: str, stdin: str | None = None) -> str:
        return self.cluster.helm("--namespace", self.name, *arguments, stdin=stdin)

    def install(self, release: str, values: Dict) -> str:
        """`helm upgrade --install` of charts/jobctl with these values and, unless they name one, this image."""
        chart = str(ROOT / "charts" / "jobctl")
        options = ["--install", "--values", "-"]
        return self.helm("upgrade", release, chart, *options, stdin=json.dumps({"image": self.image} | values))

    def job(self, release: str, revision: int = 1) -> Dict:
        return self.get("job", f"{release}-r{revision}")

    def log(self, pod: str) -> str:
        return self.kubectl("logs", pod)

    def wait_for(self, what: str, holds: Callable[[], Any], seconds: float = 60) -> Any:
        return wait_for(what, holds, seconds, self.picture, POLL_SECONDS)

    def end(self, release: str, revision: int = 1, seconds: float = 120) -> Dict:
        """The Job once it is Complete or Failed."""

        def ended() -> Dict | None:
            job = self.job(release, revision)
            kinds = {c["type"] for c in job["status"].get("conditions", []) if c["status"] == "True"}
            return job if kinds & {"Complete", "Failed"} else None

        return self.wait_for(f"{release} ends", ended, seconds)

    def picture(self) -> str:
        """What a failed wait shows: pods, the last events, the end of every log."""
        parts = [self.kubectl("get", "jobs,pods", "--output=wide")]
        parts.append(self.kubectl("get", "events", "--sort-by=.lastTimestamp")[-3000:])
        for pod in self.items("pods")[:8]:
            try:
                parts.append(f"--- {pod['metadata']['name']}\n" + self.kubectl("logs", pod["metadata"]["name"])[-1500:])
            except script.ClusterError:
                continue
        return "\n".join(parts)


def need_cluster() -> Cluster:
    """The cluster of `make cluster`: kept where it runs and answers, otherwise made. Looked for once a run."""
    if not hasattr(script, "absence"):
        try:
            script.up()
            script.absence = None
        except (script.ClusterError, JobctlError) as error:
            script.absence = str(error)
    if script.absence is None:
        return Cluster()
    if os.environ.get("JOBCTL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"JOBCTL_REQUIRE_CLUSTER=1, and there is no cluster: {script.absence}", pytrace=False)
    reason = script.absence.strip().splitlines()[-1]
    pytest.skip(f"what needs a cluster (`make cluster` makes one): {reason}")


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    return need_cluster()


@pytest.fixture(scope="session")
def image(cluster: Cluster) -> str:
    """The workers' image of this checkout, in the registry that the nodes pull from."""
    return script.build_image("worker")


@pytest.fixture(scope="session")
def jobctl_image(cluster: Cluster) -> str:
    return script.build_image("jobctl")


@pytest.fixture(scope="session")
def make_namespace(cluster: Cluster, image: str) -> Iterator[Callable[..., Namespace]]:
    """Makes namespaces `PREFIX-N`, also for a whole module; all of them are taken away when the run ends."""
    numbers = itertools.count(1)
    made: list[str] = []

    def make(prefix: str = "t", claim: bool = True) -> Namespace:
        name = f"{prefix}-{os.getpid()}-{next(numbers)}"
        made.append(name)
        return Namespace(cluster, name, script.add_volume(name, claim=claim), image)

    yield make
    for name in made:
        script.end_jobs(name)
        cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    for name in made:
        script.remove_volume(name)


@pytest.fixture
def namespace(make_namespace: Callable[..., Namespace], cluster: Cluster) -> Iterator[Namespace]:
    """A fresh one. What runs in it is told to end with the test, and nobody waits for that until the run ends."""
    made = make_namespace()
    yield made
    script.end_jobs(made.name)
    cluster.kubectl("delete", "namespace", made.name, "--wait=false")


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset for small trainings, named `tiny`: to be placed on a namespace's volume."""
    return make_tiny_dataset(tmp_path_factory)
