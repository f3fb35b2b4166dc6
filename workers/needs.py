"""What one replica of each kind needs of its node, for the task `predictor` and the environment that it learns from.

The chart adds up the terms (templates/_profile.tpl, `jobctl.need`). A term's figures hold once, or as many times as the
product of the counts that it names: settings, `processes` of the pod, `samples` (the pod's share of a training's
batch), `hostMemoryMiB` (of the profile: what a process takes on the host for using the device).

Memory was measured by `python scripts/needs.py` (torch 2.13 on CPUs, 36 episodes of at most 200 timesteps; MiB):

    collect  two simulators, short episodes   354    six simulators, short episodes   785
             four simulators                 1181    four, twice as long episodes     965
    train    defaults, one process            389    two processes in one pod         626
             large model, 3,516 samples       525
    eval     defaults                         472

HEADROOM is for what varies between machines, for dirty pages on their way to the volume, and for libraries that grow.
CPU is counted, not measured: the threads that compute. A job with less is slower, no more.
"""

from typing import Any

from workers.envs.settings import CollectSettings
from workers.episodes.schema import TIMESTEP_IMAGE_BYTES
from workers.tasks.predictor.settings import EvalSettings, TrainSettings

MIB = 2**20
HEADROOM = 1.5
DATASET_MIB = 250  # a million timesteps, 5,000 long episodes: signals twice, labels, rows (tasks/predictor/data.py)
EPISODES = 2  # of a simulator: one that runs, one that is written
SHM_MIB = 128  # for what libraries put there; nothing was seen
TMP_MIB = 1024  # 12 KiB were seen


def needs(sample_bytes: int) -> dict[str, Any]:
    """The chart's table, by kind. `sample_bytes`: what a sample of the largest model keeps for its backward pass."""
    simulators, train, judge = CollectSettings.model_validate({}), TrainSettings(), EvalSettings()
    timestep_mib = TIMESTEP_IMAGE_BYTES / MIB
    return {
        "collect": _need(
            {"envs": simulators.envs_on("cuda", 1), "maxSteps": simulators.max_steps},
            _term(memory_mib=110 * HEADROOM),
            _term("envs", cpus=1.1, memory_mib=95 * HEADROOM),  # a tenth for compression
            # All simulators at the end of their longest episode: no headroom, this is the most there can be.
            _term("envs", "maxSteps", memory_mib=EPISODES * timestep_mib),
        ),
        "train": _need(
            {"batch": train.batch, "threads": 1},
            _term(memory_mib=152 * HEADROOM),
            _term("processes", memory_mib=237 * HEADROOM + DATASET_MIB),
            _term("processes", "threads", cpus=1),
            _term("processes", "hostMemoryMiB", memory_mib=1),
            _term("samples", memory_mib=sample_bytes * HEADROOM / MIB),
        ),
        "eval": _need(
            {"threads": judge.threads},
            _term(memory_mib=472 * HEADROOM + DATASET_MIB),
            _term("hostMemoryMiB", memory_mib=1),
            _term("threads", cpus=1),
        ),
    }


def _need(open_counts: dict[str, int], *terms: dict[str, Any]) -> dict[str, Any]:
    """`open_counts`: what a setting counts as that the spec leaves open."""
    return {"counts": open_counts, "terms": [*terms], "shmMiB": SHM_MIB, "tmpMiB": TMP_MIB}


def _term(*times: str, cpus: float = 0, memory_mib: float = 0) -> dict[str, Any]:
    figures = {"cpuMillicores": round(1000 * cpus), "memoryMiB": float(f"{memory_mib:.4g}")}
    return {"times": [*times]} | {name: value for name, value in figures.items() if value}
