"""Groups through real `python -m workers train` processes, one a replica, each on an address of its own.

Equal to a single replica, and bit-equal to themselves whoever is killed or told to stop.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from equality import allowed_difference, samples_of
from held import release, wait_until_held
from waiting import patience, wait_for

from workers import __version__, checkpoint, meeting, results, train
from workers import group as group_module
from workers.config import Config
from workers.runtime import Runtime

STEPS = 40  # an epoch of the small dataset has 11 steps
BATCH = 64
SETTINGS = {"steps": STEPS, "batch": BATCH, "validateEverySteps": 20, "checkpointEverySteps": 10, "dropout": 0.2}


class Group:
    """The replicas of one training, sharing a volume. Their pods come back only when a test says so."""

    def __init__(self, volume: Path, run: str = "fit", replicas: int = 2, **keys: Any) -> None:
        self.volume, self.replicas, self.run_dir = volume, replicas, volume / "runs" / run
        self.config = volume / f"{run}.json"
        settings = SETTINGS | keys.pop("settings", {})
        self.env = {key: keys.pop(key) for key in list(keys) if key.isupper()}
        values = {"version": __version__, "run": run, "kind": "train", "task": "predictor", "specHash": "a" * 16}
        values |= {"data": "datasets/tiny", "replicas": replicas, "settings": settings}
        self.config.write_text(json.dumps(values | keys))
        self.network = f"127.{random.randint(1, 250)}.{random.randint(0, 255)}"
        self.pods: dict[int, subprocess.Popen[bytes]] = {}
        self.attempts: dict[int, int] = {}

    def start(self, *indexes: int) -> "Group":
        """Start a pod for each of these indexes (all, if none is named)."""
        for index in indexes or range(self.replicas):
            self.attempts[index] = attempt = self.attempts.get(index, 0) + 1
            environment = os.environ | {
                "JOBCTL_VOLUME": str(self.volume),
                "JOBCTL_TMP": str(self.volume / "tmp"),
                "JOBCTL_TERMINATION_LOG": str(self.volume / f"termination.{index}"),
                "JOBCTL_POD_UID": f"{index}-{attempt}",
                "JOBCTL_JOB_UID": "job",
                "JOB_COMPLETION_INDEX": str(index),
                "JOBCTL_POD_IP": f"{self.network}.{index + 1}",
                "JOBCTL_STORE": f"{self.network}.1:29400",
                "JOBCTL_LEASE_SECONDS": "1.5",
                **self.env,
            }
            with self.log_path(index).open("ab") as log:
                command = [sys.executable, "-m", "workers", "train", "--config", str(self.config)]
                self.pods[index] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        return self

    def wait(self, *indexes: int, seconds: float = 90) -> dict[int, int]:
        """Exit codes by index."""
        return {index: self.pods[index].wait(patience(seconds)) for index in indexes or self.pods}

    def held(self, **lowest: int) -> list[dict[str, Any]]:
        """Once all replicas stand still: who, at which step."""
        return wait_until_held(self.volume, self.run_dir.name, range(self.replicas), **lowest)

    def release(self, until: int | None = None) -> None:
        release(self.volume, self.run_dir.name, until)

    def until_saved(self, step: int) -> None:
        wait_for(f"step {step} is saved", lambda: checkpoint.publications(self.run_dir)[0].step >= step)

    def until_said(self, index: int, text: str) -> None:
        wait_for(f"index {index} says {text!r}", lambda: text in self.log(index), seconds=60)

    def log_path(self, index: int) -> Path:
        return self.volume / f"{self.run_dir.name}.{index}.log"

    def log(self, index: int) -> str:
        return self.log_path(index).read_text()

    def message(self, index: int) -> dict[str, Any]:
        return json.loads((self.volume / f"termination.{index}").read_text())

    def weights(self) -> dict[str, torch.Tensor]:
        return weights_of(self.run_dir)

    def resumptions(self, index: int) -> list[int]:
        """The steps from which this index's loops went on."""
        return [int(step) for step in re.findall(r"resuming from step-(\d+)", self.log(index))]

    def end(self) -> None:
        for pod in self.pods.values():
            if pod.poll() is None:
                pod.kill()
                pod.wait()


def single(group: Group) -> dict[str, torch.Tensor]:
    """The weights that one replica ends with, trained in this process under the run's name `single`."""
    config = json.loads(group.config.read_text()) | {"run": "single", "replicas": 1}
    train.run(Config.model_validate(config), Runtime(volume=group.volume, tmp=group.volume, metrics_port=0))
    return weights_of(group.volume / "runs" / "single")


def weights_of(run_dir: Path) -> dict[str, torch.Tensor]:
    """All tensors after the last step, AdamW's own included."""
    found = checkpoint.newest(run_dir)
    assert found is not None and found.step == STEPS
    return {f"{file}.{name}": tensor for file, some in found.tensors.items() for name, tensor in some.items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def volume(announced_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    volume = tmp_path_factory.mktemp("groups")
    (volume / "datasets").mkdir()
    (volume / "datasets" / "tiny").symlink_to(announced_dataset)
    return volume


@pytest.fixture(scope="module")
def group(volume: Path) -> Iterator[Callable[..., Group]]:
    groups: list[Group] = []

    def make(run: str, **keys: Any) -> Group:
        groups.append(Group(volume, run, **keys))
        return groups[-1]

    yield make
    for made in groups:
        made.end()
        for index in made.pods:
            print(f"--- {made.run_dir.name} {index}\n{made.log(index)}")


@pytest.fixture(scope="module")
def four(group: Callable[..., Group]) -> Group:
    """Four replicas that nothing disturbed, with dropout off. One step in eleven has fewer samples."""
    made = group("four", replicas=4, settings={"dropout": 0.0}, JOBCTL_LOG_SAMPLES="1").start()
    assert made.wait() == dict.fromkeys(range(4), 0)
    return made


@pytest.fixture(scope="module")
def pair(group: Callable[..., Group]) -> Group:
    """Two processes that nothing disturbed, with dropout; both in one pod, as on a node with two GPUs."""
    made = group("pair", replicas=1, gpusPerReplica=2, gpu="a100", device="cuda", allowCpu=True).start()
    assert made.wait() == {0: 0}
    return made


def test_four_replicas_end_with_the_weights_of_one_up_to_the_order_of_sums(four, capfd, monkeypatch):
    """docs/groups.md derives the tolerance; the samples and their augmentation are the same to the bit."""
    monkeypatch.setenv("JOBCTL_LOG_SAMPLES", "1")
    alone = single(four)
    used = [samples_of(four.log(index)) for index in range(4)]
    for step, whole in samples_of(capfd.readouterr().out).items():
        shares = [process[step] for process in used]
        assert set.union(*shares) == whole and sum(map(len, shares)) == len(whole)

    rates = sum(train.learning_rate(step, STEPS, 1e-3, 0.05) for step in range(STEPS))
    largest = max(float(tensor.abs().max()) for name, tensor in alone.items() if name.startswith("model.layers"))
    tolerance = allowed_difference(BATCH, rates, STEPS, largest)
    together = four.weights()
    differences = [(together[name] - alone[name]).abs().flatten() for name in alone if name.startswith("model.")]
    found = torch.cat(differences).double()
    print(f"largest difference {found.max():.1e}, of 999 in 1000 {found.quantile(0.999):.1e}, allowed {tolerance:.1e}")
    assert found.quantile(0.999) <= tolerance
    assert found.max() <= 2 * rates


def test_a_group_publishes_as_one(four):
    """One checkpoint directory, one result, one metrics file: rank 0's."""
    assert {path.name for path in (four.run_dir / "results").iterdir()} == {"0.000001"}
    assert {path.name for path in (four.run_dir / "metrics").iterdir()} == {"0.000001.jsonl"}
    assert {path.name[-7:] for path in (four.run_dir / "checkpoints").iterdir()} == {".000001"}
    assert [path.name for path in (four.run_dir / "lease").iterdir()] == ["0"]
    result = results.read_result(four.run_dir, 0)
    assert (result["exitCode"], result["figures"]["steps"]) == (0, STEPS)


@pytest.mark.held
def test_a_replica_that_is_killed_costs_the_others_no_step_and_the_weights_no_bit(four, group):
    killed = group("killed", replicas=4, settings={"dropout": 0.0}, JOBCTL_HOLD_AT="3").start()
    assert {facts["step"] for facts in killed.held()} == {3}
    pids = {index: killed.pods[index].pid for index in (0, 1, 3)}
    killed.pods[2].kill()
    killed.wait(2)
    killed.release()
    killed.start(2)
    assert killed.wait() == dict.fromkeys(range(4), 0)
    assert {index: killed.pods[index].pid for index in (0, 1, 3)} == pids
    assert "replica 2 is lost: its connection closed: the loops start again" in killed.log(1)
    assert killed.resumptions(0) == [3]
    assert equal(killed.weights(), four.weights())


def test_a_stranger_in_the_store_is_not_counted_among_the_ranks(tmp_path):
    """Which asks nobody who connects: but all that a rank looks at bears what only the group's supervisors know."""
    with meeting.hold("127.77.2.1", 29400) as held:
        host, port = held.getsockname()
        common = {"store": f"{host}:{port}", "store_prefix": "secret", "replicas": 2, "world": 2, "fence": 3}
        first, second = (Runtime(volume=tmp_path, tmp=tmp_path, index=index, **common) for index in range(2))
        first.store_descriptor = os.dup(held.fileno())
        with futures.ThreadPoolExecutor(1) as pool:
            met = pool.submit(meet, first)
            stranger = meet_as_stranger(host, port)
            for prefix in ("", "3/", "here/3/"):
                stranger.add(f"{prefix}here", 5)
                stranger.set(f"{prefix}here/1", "1")
            assert not futures.wait([met], timeout=0.5).done
            assert meet(second).get("key") == met.result(10).get("key") == b"of the group"


def meet(runtime: Runtime) -> torch.distributed.Store:
    store = group_module._meet(runtime)
    store.set("key", "of the group")
    return store


def meet_as_stranger(host: str, port: int) -> torch.distributed.Store:
    return torch.distributed.TCPStore(host, port, None, False, timedelta(seconds=20), wait_for_workers=False)


def test_patience_ends_all_replicas_at_the_same_step(group):
    settings = {"steps": 400, "validateEverySteps": 10, "patience": 1, "lr": 1e-12}
    early = group("early", settings=settings).start()
    assert early.wait() == {0: 0, 1: 0}
    assert results.read_result(early.run_dir, 0)["figures"]["steps"] == 20


@pytest.mark.held
def test_told_or_killed_in_turn_a_group_ends_with_the_weights_of_an_undisturbed_one(pair, group):
    """SIGTERM of one replica: no step is lost. Then index 0 is killed, then all: at most the last interval is lost."""
    disturbed = group("disturbed", JOBCTL_HOLD_AT="2").start()
    disturbed.held()
    disturbed.pods[1].send_signal(signal.SIGTERM)
    assert disturbed.wait(1) == {1: 75}
    assert (
        disturbed.message(1)["reason"] == "told to stop: saved after step 3 of 40"
    )  # the next one: they do it together
    assert disturbed.pods[0].poll() is None
    disturbed.start(1).held(fence=2)
    assert disturbed.resumptions(0) == [3]

    disturbed.release(until=12)
    disturbed.held(fence=2, step=12)
    disturbed.until_saved(10)
    disturbed.pods[0].kill()
    disturbed.until_said(1, "replica 0 is lost: the loops start again")
    disturbed.start(0)
    disturbed.held(fence=3)
    disturbed.release(until=22)
    disturbed.held(fence=3, step=22)
    disturbed.until_saved(20)
    for pod in disturbed.pods.values():
        pod.kill()
    disturbed.wait()
    disturbed.release()
    assert disturbed.start().wait() == {0: 0, 1: 0}
    assert disturbed.resumptions(0) == [3, 10, 20]
    assert equal(disturbed.weights(), pair.weights())


def test_a_rank_that_reads_other_data_is_named_before_the_first_step(group, volume, other_dataset):
    """Both ranks come to the same verdict; whoever leaves first ends the Job, so the other may be ended with it."""
    (volume / "datasets" / "other").symlink_to(other_dataset)
    differing = group("differing").start(0)
    config = json.loads(differing.config.read_text()) | {"data": "datasets/other"}
    differing.config = volume / "differing.1.json"
    differing.config.write_text(json.dumps(config))
    differing.start(1)

    wait_for("an end with 65", lambda: 65 in [pod.poll() for pod in differing.pods.values()], seconds=90)

    ended = next(index for index, pod in differing.pods.items() if pod.poll() == 65)
    assert "rank 1 reads other data than rank 0" in differing.message(ended)["reason"]
    assert not (differing.run_dir / "checkpoints").exists()
    differing.end()


def test_two_processes_of_one_pod_say_that_they_compute_on_the_cpu(pair):
    assert pair.log(0).count("computing on the CPU, as allowCpu says") == 2
    assert "rank 1 of 2 has met the others" in pair.log(0)
