"""Collect with a fake simulator: run by test_collect.py in processes of its own, which it may kill.

Everything but the simulator is the workers' program. An episode is a pure function of its seed, as the real one is.
As a program, `fake_collect.py collect --config FILE`, it is the loop of a supervisor.
"""

import importlib
import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # the processes of several simulators look there too

import fake_environment

PACE = float(os.environ.get("JOBCTL_TEST_PACE") or 1)


def main(config: str, env: dict[str, str], log: str, step_seconds: float) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)
    return collect(config, step_seconds)


def collect(config: str, step_seconds: float) -> int:
    from workers import envs, loop

    if PACE != 1:  # no interpreter starts here that would find it by itself
        importlib.import_module("loop_pace").adopt(PACE)
    envs.maker = lambda settings: partial(fake_environment.FakeEnv, step_seconds)
    return loop.main("collect", Path(config))


if __name__ == "__main__" and "--config" in sys.argv:
    sys.exit(collect(sys.argv[sys.argv.index("--config") + 1], step_seconds=0.0))
if __name__ == "__main__":
    sys.exit(main(**ARGUMENTS))  # noqa: F821 - given by runpy
