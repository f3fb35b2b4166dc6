"""Claim: sensors, signals, ensemble and policy cost little beside the simulator itself.

Ours: timesteps of a scripted episode as collect steps it. Baseline: the bare simulator, the same scene, substeps and
three pictures, with nothing read from it.
"""

import time

from paired import Way, compare

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.scripted import ScriptedEpisode
from workers.episodes.schema import CAMERAS, IMAGE_PIXELS, RATE_HZ

STEPS = 60


def scripted() -> Way:
    env = ScriptedEpisode(ArmCubeEnv())
    seeds = iter(range(1, 1_000_000))

    def run() -> float:
        observation, _ = env.reset(seed=next(seeds))
        start, done = time.perf_counter(), 0
        for done in range(1, STEPS + 1):  # noqa: B007 - an episode may end before
            observation, _, terminated, _, _ = env.step(observation["policy_action"])
            if terminated:
                break
        return done / (time.perf_counter() - start)

    return Way("collect's environment", run)


def bare() -> Way:
    from workers.envs.simulator import SCENE, load_mujoco, make_renderer

    mujoco = load_mujoco()
    model = mujoco.MjModel.from_xml_path(str(SCENE))
    data = mujoco.MjData(model)
    renderer = make_renderer(mujoco, model, IMAGE_PIXELS, IMAGE_PIXELS)
    substeps = round(1 / RATE_HZ / model.opt.timestep)

    def run() -> float:
        mujoco.mj_resetData(model, data)
        start = time.perf_counter()
        for _ in range(STEPS):
            mujoco.mj_step(model, data, substeps)
            for camera in CAMERAS:
                renderer.update_scene(data, camera)
                renderer.render()
        return STEPS / (time.perf_counter() - start)

    return Way("bare simulator with three cameras", run)


if __name__ == "__main__":
    compare("timesteps a second, one process", scripted(), bare(), unit="timesteps/s", runs=9)
