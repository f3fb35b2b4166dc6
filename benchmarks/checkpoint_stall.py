"""Claim: a save stalls the loop for a copy of the tensors, not for the write.

Ours: how long `Checkpoints.save` keeps the caller, 25 million parameters with AdamW's state (300 MB). Baseline:
torch.save of the same tensors and an fsync, which is what a loop without a writer thread waits for.
"""

import os
import tempfile
import time
from pathlib import Path

import torch
from paired import Way, compare

from workers.checkpoint import Checkpoints

PARAMETERS = 25_000_000


def tensors() -> dict[str, dict[str, torch.Tensor]]:
    return {
        "model": {"weight": torch.randn(PARAMETERS)},
        "optimizer": {"exp_avg": torch.randn(PARAMETERS), "exp_avg_sq": torch.rand(PARAMETERS)},
    }


def behind(directory: Path) -> Way:
    checkpoints = Checkpoints(directory / "run", fence=1, keep=1, say=lambda text: None)
    state, steps = tensors(), iter(range(1, 1000))

    def run() -> float:
        start = time.perf_counter()
        checkpoints.save(next(steps), state, {})
        stall = time.perf_counter() - start
        checkpoints.flush()
        return stall

    return Way("Checkpoints.save (published behind, verified names and hashes)", run)


def inline(directory: Path) -> Way:
    state, file = tensors(), directory / "state.pt"

    def run() -> None:
        with file.open("wb") as out:
            torch.save(state, out)
            out.flush()
            os.fsync(out.fileno())

    return Way("torch.save and fsync", run)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        compare("seconds that one save stalls the loop", behind(Path(temporary)), inline(Path(temporary)), runs=7)
