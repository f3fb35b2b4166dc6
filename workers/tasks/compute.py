"""What a loop computes with: the dataset, the device, and in which arithmetic."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch

from workers.episodes import ledger
from workers.errors import BadConfigError, BadDataError
from workers.runtime import Runtime

if TYPE_CHECKING:
    from pathlib import Path

    from workers.config import Config

Autocast = Callable[[], AbstractContextManager[None]]


def choose_device(config: Config, local_rank: int = 0) -> torch.device:
    """The profile's device. Raises BadConfigError for a GPU profile without a device, unless it may use a CPU."""
    if config.device == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if not config.allow_cpu:
        raise BadConfigError(
            f"profile {config.gpu} asks for a GPU, but torch {torch.__version__} sees none here: "
            "use gpu: cpu, or allowCpu: true to train on the CPU all the same"
        )
    print(f"no GPU for profile {config.gpu}: computing on the CPU, as allowCpu says", flush=True)
    return torch.device("cpu")


def make_exact(device: torch.device, threads: int | None) -> None:
    """Have the same step give the same bits: one thread on a CPU (two add in any order), no racing kernels."""
    if threads or device.type == "cpu":
        torch.set_num_threads(threads or 1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked by CUDA's deterministic matrix products
    torch.use_deterministic_algorithms(True)


def arithmetic(precision: str, device: torch.device) -> tuple[Autocast, torch.amp.GradScaler]:
    """(factory of autocast contexts, scaler that works with fp16 alone). Raises BadConfigError: fp16 on a CPU."""
    if precision == "auto":
        precision = "fp32" if device.type == "cpu" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision == "fp16" and device.type == "cpu":
        raise BadConfigError("settings.precision fp16 needs a GPU: use auto, fp32 or bf16 on a CPU")
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    if precision == "fp32":
        return lambda: torch.autocast(device.type, enabled=False), scaler
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return lambda: torch.autocast(device.type, dtype=dtype), scaler


def required_data(config: Config, runtime: Runtime) -> Path:
    """The dataset's directory. Raises BadConfigError if none is named, BadDataError naming those there are."""
    if not config.data:
        raise BadConfigError("data is missing: name the dataset on the volume, such as datasets/NAME")
    return dataset_at(runtime.volume, "data", config.data)


def dataset_at(volume: Path, key: str, data: str) -> Path:
    """The directory of the dataset that the spec's `key` names, which has to be finished.

    Raises BadDataError naming those there are, or saying what to wait for: what is still written is not the same data
    for every process, nor for the next attempt.
    """
    dataset = volume / data
    if not dataset.is_dir():
        known = sorted(f"datasets/{path.name}" for path in (volume / "datasets").glob("*"))
        there = f"datasets on this volume: {', '.join(known)}" if known else "this volume holds no dataset: collect one"
        raise BadDataError(f"{key}: {data} does not exist; {there}")
    _require_finished(dataset, key, data)
    return dataset


def _require_finished(dataset: Path, key: str, data: str) -> None:
    if ledger.merged(dataset) is None:
        raise BadDataError(
            f"{key}: {data} is not finished: {len(ledger.numbers(dataset))} episodes are recorded, and no manifest "
            f"says that they are all; wait for the collect job that writes it (`jobctl wait {dataset.name}`, if it "
            "bears this name), or submit that job again"
        )
