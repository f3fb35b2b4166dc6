"""Kills a resuming and saving attempt before every operation that it does on the disk, and prints what each kill left.

Run as `python kill_points.py DIRECTORY`: one JSON line a kill, of what a later attempt finds: [after the kill, after a
power loss], which also drops the content of files that were not synced.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import safetensors.torch
import torch

from workers import checkpoint, lease, storage

WRITES = {"os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "shutil.copyfile"}
BIG = torch.arange(20_000, dtype=torch.float32)


def tensors(step: int) -> checkpoint.Tensors:
    return {"model": {"w": BIG + step}, "optimizer": {"0.exp_avg": BIG * step}}


def resume_and_save(run_dir: Path) -> None:
    """Restores step 1 of attempt 1, saves step 2 as attempt 2; keep=1 has the old one pruned."""
    checkpoints = checkpoint.Checkpoints(run_dir, fence=2, keep=1, say=lambda text: None)
    assert checkpoints.restore().step == 1
    checkpoints.save(2, tensors(2), {"step": 2})
    assert checkpoints.flush(10)


class Killer:
    """Counts disk operations of this process and kills it before number `last`; remembers which inodes are synced."""

    def __init__(self, last: int, synced: Path) -> None:
        self.count = 0
        self.last = last
        self.synced = synced.open("a")
        sys.addaudithook(self.audit)
        self.fsync = storage.fsync
        self.save_file = safetensors.torch.save_file
        storage.fsync = self.counted_fsync
        safetensors.torch.save_file = self.halved_save_file

    def tick(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if event in WRITES or writes:
            self.tick()

    def counted_fsync(self, descriptor: int) -> None:
        self.tick()
        self.fsync(descriptor)
        self.synced.write(f"{os.fstat(descriptor).st_ino}\n")
        self.synced.flush()

    def halved_save_file(self, group: dict, path: Path) -> None:
        self.save_file(group, path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        self.tick()
        path.write_bytes(whole)


def drop_unsynced(run_dir: Path, synced: Path, before: set[int]) -> None:
    kept = before | {int(line) for line in synced.read_text().split()}
    for path in run_dir.rglob("*"):
        if path.is_file() and path.stat().st_ino not in kept:
            path.write_bytes(b"")


def inspect(run_dir: Path) -> dict:
    """What a third attempt finds; everything published under a final name has to verify."""
    for place in (run_dir / "checkpoints").iterdir():
        if not place.name.startswith("."):
            storage.verify(place)
    restored = checkpoint.Checkpoints(run_dir, fence=3, keep=1, say=lambda text: None).restore()
    exact = torch.equal(restored.tensors["model"]["w"], BIG + restored.step)
    left = sorted(path.name for path in (run_dir / "checkpoints").iterdir() if path.name.startswith("."))
    return {"step": restored.step, "exact": exact, "state": restored.state, "temporaries": left}


def attempt(template: Path, directory: Path, last: int) -> list[dict] | None:
    """None once `last` is beyond the last operation."""
    run_dir = directory / f"run-{last}"
    shutil.copytree(template, run_dir)
    synced = directory / f"synced-{last}"
    synced.touch()
    before = {path.stat().st_ino for path in run_dir.rglob("*")}
    child = os.fork()
    if child == 0:
        killer = Killer(last, synced)
        resume_and_save(run_dir)
        os._exit(0 if killer.count < last else 1)
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        assert os.WEXITSTATUS(status) == 0
        return None
    lease.Lease.acquire(run_dir / "lease" / "0", pod="c", uid="c", lease_seconds=0.0).release()
    copy = shutil.copytree(run_dir, directory / f"copy-{last}")
    drop_unsynced(run_dir / "checkpoints", synced, before)
    return [inspect(copy), inspect(run_dir)]


def main(directory: Path) -> None:
    template = directory / "template"
    held = lease.Lease.acquire(template / "lease" / "0", pod="a", uid="a", lease_seconds=0.0)
    first = checkpoint.Checkpoints(template, fence=1, keep=1, say=lambda text: None)
    first.restore()
    first.save(1, tensors(1), {"step": 1})
    assert first.flush(10)
    held.release()
    lease.Lease.acquire(template / "lease" / "0", pod="b", uid="b", lease_seconds=0.0).release()
    last = 1
    while (found := attempt(template, directory, last)) is not None:
        print(json.dumps(found), flush=True)
        last += 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
