"""Environments side by side, one process each, that never outlive the process that started them."""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection
from typing import TYPE_CHECKING, Any

from workers.errors import WorkerError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

    from workers.envs.settings import CollectSettings

PR_SET_PDEATHSIG = 1  # prctl(2)


class EnvironmentDiedError(WorkerError):
    """A simulator's process ended by itself."""


def make_vector(n: int, settings: CollectSettings) -> VectorEnv:
    """`n` ScriptedEpisode environments: processes (spawn) where n > 1, this process where n = 1.

    Nothing resets by itself: the caller starts episode after episode in each environment with
    `reset(seed=[...], options={"reset_mask": mask})`; environments that stand still repeat their last observation.
    An observation holds until the next `step` or `reset`, which write over its memory: copy what shall stay.
    Raises BadConfigError where the simulator cannot draw pictures.
    """
    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    from workers.envs.simulator import choose_renderer, load_mujoco

    choose_renderer()  # the children inherit the choice
    if n == 1:
        make = partial(_make, settings.max_steps, settings.perturbed_share)
        return SyncVectorEnv([make], autoreset_mode=AutoresetMode.DISABLED, copy=False)
    load_mujoco()  # a missing library is one sentence here, n tracebacks in the children
    child = partial(_make_child, os.getpid(), settings.max_steps, settings.perturbed_share)
    return _vector_class()([child] * n)


def _make(max_steps: int, perturbed_share: float) -> Any:
    from workers.envs.arm_cube import ArmCubeEnv
    from workers.envs.scripted import ScriptedEpisode

    return ScriptedEpisode(ArmCubeEnv(max_steps=max_steps, perturbed_share=perturbed_share))


def _make_child(parent: int, max_steps: int, perturbed_share: float) -> Any:
    if os.getpid() != parent:  # AsyncVectorEnv makes one environment in the parent too, to learn its spaces
        bind_to_parent(parent)
    return _make(max_steps, perturbed_share)


def bind_to_parent(parent: int) -> None:
    """Die with the parent (Linux), and leave SIGTERM and SIGINT to it: it ends this process when its work is saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before prctl took hold
        os.kill(os.getpid(), signal.SIGKILL)


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        process.kill()


def _vector_class() -> Callable[[list[Callable[[], Any]]], VectorEnv]:
    from gymnasium.vector import AsyncVectorEnv, AutoresetMode
    from gymnasium.vector.async_vector_env import AsyncState

    class ArmVectorEnv(AsyncVectorEnv):
        """AsyncVectorEnv for children that ignore SIGTERM, and that may die."""

        def __init__(self, makers: list[Callable[[], Any]]) -> None:
            super().__init__(
                makers, shared_memory=True, copy=False, context="spawn", autoreset_mode=AutoresetMode.DISABLED
            )
            # At exit multiprocessing sends SIGTERM and waits: for ever, where it is ignored. Ours is called before it.
            self._kill_at_exit = partial(_kill, self.processes)
            atexit.register(self._kill_at_exit)

        def step_async(self, actions: Any) -> None:
            with self._naming_the_dead():
                super().step_async(actions)

        def step_wait(self, timeout: float | None = None) -> Any:
            with self._naming_the_dead():
                return super().step_wait(timeout)

        def reset_async(self, *args: Any, **options: Any) -> None:
            with self._naming_the_dead():
                super().reset_async(*args, **options)

        def reset_wait(self, timeout: float | None = None) -> Any:
            with self._naming_the_dead():
                return super().reset_wait(timeout)

        @contextmanager
        def _naming_the_dead(self) -> Iterator[None]:
            try:
                yield
            except (EOFError, ConnectionError) as error:
                self._state = AsyncState.DEFAULT  # nothing is awaited any more: close may go on
                ended = connection.wait([process.sentinel for process in self.processes], timeout=10.0)
                codes = {}
                for i, process in enumerate(self.processes):
                    if process.sentinel in ended:
                        process.join(10.0)  # its files are closed a moment before its exit code can be read
                        codes[i] = process.exitcode
                names = ", ".join(f"{i} (exit code {code})" for i, code in codes.items()) or "?"
                raise EnvironmentDiedError(f"The simulator process of environment {names} died.") from error

        def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
            if terminate or any(not process.is_alive() for process in self.processes):
                _kill(self.processes)
                terminate = True
            super().close_extras(timeout, terminate)
            atexit.unregister(self._kill_at_exit)

    return ArmVectorEnv
