"""What a checkpoint is made of: copies of tensors, their files, and an optimizer's state without pickling."""

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Tensors = dict[str, dict[str, "torch.Tensor"]]  # file name without suffix -> tensor name -> tensor
_OS_ERROR = re.compile(r"os error (\d+)")  # how safetensors, which is written in Rust, tells an errno


def snapshot(tensors: Tensors, spare: Tensors | None) -> Tensors:
    """Contiguous copies on the CPU, in the spare's memory where it fits: fresh pages cost more than the copy."""
    import torch

    copies: Tensors = {}
    for file, group in tensors.items():
        old = (spare or {}).get(file, {})
        copies[file] = {}
        for name, tensor in group.items():
            copy = old.get(name)
            if copy is None or copy.shape != tensor.shape or copy.dtype != tensor.dtype:
                copy = torch.empty(tensor.shape, dtype=tensor.dtype)
            copies[file][name] = copy.copy_(tensor.detach())
    return copies


def save_file(group: dict[str, "torch.Tensor"], path: Path) -> None:
    """Raises OSError with the disk's own errno, as safetensors doesn't."""
    from safetensors import SafetensorError
    from safetensors import torch as files

    try:
        files.save_file(group, path)
    except SafetensorError as error:
        told = _OS_ERROR.search(str(error))
        number = int(told[1]) if told else errno.EIO
        raise OSError(number, os.strerror(number) if told else str(error), str(path)) from error


def flatten_optimizer(optimizer: "torch.optim.Optimizer") -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """An optimizer's state as named tensors ("3.exp_avg": of parameter 3) and the JSON that the rest fits into."""
    import torch

    state = optimizer.state_dict()
    entries = {f"{number}.{key}": value for number, item in state["state"].items() for key, value in item.items()}
    tensors = {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}
    scalars = {name: value for name, value in entries.items() if name not in tensors}
    groups = [{key: _plain(value) for key, value in group.items()} for group in state["param_groups"]]
    return tensors, {"groups": groups, "scalars": scalars}


def load_optimizer(
    optimizer: "torch.optim.Optimizer", tensors: dict[str, "torch.Tensor"], meta: dict[str, Any]
) -> None:
    """The inverse of `flatten_optimizer`. Raises ValueError if the parameter groups differ."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **meta["scalars"]}.items():
        number, key = name.split(".", 1)
        state.setdefault(int(number), {})[key] = value
    groups = [
        {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
        for group in meta["groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
