"""Text is text on a cluster: read back from the container's process, behind Helm, the API server and the kubelet."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from people import Said, Team, eventually, typist
from texts import NASTY, batches

SIZE = 30
CAREFUL = settings(
    max_examples=3, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
READ = (
    "import json; text = open('/proc/1/environ', 'rb').read(); "
    "print(json.dumps([entry.hex() for entry in text.split(b'\\0') if entry]))"
)


@pytest.fixture(scope="module")
def team(make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Team:
    return Team.of(make_namespace("text"), tmp_path_factory.mktemp("kube"))


@pytest.fixture
def jobctl(team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    return typist(team, monkeypatch, capfd)


def environment_of(team: Team, name: str) -> dict[str, bytes]:
    """What the first process of the job's running pod has been given."""

    def running() -> str | None:
        pods = [pod for pod in team.namespace.pods(name) if "deletionTimestamp" not in pod["metadata"]]
        return next((pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") == "Running"), None)

    pod = eventually(running, 120)
    entries = json.loads(team.namespace.kubectl("exec", pod, "--", "python", "-c", READ))
    return {name.decode(): value for name, _, value in (bytes.fromhex(e).partition(b"=") for e in entries)}


@CAREFUL
@given(batch=batches(2 * SIZE))
@example(batch=[*NASTY, *NASTY][: 2 * SIZE])
def test_any_text_reaches_the_process_by_a_file_and_by_set(jobctl, team, tmp_path, batch):
    given, assigned = batch[:SIZE], batch[SIZE:]
    spec = {
        "kind": "collect", "name": "text", "settings": {"episodes": 400},
        "env": {f"F{number}": text for number, text in enumerate(given)},
        "pod": {"annotations": {f"f{number}": text for number, text in enumerate(given)}},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    sets = [f"--set=env.S{number}={text}" for number, text in enumerate(assigned)]
    said = jobctl("submit", "-f", str(tmp_path / "spec.yaml"), *sets)
    assert said.status == 0, said.err
    try:
        environment = environment_of(team, "text")
        (pod, *_) = team.namespace.pods("text")
        annotations = pod["metadata"]["annotations"]
        (config_map,) = team.namespace.items("configmaps", "--selector=app.kubernetes.io/instance=text")
    finally:
        assert jobctl("delete", "text").status == 0
    assert [environment[f"F{number}"].decode() for number in range(SIZE)] == given
    assert [environment[f"S{number}"].decode() for number in range(SIZE)] == assigned
    assert [annotations[f"f{number}"] for number in range(SIZE)] == given
    assert json.loads(config_map["data"]["config.json"])["spec"]["pod"]["annotations"]["f0"] == given[0]
    eventually(lambda: not team.namespace.pods("text"), 120)


def test_a_job_that_helm_has_forgotten_is_started_again_with_its_environment(jobctl, team):
    texts = {f"V{number}": text for number, text in enumerate(NASTY)}
    sets = [f"--set=env.{name}={text}" for name, text in texts.items()]
    assert jobctl("submit", "collect", "--name", "forgotten", "--set=episodes=400", *sets).status == 0
    environment_of(team, "forgotten")
    team.namespace.kubectl("delete", "secret", "--selector=owner=helm,name=forgotten")
    values = json.loads(jobctl("status", "forgotten", "-o", "json").out)
    assert values["job"]["name"] == "forgotten"
    from jobctl.cluster.backend import KubernetesBackend

    with pytest.MonkeyPatch.context() as environ:
        environ.setenv("KUBECONFIG", str(team.kubeconfig))
        backend = KubernetesBackend(None, None, print)
        try:
            assert backend.values("forgotten")["env"] == texts
        finally:
            backend.close()
    jobctl("delete", "forgotten")
