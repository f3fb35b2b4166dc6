"""The images run as the chart runs them: no root, nothing written outside of /tmp, and small enough to be pulled."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
LARGEST_WORKER_BYTES = 2_000_000_000


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_alone(image: str, *command: str) -> str:
    """As in a restricted pod, and without a network."""
    options = ["--rm", "--read-only", "--user=1000:1000", "--network=none", "--cap-drop=ALL", "--tmpfs=/tmp"]
    return docker("run", *options, "--security-opt=no-new-privileges", image, *command)


def configuration(image: str) -> dict[str, Any]:
    return json.loads(docker("image", "inspect", image))[0]


@pytest.fixture(params=["image", "jobctl_image"])
def any_image(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def test_an_image_says_what_it_is_and_runs_without_root(any_image):
    config = configuration(any_image)["Config"]
    labels = {key.removeprefix("org.opencontainers.image."): text for key, text in config["Labels"].items()}
    assert labels.keys() >= {"title", "description", "version", "revision", "licenses"}
    assert labels["title"] == any_image.rsplit("/", 1)[1].removesuffix(":dev")
    assert (labels["version"], labels["licenses"]) == ("0.1.0", "Apache-2.0")
    assert len(labels["revision"]) == 40 or labels["revision"] == "unknown"
    assert config["User"] == "1000:1000"


def test_an_image_keeps_no_package_index_of_whoever_built_it(any_image):
    told = docker("history", "--no-trunc", "--format={{.CreatedBy}}", any_image)
    assert "PIP_INDEX_URL=" not in told
    names = {variable.split("=", 1)[0] for variable in configuration(any_image)["Config"]["Env"]}
    assert not {"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"} & names


def test_the_worker_image_is_small_enough(image):
    assert configuration(image)["Size"] <= LARGEST_WORKER_BYTES


def test_the_worker_says_how_it_is_used(image):
    said = run_alone(image, "python", "-m", "workers", "--help")
    assert all(kind in said for kind in ("collect", "train", "eval"))


def test_the_worker_has_its_packages_and_renders_without_a_screen(image):
    script = (
        "import torch, mujoco, zarr; print(torch.__version__); "
        "model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=\".1\"/></worldbody></mujoco>'); "
        "print(mujoco.Renderer(model, 32, 32).render().shape)"
    )
    version, shape = run_alone(image, "python", "-c", script).split("\n")[:2]
    assert version.startswith("2.")
    assert shape == "(32, 32, 3)"


def test_a_change_of_the_source_builds_one_layer_anew(image, tmp_path):
    """Everything but the last layer is kept, the packages above all."""
    before = configuration(image)["RootFS"]["Layers"]
    changed = tmp_path / "Dockerfile"
    text = (ROOT / "docker" / "worker.Dockerfile").read_text()
    source = "COPY workers/ /opt/source/workers/\n"
    assert source in text
    changed.write_text(text.replace(source, f"{source}COPY workers/errors.py /opt/source/workers/changed.py\n"))
    (tmp_path / "Dockerfile.dockerignore").write_text("*\n!requirements/cpu.txt\n!workers/**\n**/__pycache__\n")
    tag = "jobctl-worker:changed"
    docker("build", "--quiet", "--network=host", f"--file={changed}", f"--tag={tag}", ".")
    try:
        after = configuration(tag)["RootFS"]["Layers"]
    finally:
        docker("image", "rm", "--force", tag)
    assert after[: len(before) - 1] == before[:-1]


def test_jobctl_runs_from_its_image(jobctl_image):
    assert run_alone(jobctl_image, "--version").split()[-1] == "0.1.0"
    objects = list(yaml.safe_load_all(run_alone(jobctl_image, "render", "train")))
    assert "Job" in {document["kind"] for document in objects}


def test_a_tiny_collect_by_plain_helm_runs_to_its_end_in_a_restricted_namespace(namespace):
    enforced = namespace.cluster.get("namespace", namespace.name)["metadata"]["labels"]
    assert enforced["pod-security.kubernetes.io/enforce"] == "restricted"
    namespace.install("tiny", {"kind": "collect", "settings": {"episodes": 2}})
    job = namespace.end("tiny")
    assert (job["status"]["succeeded"], job["status"].get("failed", 0)) == (1, 0), namespace.picture()
    ledger = namespace.volume / "datasets" / "tiny" / "ledger.json"
    assert [entry["episode"] for entry in json.loads(ledger.read_text())] == [0, 1]
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (namespace.volume / "datasets").rglob("*")}
    assert owners == {(1000, 1000)}
