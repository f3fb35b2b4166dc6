"""A small Kubernetes fleet on this machine, with kind: a control plane and two workers that look like GPU nodes.

    cluster.py up                  creates it, or keeps it; registry, volume, platform chart and fake GPUs included
    cluster.py image [NAME...]     builds and pushes the images (worker, jobctl) to the registry beside it
    cluster.py add-volume NS       a namespace with Pod Security `restricted`, its volume and its claim
    cluster.py remove-volume NS    takes the namespace, the volume and its data away
    cluster.py down                removes the cluster; the registry and the volumes' directories stay

Every command may be run again. Needs docker, kind and kubectl on PATH. KIND_NODE_IMAGE names the node image (kind's own
default otherwise, which each release of kind pins by digest), KIND_CLUSTER_NAME another cluster than `jobctl`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jobctl.chart import chart_directory
from jobctl.errors import JobctlError
from jobctl.helm import find_helm
from jobctl.version import __version__

ROOT = Path(__file__).resolve().parent.parent
CLUSTER = os.environ.get("KIND_CLUSTER_NAME", "jobctl")
CONTEXT = f"kind-{CLUSTER}"
CONFIG = ROOT / "kind-config.yaml"
VOLUMES = ROOT / ".jobctl" / "cluster"  # mounted at SHARED in every node by kind-config.yaml
SHARED = "/shared"
REGISTRY, REGISTRY_PORT, REGISTRY_IMAGE = "kind-registry", 5001, "registry:2"
IMAGES = {
    "worker": f"localhost:{REGISTRY_PORT}/jobctl-worker:dev",
    "jobctl": f"localhost:{REGISTRY_PORT}/jobctl:dev",
}
BUILD_ARGUMENTS = ("BUILD_BASE", "BASE", "REQUIREMENTS", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL")
SLOWEST_BUILD_SECONDS = 1800  # of an image, with every package downloaded anew
NAMESPACE = "jobs"
OWNER = 1000  # the user of the chart's pods
OLDEST_KUBERNETES = (1, 34)
PROGRAMS = {
    "docker": "Docker Engine: https://docs.docker.com/engine/install",
    "kind": "kind 0.30 or newer: https://kind.sigs.k8s.io",
    "kubectl": "kubectl 1.34 or newer: https://kubernetes.io/docs/tasks/tools",
}


QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}


class ClusterError(Exception):
    """The message says what is wrong and what to do."""


def say(text: str) -> None:
    print(f"cluster: {text}", flush=True)


def run(
    *command: str, stdin: str | None = None, timeout_seconds: float = 300, env: Mapping[str, str] | None = None
) -> str:
    """The program's standard output. Raises ClusterError with the end of what it said."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=timeout_seconds, cwd=ROOT, env=env
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{command[0]} is not on PATH: install {PROGRAMS.get(command[0], command[0])}") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"`{' '.join(command[:4])} …` gave no answer for {timeout_seconds:.0f} s") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise ClusterError(f"`{' '.join(command[:6])} …` failed: {said}")
    return done.stdout


def kubectl(*arguments: str, stdin: str | None = None, timeout_seconds: float = 300) -> str:
    """kubectl's standard output, always of this cluster whatever the user's current context is."""
    return run("kubectl", "--context", CONTEXT, *arguments, stdin=stdin, timeout_seconds=timeout_seconds)


def helm(*arguments: str, stdin: str | None = None) -> str:
    return run(str(find_helm()), "--kube-context", CONTEXT, *arguments, stdin=stdin)


def until(holds: Callable[[], bool], seconds: float, every_seconds: float = 0.5) -> bool:
    deadline = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(every_seconds)
    return held


def succeeds(*command: str, timeout_seconds: float = 30) -> bool:
    try:
        run(*command, timeout_seconds=timeout_seconds)
    except ClusterError:
        return False
    return True


# --- the cluster ---------------------------------------------------------------------------------------------------


def check_programs() -> None:
    for program, what in PROGRAMS.items():
        if not shutil.which(program):
            raise ClusterError(f"{program} is not on PATH: install {what}")
    if not succeeds("docker", "version", "--format", "{{.Server.Version}}"):
        raise ClusterError("the Docker engine does not answer: start it, and see that `docker ps` works for you")


def nodes() -> list[str]:
    """The names of the node containers; none where the cluster is not there."""
    return sorted(run("kind", "get", "nodes", "--name", CLUSTER).split())


def inspect(container: str) -> dict[str, Any]:
    return json.loads(run("docker", "inspect", container))[0]


def answers(seconds: float) -> bool:
    ready = ("kubectl", "--context", CONTEXT, "--request-timeout=5s", "get", "--raw", "/readyz")
    return until(lambda: succeeds(*ready, timeout_seconds=10), seconds)


def mounted_directory(node: str) -> Path | None:
    """The directory of this machine that the node shows as SHARED."""
    found = [mount["Source"] for mount in inspect(node)["Mounts"] if mount["Destination"] == SHARED]
    return Path(found[0]) if found else None


def is_usable() -> bool:
    """Whether the cluster is there and answers. What a test left paused is woken first.

    Raises ClusterError where another checkout that still exists owns a cluster of this name that answers.
    """
    names = nodes()
    if not names:
        return False
    directory = mounted_directory(names[0])
    states = {name: inspect(name)["State"]["Status"] for name in names}
    for name, state in states.items():
        if state == "paused":
            say(f"waking the paused node {name}")
            run("docker", "unpause", name)
    if directory is None or not set(states.values()) <= {"running", "paused"}:
        return False
    if not succeeds("kubectl", "config", "get-contexts", CONTEXT):
        run("kind", "export", "kubeconfig", "--name", CLUSTER)  # makes it the current context too
    if not answers(seconds=30):
        return False
    if directory != VOLUMES and directory.is_dir():
        raise ClusterError(
            f"the kind cluster {CLUSTER} shares {directory}, which is another checkout's: run `make cluster-down` "
            "there, or set KIND_CLUSTER_NAME to have one of your own beside it"
        )
    return True


def create_cluster() -> None:
    if nodes():
        say(f"deleting the left-over kind cluster {CLUSTER}, which does not answer")
        run("kind", "delete", "cluster", "--name", CLUSTER)
    VOLUMES.mkdir(parents=True, exist_ok=True)
    image = os.environ.get("KIND_NODE_IMAGE")
    say(f"creating the kind cluster {CLUSTER} ({image or 'with the node image that this kind pins'}; about a minute)")
    command = ["kind", "create", "cluster", "--name", CLUSTER, "--config", str(CONFIG), "--wait", "120s"]
    run(*command, *(["--image", image] if image else []), timeout_seconds=900)


def check_version() -> None:
    found = json.loads(kubectl("version", "--output=json"))["serverVersion"]
    version = (int(found["major"]), int(found["minor"].rstrip("+")))
    if version < OLDEST_KUBERNETES:
        raise ClusterError(
            f"the cluster runs Kubernetes {found['gitVersion']}, and the charts need 1.34: run `make cluster-down`, "
            "and set KIND_NODE_IMAGE or install a newer kind"
        )


def keep_or_create() -> None:
    if is_usable():
        say(f"keeping the kind cluster {CLUSTER}, which answers")
    else:
        create_cluster()
    check_version()


# --- the registry, as kind documents it: https://kind.sigs.k8s.io/docs/user/local-registry ----------------------------


def start_registry() -> None:
    state = run("docker", "ps", "--all", "--filter", f"name=^{REGISTRY}$", "--format", "{{.State}}").strip()
    if state == "running":
        return
    if state:
        run("docker", "rm", "--force", REGISTRY)  # its images lie in a volume by name
    say(f"starting the registry {REGISTRY} on localhost:{REGISTRY_PORT}")
    publish = f"127.0.0.1:{REGISTRY_PORT}:5000"
    options = ["--detach", "--restart=always", "--publish", publish, "--network=bridge", "--name", REGISTRY]
    run("docker", "run", *options, "--volume", f"{REGISTRY}:/var/lib/registry", REGISTRY_IMAGE)


def connect_registry() -> None:
    """Tells every node's containerd that localhost:PORT is the registry's container."""
    say(f"letting the nodes pull localhost:{REGISTRY_PORT}/… from {REGISTRY}")
    directory = f"/etc/containerd/certs.d/localhost:{REGISTRY_PORT}"
    write = f"mkdir -p {directory} && cat > {directory}/hosts.toml"
    for node in nodes():
        run("docker", "exec", "--interactive", node, "sh", "-c", write, stdin=f'[host."http://{REGISTRY}:5000"]\n')
    if "kind" not in inspect(REGISTRY)["NetworkSettings"]["Networks"]:
        run("docker", "network", "connect", "kind", REGISTRY)
    hosting = {"localRegistryHosting.v1": f'host: "localhost:{REGISTRY_PORT}"\n'}
    names = {"name": "local-registry-hosting", "namespace": "kube-public"}
    apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": names, "data": hosting})


def build_image(name: str) -> str:
    """Builds docker/NAME.Dockerfile, pushes it, and returns its name in the registry."""
    start_registry()
    image = IMAGES[name]
    revision = run("git", "rev-parse", "HEAD").strip() if (ROOT / ".git").exists() else "unknown"
    # The host's network: package indexes and proxies on this machine are reached as pip reaches them outside.
    command = ["docker", "build", "--network=host", "--file", f"docker/{name}.Dockerfile", "--tag", image]
    arguments = [f"VERSION={__version__}", f"REVISION={revision}", *(a for a in BUILD_ARGUMENTS if a in os.environ)]
    started = time.monotonic()
    options = [part for argument in arguments for part in ("--build-arg", argument)]
    run(*command, *options, ".", timeout_seconds=SLOWEST_BUILD_SECONDS, env=os.environ | {"DOCKER_BUILDKIT": "1"})
    built = time.monotonic()
    run("docker", "push", "--quiet", image, timeout_seconds=900)
    pushed = time.monotonic()
    refresh_nodes(image)
    pulled = time.monotonic()
    size = int(run("docker", "image", "inspect", "--format", "{{.Size}}", image)) / 1e9
    times = f"build {built - started:.1f} s, push {pushed - built:.1f} s, pull by the nodes {pulled - pushed:.1f} s"
    say(f"{image}: {size:.2f} GB; {times}")
    return image


def refresh_nodes(image: str) -> None:
    """Has every worker node pull the tag anew: a pod takes what its node has under a tag, however old that is."""
    names = [name for name in nodes() if not name.endswith("-control-plane")]
    pulls = [subprocess.Popen(["docker", "exec", name, "crictl", "pull", image], **QUIET) for name in names]
    for name, pull in zip(names, pulls, strict=True):
        said = pull.communicate()[1]
        if pull.returncode:
            raise ClusterError(f"node {name} could not pull {image}: {said.strip()[-1000:]} (`make cluster` again?)")


# --- namespaces and their volumes ----------------------------------------------------------------------------------


def apply(*documents: dict[str, Any]) -> None:
    items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    kubectl("apply", "--server-side", "--force-conflicts", "--filename=-", stdin=json.dumps(items))


def volume_name(namespace: str) -> str:
    return f"jobctl-{namespace}"


def volume_directory(namespace: str) -> Path:
    """Where this machine sees what the namespace's pods see as their shared volume."""
    return VOLUMES / namespace


def in_node(*command: str) -> None:
    """Runs a command as root where the volumes are mounted, so that this needs no root on the machine itself."""
    run("docker", "exec", f"{CLUSTER}-control-plane", *command)


def add_volume(namespace: str, claim: bool = True) -> Path:
    """A namespace for jobs: Pod Security `restricted`, a ReadWriteMany volume over the shared directory and, by
    charts/jobctl-platform, the claim `shared` on it. Returns the volume's directory on this machine.
    """
    in_node("install", "-d", "-m", "0775", "-o", str(OWNER), "-g", str(OWNER), f"{SHARED}/{namespace}")
    apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume_name(namespace)},
            "spec": {
                "capacity": {"storage": "100Gi"},
                "accessModes": ["ReadWriteMany"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "hostPath": {"path": f"{SHARED}/{namespace}"},
                "claimRef": {"namespace": namespace, "name": "shared"},
            },
        },
    )
    release_volume(namespace)
    if claim:
        chart = str(chart_directory("jobctl-platform"))
        values = f"claim.volumeName={volume_name(namespace)},claim.storageClass="
        options = ["--install", "--namespace", namespace, "--reset-then-reuse-values", "--set-string", values]
        helm("upgrade", "platform", chart, *options)
    return volume_directory(namespace)


def release_volume(namespace: str) -> None:
    """Frees a volume whose claim is gone for a claim of the same name."""
    volume = ("pv", volume_name(namespace))
    if kubectl("get", *volume, "--output=jsonpath={.status.phase}") == "Released":
        anyone = json.dumps({"spec": {"claimRef": {"uid": None, "resourceVersion": None}}})
        kubectl("patch", *volume, "--type=merge", "--patch", anyone)


def end_jobs(namespace: str) -> None:
    """Deletes the namespace's Jobs before the namespace itself.

    Kubernetes deletes a namespace's pods before anything else (since 1.34), and a failed pod of a Job with
    backoffLimitPerIndex stays until its replacement is made, which a namespace that ends refuses: it would hang.
    """
    kubectl("delete", "jobs", "--all", "--namespace", namespace, "--wait=false", "--ignore-not-found")


def remove_volume(namespace: str) -> None:
    """Takes the namespace with all that runs in it, its volume and the data away; returns when they are gone."""
    end_jobs(namespace)
    kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=150s")
    kubectl("delete", "pv", volume_name(namespace), "--ignore-not-found", "--timeout=60s")
    in_node("rm", "-rf", f"{SHARED}/{namespace}")


# --- fake GPUs -----------------------------------------------------------------------------------------------------


def advertise_gpus() -> None:
    """The workers' kubelets report as many nvidia.com/gpu as their label counts. There is no device behind them."""
    found = kubectl("get", "nodes", "--selector=nvidia.com/gpu.count", "--output=json")
    for node in json.loads(found)["items"]:
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        count, product = labels["nvidia.com/gpu.count"], labels["nvidia.com/gpu.product"]
        kubectl("annotate", "node", name, "--overwrite", "jobctl.dev/fake-gpu=true")
        resources = {"capacity": {"nvidia.com/gpu": count}, "allocatable": {"nvidia.com/gpu": count}}
        patch = json.dumps({"status": resources})
        kubectl("patch", "node", name, "--subresource=status", "--type=merge", "--patch", patch)
        say(f"{name} advertises {count} fake {product} (no device behind them: jobs need allowCpu)")


# --- commands ------------------------------------------------------------------------------------------------------

NEXT = f"""cluster: ready. What to type next:
  make image                        # build the workers' image and push it to the registry beside the cluster
  .venv/bin/jobctl --context {CONTEXT} -n {NAMESPACE} submit collect --image {IMAGES["worker"]} --set episodes=4
  .venv/bin/jobctl --context {CONTEXT} -n {NAMESPACE} list
  kubectl --context {CONTEXT} -n {NAMESPACE} get jobs,pods
  ls {(VOLUMES / NAMESPACE).relative_to(ROOT)}             # what the jobs wrote
  make cluster-down                 # remove it; what the jobs wrote stays"""


def up() -> None:
    check_programs()
    keep_or_create()
    start_registry()
    connect_registry()
    advertise_gpus()
    say(f"namespace {NAMESPACE}: Pod Security restricted, claim `shared` by charts/jobctl-platform")
    add_volume(NAMESPACE)
    print(NEXT)


def down() -> None:
    check_programs()
    run("kind", "delete", "cluster", "--name", CLUSTER)
    say(f"{CLUSTER} is gone; its volumes' directories stay in {VOLUMES.relative_to(ROOT)}")
    say(f"the registry stays; to remove it: `docker rm --force {REGISTRY} && docker volume rm {REGISTRY}`")


def image(names: Sequence[str]) -> None:
    for name in names or IMAGES:
        build_image(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up").set_defaults(does=lambda _: up())
    commands.add_parser("down").set_defaults(does=lambda _: down())
    build = commands.add_parser("image")
    build.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMAGES)}; all by default")
    build.set_defaults(does=lambda options: image(options.names))
    for command, does in (("add-volume", add_volume), ("remove-volume", remove_volume)):
        one = commands.add_parser(command)
        one.add_argument("namespace", metavar="NS")
        one.set_defaults(does=lambda options, does=does: does(options.namespace))
    options = parser.parse_args()
    try:
        options.does(options)
    except (ClusterError, JobctlError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
