import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from workers import checkpoint, lease, storage
from workers.checkpoint import Checkpoints
from workers.errors import BadConfigError, BadDataError
from workers.lease import Lease
from workers.tensors import flatten_optimizer, load_optimizer


class Attempt(Checkpoints):
    """An attempt that holds the next lease of its run; hears its own reports."""

    def __init__(self, run_dir: Path, keep: int = 3) -> None:
        self.lease = Lease.acquire(run_dir / "lease" / "0", pod="p", uid="u", lease_seconds=0.0)
        self.lease.release()
        self.reported: list[tuple[str, float]] = []
        self.said: list[str] = []
        report = lambda name, value: self.reported.append((name, value))  # noqa: E731
        super().__init__(run_dir, self.lease.number, keep, report=report, say=self.said.append)

    def count(self, name: str) -> int:
        return sum(reported == name for reported, _ in self.reported)

    def publish(self, *steps: int, place: str = "checkpoints") -> "Attempt":
        for step in steps:
            (self.save if place == "checkpoints" else self.publish_best)(step, tensors(step), {"step": step})
            assert self.flush(20)
        return self


def tensors(step: int) -> checkpoint.Tensors:
    return {"model": {"w": torch.full((64, 32), float(step)), "b": torch.tensor(step)}, "optimizer": {}}


def names(run_dir: Path, place: str = "checkpoints") -> list[str]:
    return sorted(path.name for path in (run_dir / place).iterdir())


def test_what_was_saved_is_restored_bit_for_bit(tmp_path):
    assert Attempt(tmp_path).restore() is None
    Attempt(tmp_path).publish(400)
    second = Attempt(tmp_path)
    restored = second.restore()
    assert (restored.step, restored.state, restored.path.name) == (400, {"step": 400}, "step-00000400.000003")
    assert restored.tensors.keys() == {"model", "optimizer"}
    assert torch.equal(restored.tensors["model"]["w"], tensors(400)["model"]["w"])
    assert restored.tensors["model"]["b"].dtype == torch.int64
    assert second.said == ["resuming from step-00000400.000003"]


def test_the_published_directory_holds_safetensors_json_and_a_manifest(tmp_path):
    Attempt(tmp_path).publish(4)
    manifest = storage.verify(tmp_path / "checkpoints" / "step-00000004.000001")
    assert sorted(manifest["files"]) == ["model.safetensors", "optimizer.safetensors", "state.json"]


def test_a_saved_snapshot_does_not_change_with_the_weights(tmp_path):
    weights = torch.zeros(1000)
    attempt = Attempt(tmp_path)
    for step in range(1, 6):
        weights.fill_(step)
        attempt.save(step, {"model": {"w": weights}}, {})
    weights.fill_(-1)
    attempt.flush(20)
    for publication in checkpoint.publications(tmp_path):
        assert torch.equal(
            checkpoint.read(publication).tensors["model"]["w"], torch.full((1000,), float(publication.step))
        )


def test_an_optimizer_goes_on_exactly_where_it_was(tmp_path):
    def train(model, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            model(torch.full((2, 8), step / 7)).square().sum().backward()
            optimizer.step()

    def new():
        torch.manual_seed(0)
        model = torch.nn.Linear(8, 8)
        return model, torch.optim.AdamW(model.parameters(), lr=0.01)

    straight, straight_optimizer = new()
    train(straight, straight_optimizer, range(6))

    model, optimizer = new()
    train(model, optimizer, range(3))
    state, meta = flatten_optimizer(optimizer)
    attempt = Attempt(tmp_path)
    attempt.save(3, {"model": model.state_dict(), "optimizer": state}, {"optimizer": meta})
    assert attempt.flush(20)

    restored = Attempt(tmp_path).restore()
    resumed, resumed_optimizer = new()
    resumed.load_state_dict(restored.tensors["model"])
    load_optimizer(resumed_optimizer, restored.tensors["optimizer"], restored.state["optimizer"])
    train(resumed, resumed_optimizer, range(3, 6))
    assert torch.equal(resumed.weight, straight.weight)

    forgetful, fresh_optimizer = new()
    forgetful.load_state_dict(restored.tensors["model"])
    train(forgetful, fresh_optimizer, range(3, 6))
    assert not torch.equal(forgetful.weight, straight.weight)


def test_another_models_optimizer_state_is_refused():
    small = torch.optim.AdamW([torch.zeros(2)])
    state, meta = flatten_optimizer(torch.optim.AdamW([torch.zeros(2), torch.zeros(2)]))
    with pytest.raises(ValueError, match="parameter group"):
        load_optimizer(small, state, meta)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_is_passed_over_said_and_counted(tmp_path, name):
    Attempt(tmp_path).publish(1, 2, 3)
    path = tmp_path / "checkpoints" / "step-00000003.000001" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    second = Attempt(tmp_path)
    assert second.restore().step == 2
    assert second.reported == [("corrupt_checkpoints_total", 1)]
    assert "passed over a checkpoint" in second.said[0]
    assert "step-00000003.000001" in second.said[0]


def damage(path: Path) -> None:
    """Another byte count in one of a publication's files."""
    (path / "state.json").write_text("{}  ")


def test_if_all_are_damaged_the_run_ends_and_goes_on_once_they_are_put_back(tmp_path):
    Attempt(tmp_path).publish(1, 2)
    whole = shutil.copytree(tmp_path / "checkpoints", tmp_path / "copy")
    for path in (tmp_path / "checkpoints").iterdir():
        damage(path)

    second = Attempt(tmp_path)
    with pytest.raises(BadDataError, match=r"none that can be used: .*step-00000002.000001.*step-00000001.*--fresh"):
        second.restore()
    assert second.count("corrupt_checkpoints_total") == 2
    assert not lease.adopted_limits(tmp_path / "lease" / "0").superseded(2, 1)

    shutil.rmtree(tmp_path / "checkpoints")
    whole.rename(tmp_path / "checkpoints")
    assert Attempt(tmp_path).restore().step == 2


def test_files_that_no_manifest_names_change_nothing(tmp_path):
    Attempt(tmp_path).publish(1).publish(1, place="best").publish(2)
    for path in [*(tmp_path / "checkpoints").iterdir(), *(tmp_path / "best").iterdir()]:
        (path / ".nfs0000000000a1").write_text("a file manager was here")
        (path / "Thumbs.db").mkdir()
    second = Attempt(tmp_path)
    assert second.restore().step == 2
    assert (second.best.step, second.count("corrupt_checkpoints_total")) == (1, 0)


def test_a_refused_checkpoint_is_left_as_it_was(tmp_path):
    Attempt(tmp_path).publish(1)

    def refuse(found):
        raise BadConfigError(f"no step {found.step}")

    with pytest.raises(BadConfigError, match="no step 1"):
        Attempt(tmp_path).restore(accept=refuse)
    assert names(tmp_path) == ["step-00000001.000001"]


@pytest.mark.parametrize(
    ("state", "message"),
    [({"layout": 2}, "has layout 2, but this worker reads none above 1"), ({"layout": "two"}, "has layout two")],
)
def test_a_layout_that_only_a_newer_worker_knows_is_named(tmp_path, state, message):
    attempt = Attempt(tmp_path)
    attempt.save(1, tensors(1), state)
    assert attempt.flush(20)
    with pytest.raises(BadConfigError, match=message):
        Attempt(tmp_path).restore()


def test_a_state_that_lacks_what_cannot_be_made_up_is_named(tmp_path):
    Attempt(tmp_path).publish(1)
    restored = Attempt(tmp_path).restore()
    restored.require("step")
    with pytest.raises(BadConfigError, match=r"step-00000001.000002 lacks identity, seenSeeds: .*--fresh"):
        restored.require("step", "identity", "seenSeeds")


def best_of(state: dict) -> int | None:
    return state.get("best")


def with_best(run_dir: Path, keep: int = 3) -> Attempt:
    """Checkpoints of steps 1 to 4, of which those of steps 1 and 3 were the best when they were saved."""
    attempt = Attempt(run_dir, keep)
    for step in range(1, 5):
        state = {"best": step - (step % 2 == 0)}
        if step % 2:
            attempt.publish_best(step, tensors(step), state)
        attempt.save(step, tensors(step), state)
        assert attempt.flush(20)
    return attempt


def best_weights(run_dir: Path) -> float:
    return float(checkpoint.newest(run_dir, "best").tensors["model"]["w"][0, 0])


def test_damaged_best_weights_are_taken_from_the_checkpoint_of_their_step(tmp_path):
    with_best(tmp_path)
    damage(tmp_path / "best" / "step-00000003.000001")
    second = Attempt(tmp_path)
    assert second.restore(best_of=best_of).step == 4
    assert (second.best.step, best_weights(tmp_path)) == (3, 3.0)
    assert second.count("corrupt_checkpoints_total") == 1


def test_without_that_checkpoint_older_best_weights_hold_and_outlive_pruning(tmp_path):
    with_best(tmp_path)
    damage(tmp_path / "best" / "step-00000003.000001")
    damage(tmp_path / "checkpoints" / "step-00000003.000001")
    second = Attempt(tmp_path, keep=1)
    second.restore(best_of=best_of)
    assert second.best.step == 1
    second.publish(5)
    assert best_weights(tmp_path) == 1.0


def test_with_nothing_left_of_the_best_weights_there_are_none(tmp_path):
    with_best(tmp_path, keep=1)
    shutil.rmtree(tmp_path / "best")
    second = Attempt(tmp_path)
    assert second.restore(best_of=best_of).step == 4
    assert second.best is None


def test_a_step_that_is_saved_again_replaces_what_lies_damaged_under_its_name(tmp_path):
    attempt = Attempt(tmp_path).publish(1, 2)
    damage(tmp_path / "checkpoints" / "step-00000002.000001")
    assert attempt.newest().step == 1
    attempt.publish(2)
    assert attempt.newest().step == 2


@given(st.lists(st.tuples(st.sampled_from(["checkpoints", "best"]), st.booleans()), max_size=12))
@example([("best", True), ("checkpoints", False)])  # the owed save's tensors were the spare buffer, too
@example([("best", True), ("checkpoints", True), ("checkpoints", False)])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_fails_each_publication_holds_the_weights_of_its_step(tmp_path_factory, saves):
    run_dir, full = tmp_path_factory.mktemp("run"), threading.Event()

    def fsync(descriptor):
        if full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "fsync", fsync)
        attempt, best = Attempt(run_dir), 0
        for step, (place, fails) in enumerate([*saves, ("checkpoints", False)], start=1):
            full.set() if fails else full.clear()
            best, before = (step if place == "best" else best), attempt.failures
            (attempt.save if place == "checkpoints" else attempt.publish_best)(step, tensors(step), {"best": best})
            assert attempt.flush(20) is (attempt.error is None)
            assert fails == (attempt.failures > before)

        found = {place: checkpoint.publications(run_dir, place) for place in ("checkpoints", "best")}
    for publication in [*found["checkpoints"], *found["best"]]:
        restored = checkpoint.read(publication)
        assert torch.equal(restored.tensors["model"]["w"], tensors(publication.step)["model"]["w"])
    assert found["checkpoints"][0].step == len(saves) + 1
    assert (found["best"][0].step if best else 0) == best


def test_order_is_by_step_whatever_the_clocks_say(tmp_path):
    Attempt(tmp_path).publish(9, 10)
    os.utime(tmp_path / "checkpoints" / "step-00000010.000001", (1, 1))
    assert Attempt(tmp_path).restore().step == 10


def test_what_a_late_writer_publishes_is_ignored_and_it_prunes_nothing_of_its_successor(tmp_path):
    late = Attempt(tmp_path, keep=1).publish(1, 2)
    newer = Attempt(tmp_path)
    assert newer.restore().step == 2
    for step in (3, 4):  # it lost its lease unnoticed: publishes and prunes as if it were alone
        storage.publish(tmp_path / "checkpoints" / f"step-{step:08d}.000001", lambda directory: None)
    late.prune()
    assert "step-00000002.000002" in names(tmp_path)
    assert [(p.step, p.fence) for p in checkpoint.publications(tmp_path)] == [(2, 2)]
    third = Attempt(tmp_path)
    assert third.restore().step == 2
    third.publish(5)
    assert names(tmp_path) == ["step-00000002.000003", "step-00000005.000003"]


def test_a_writer_that_sees_a_newer_lease_publishes_nothing_more(tmp_path):
    late = Attempt(tmp_path).publish(1)
    Attempt(tmp_path)
    late.save(2, tensors(2), {})
    assert late.flush(20) is False
    assert "a newer attempt holds the run's lease" in late.said[-1]
    assert names(tmp_path) == ["step-00000001.000001"]


def test_adoption_without_hard_links_copies(tmp_path, monkeypatch):
    Attempt(tmp_path).publish(1)

    def no_links(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    second = Attempt(tmp_path)
    monkeypatch.setattr(os, "link", no_links)
    restored = second.restore()
    assert storage.verify(restored.path)
    first = tmp_path / "checkpoints" / "step-00000001.000001" / "model.safetensors"
    assert first.stat().st_ino != (restored.path / "model.safetensors").stat().st_ino


def test_the_newest_steps_are_kept(tmp_path):
    Attempt(tmp_path, keep=2).publish(1, 2, 3, 4)
    assert names(tmp_path) == ["step-00000003.000001", "step-00000004.000001"]


def test_a_pruned_name_never_has_a_higher_number_than_its_pruner(tmp_path):
    old = Attempt(tmp_path, keep=1).publish(1)
    storage.publish(tmp_path / "checkpoints" / "step-00000000.000007", lambda directory: None)
    old.publish(2)
    assert names(tmp_path) == ["step-00000000.000007", "step-00000002.000001"]


def test_the_best_is_replaced_by_a_better_one_and_survives_pruning_and_restarts(tmp_path):
    attempt = Attempt(tmp_path, keep=1).publish(1).publish(1, place="best").publish(2, 3, 4)
    assert names(tmp_path, "best") == ["step-00000001.000001"]
    attempt.publish(5, place="best")
    assert names(tmp_path, "best") == ["step-00000001.000001", "step-00000005.000001"]
    second = Attempt(tmp_path, keep=1)
    assert second.restore().step == 4  # goes on from before the best of step 5: that of step 1 holds again
    assert checkpoint.newest(tmp_path, "best").path.name == "step-00000001.000002"
    assert names(tmp_path, "best")[-1] == "step-00000005.000001"  # ignored, and removed with the next save
    second.publish(5, place="best").publish(5)
    assert names(tmp_path, "best") == ["step-00000005.000002"]


def test_a_stalled_disk_lets_one_save_wait_and_the_newest_replaces_it(tmp_path, monkeypatch):
    gate, entered = threading.Event(), threading.Event()
    real = storage.fsync

    def stalled(descriptor):
        entered.set()
        gate.wait(60)
        real(descriptor)

    attempt = Attempt(tmp_path, keep=9)
    monkeypatch.setattr(storage, "fsync", stalled)
    attempt.save(1, tensors(1), {})
    assert entered.wait(20)
    for step in (2, 3, 4):
        attempt.save(step, tensors(step), {})
    assert attempt.flush(0.1) is False  # it is still stalled
    gate.set()
    assert attempt.flush(20) is True
    assert [publication.step for publication in checkpoint.publications(tmp_path)] == [4, 1]
    assert (attempt.count("checkpoints_total"), attempt.count("checkpoint_stall_seconds")) == (2, 4)


def test_a_checkpoint_is_never_published_before_the_best_that_it_knows_of(tmp_path, monkeypatch):
    gate, entered = threading.Event(), threading.Event()
    real = storage.publish
    order: list[str] = []

    def slow(final, write):
        entered.set()
        gate.wait(20)
        order.append(f"{final.parent.name} {int(final.name[5:13])}")
        if order == ["checkpoints 1", "best 5"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(final, write)

    monkeypatch.setattr(storage, "publish", slow)
    attempt = Attempt(tmp_path)
    attempt.save(1, tensors(1), {})
    assert entered.wait(20)
    for step, place in [(2, "best"), (3, "checkpoints"), (4, "best"), (5, "best"), (6, "checkpoints"), (7, "best")]:
        (attempt.save if place == "checkpoints" else attempt.publish_best)(step, tensors(step), {})
    gate.set()
    assert attempt.flush(20)
    assert order == ["checkpoints 1", "best 5", "best 5", "checkpoints 6", "best 7"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_save_that_fails_is_counted_and_the_next_one_starts_afresh(tmp_path, monkeypatch, code):
    attempt = Attempt(tmp_path).publish(1)

    def failing(descriptor):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(storage, "fsync", failing)
        attempt.save(2, tensors(2), {})
        assert attempt.flush(20) is False
    assert (attempt.failures, attempt.saved_step, names(tmp_path)) == (1, 1, ["step-00000001.000001"])
    assert "what was published before is intact" in attempt.said[-1]
    attempt.publish(3)
    assert (attempt.failures, attempt.saved_step) == (1, 3)


FULL_DISK = """
import sys, torch
from pathlib import Path
from workers.checkpoint import Checkpoints
said = []
c = Checkpoints(Path(sys.argv[1]), fence=1, keep=1, say=said.append)
c.save(1, {"model": {"w": torch.zeros(100_000)}}, {}); print(c.flush(20))
c.save(2, {"model": {"w": torch.zeros(1_000_000)}}, {}); print(c.flush(20), c.failures, "o space left" in said[-1])
print(sorted(p.name for p in Path(sys.argv[1], "checkpoints").iterdir()))
c.save(3, {"model": {"w": torch.zeros(100_000)}}, {}); print(c.flush(20))
"""


def test_a_disk_that_is_really_full_costs_one_save_and_nothing_else(tmp_path):
    mount = ["unshare", "-Urm", "sh", "-c", f'mount -t tmpfs -o size=2m tmpfs {tmp_path} && exec "$@"', "sh"]
    if subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    done = subprocess.run([*mount, sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["True", "False 1 True", "['step-00000001.000001']", "True"], done.stderr


def test_a_state_that_is_no_json_is_refused_in_the_loops_own_thread(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        Attempt(tmp_path).save(1, tensors(1), {"loss": float("nan")})
    with pytest.raises(TypeError, match="JSON"):
        Attempt(tmp_path).save(1, tensors(1), {"loss": object()})


def test_a_bug_in_the_writer_is_raised_in_the_loops_own_thread(tmp_path, monkeypatch):
    attempt = Attempt(tmp_path)
    monkeypatch.setattr(attempt, "_publish", lambda save: 1 / 0)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    attempt.save(1, tensors(1), {})
    with pytest.raises(RuntimeError, match="writer stopped"):
        attempt.flush(20)


def test_sigkill_or_power_loss_at_any_disk_operation_leaves_the_old_or_the_new_checkpoint():
    script = Path(__file__).with_name("kill_points.py")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        done = subprocess.run([sys.executable, script, directory], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    kills = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kills) > 40
    for found in zip(*kills, strict=True):  # after the kills, after the power losses
        steps = [state["step"] for state in found]
        assert steps == sorted(steps)
        assert set(steps) == {1, 2}
        assert all(
            s == {"step": s["step"], "exact": True, "state": {"step": s["step"]}, "temporaries": []} for s in found
        )


def test_a_checkpoint_cut_at_any_4_kib_is_passed_over(tmp_path):
    Attempt(tmp_path).publish(1, 2)
    path = tmp_path / "checkpoints" / "step-00000002.000001" / "model.safetensors"
    whole = path.read_bytes()
    for length in range(0, len(whole), 4096):
        path.write_bytes(whole[:length])
        assert checkpoint.newest(tmp_path).step == 1
    path.write_bytes(whole)
    assert checkpoint.newest(tmp_path).step == 2
    shutil.rmtree(tmp_path / "checkpoints")
    assert checkpoint.newest(tmp_path) is None
