"""Loops whose steps take ten times as long, or nothing: what tests that hold jobs must not notice (`make test-pace`).

Slower: a loop sleeps at each step for as many times as the step took processor time (time that it waited for others
is not slowed again). Faster than any machine: a training step leaves out the model, simulators are those of
fake_environment.py.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

LONGEST_SECONDS = 2.0
Patch = Callable[[ModuleType], None]


def adopt(pace: float) -> None:
    """For this process, whether it has imported the workers' modules already or will."""
    if pace == 1:
        return
    patches = NOTHING if pace == 0 else {name: partial(patch, pace - 1) for name, patch in SLOWER.items()}
    for name in patches.keys() & sys.modules.keys():
        patches[name](sys.modules[name])
    sys.meta_path.insert(0, _Patching({name: patch for name, patch in patches.items() if name not in sys.modules}))


class _Patching:
    """Finds the modules that are to be patched once they are imported."""

    def __init__(self, patches: dict[str, Patch]) -> None:
        self._patches = patches

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        patch = self._patches.pop(name, None)
        spec = PathFinder.find_spec(name, path) if patch else None
        if patch is None or spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _slower(more: float, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call`, which ends a step, as if the step since its last end had taken `more` times longer."""
    since: list[float] = []

    def slow(*arguments: Any, **keys: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return call(*arguments, **keys)
        if since:
            time.sleep(min(LONGEST_SECONDS, more * (time.process_time() - since.pop())))
        try:
            return call(*arguments, **keys)
        finally:
            since.append(time.process_time())

    return slow


def _slow_loop(more: float, runtime: ModuleType) -> None:
    runtime.Runtime.progress = _slower(more, runtime.Runtime.progress)


def _slow_simulator(more: float, simulators: ModuleType) -> None:
    simulators._Link.beat = _slower(more, simulators._Link.beat)


def _skip_model(training: ModuleType) -> None:
    """A loss that pulls every weight towards 0 by the same amount."""

    def loss(task: Any, data: Any) -> Any:
        return sum(weights.sum() for weights in task.model.parameters()) * 1e-6

    training.Training.loss = loss


def _simulate_nothing(envs: ModuleType) -> None:
    def maker(settings: Any) -> Any:
        import fake_environment

        return partial(fake_environment.FakeEnv, 0.0)

    envs.maker = maker


SLOWER: dict[str, Callable[[float, ModuleType], None]] = {
    "workers.runtime": _slow_loop,
    "workers.simulators": _slow_simulator,
}
NOTHING: dict[str, Patch] = {
    "workers.tasks.predictor.training": _skip_model,
    "workers.envs": _simulate_nothing,
}
