"""One small interface to whatever runs Jobs, so that the same statements hold for every backend."""

import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from waiting import wait_for

from jobctl.backend import Release
from jobctl.errors import NotFoundError
from jobctl.local.backend import LocalBackend

Dict = dict[str, Any]
BACKOFF_SCALE = 0.01
HERE = Path(__file__).parent


def load(name: str, path: Path) -> Any:
    """A module of the tests' own; they are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


base = load("conformance_base", HERE / "base.py")


def job_manifest(script: str, completions: int = 1, **spec: Any) -> Dict:
    """An Indexed Job that runs a shell script. Keys of `container` and `pod` are merged into those parts."""
    container = spec.pop("container", {})
    pod = spec.pop("pod", {})
    template = spec.pop("template", {})
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "PLACEHOLDER"},
        "spec": {
            "completionMode": "Indexed",
            "completions": completions,
            "parallelism": completions,
            "podReplacementPolicy": "Failed",
            **spec,
            "template": {
                **template,
                "spec": {
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 5,
                    "containers": [
                        {
                            "name": "worker",
                            "image": "python:3.11-slim-bookworm",
                            "command": ["sh", "-c", script],
                            **container,
                        }
                    ],
                    **pod,
                },
            },
        },
    }


class LocalCluster(base.Cluster):
    """The local backend in a home of its own."""

    namespace = "default"
    keeps_logs_of_removed_pods = True
    poll_seconds = 0.02
    clock_seconds = 0.0

    def __init__(self, home: Path) -> None:
        self.home = home
        self.backend = LocalBackend(home)
        self.backoff_scale = BACKOFF_SCALE

    def submit(self, name: str, job: Dict, *others: Dict, revision: int = 1) -> None:
        job = json.loads(json.dumps(job))
        job["metadata"]["name"] = f"{name}-r{revision}"
        self.backend.submit(Release(name, revision, {"kind": "train"}, [*others, job]))

    def evict(self, name: str, index: int) -> None:
        self.backend.evict(name, index)

    def volume(self, claim: str) -> Path:
        return self.backend.volume(claim)

    def alive(self) -> list[int]:
        """Processes that belong to this home: their command or environment names it."""
        marker = str(self.home).encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except (FileNotFoundError, ProcessLookupError, PermissionError):
                    continue
                if marker in text:
                    found.append(int(entry.name))
        return found

    def close(self) -> None:
        """Delete what is left, and hold that no process stays."""
        for record in self.backend.records():
            try:
                self.backend.delete(record.name)
            except NotFoundError:
                continue
        try:
            wait_for("no process is left behind", lambda: not self.alive(), 10, self.alive)
        finally:
            for pid in self.alive():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session", params=["local", "kubernetes"])
def backend_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cluster(
    backend_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Any]:
    if backend_name == "kubernetes":
        # The real back-off is ten seconds and more: the tests of this backend run side by side, see on_kubernetes.py.
        yield request.getfixturevalue("kubernetes_ahead")
        return
    monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", str(BACKOFF_SCALE))
    cluster = LocalCluster(tmp_path / "home")
    yield cluster
    cluster.close()


@pytest.fixture
def manifest() -> Callable[..., Dict]:
    return job_manifest


# ---- the same statements on a real cluster


ON_KUBERNETES = pytest.StashKey[dict[str, Future[None]]]()


def is_on_kubernetes(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return parameters.get("backend_name") == "kubernetes"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "local_only(reason): a statement that only holds for the local backend")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where local differs on purpose, a statement is not made about a cluster."""
    items[:] = [item for item in items if not (is_on_kubernetes(item) and item.get_closest_marker("local_only"))]


@pytest.fixture(scope="session")
def kubernetes_ahead(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Starts all tests of this backend at once, a few at a time, each with jobs of its own in one namespace."""
    fixtures = load("cluster_fixtures", HERE.parent / "cluster" / "conftest.py")
    kubernetes = load("conformance_kubernetes", HERE / "on_kubernetes.py")
    fixtures.need_cluster()
    script = fixtures.script
    image = script.build_image("worker")
    namespace = f"conformance-{os.getpid()}"
    script.add_volume(namespace)
    items = [item for item in request.session.items if is_on_kubernetes(item)]
    pool = ThreadPoolExecutor(max_workers=kubernetes.AT_ONCE)
    request.config.stash[ON_KUBERNETES] = {
        item.nodeid: pool.submit(run_ahead, item, kubernetes.KubernetesCluster(script, namespace, image))
        for item in items
    }
    yield None
    pool.shutdown(cancel_futures=True)
    script.remove_volume(namespace)


def run_ahead(item: Any, cluster: Any) -> None:
    """One test's body, in a thread; what it raises is raised again where pytest runs the test."""
    cluster.open()
    try:
        getattr(item.cls(), item.originalname)(cluster=cluster, manifest=job_manifest)
    finally:
        cluster.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not is_on_kubernetes(pyfuncitem):
        return None
    pyfuncitem.config.stash[ON_KUBERNETES][pyfuncitem.nodeid].result()
    return True
