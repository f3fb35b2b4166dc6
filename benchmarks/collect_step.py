"""Claim: sensors, signals, ensemble and policy cost little beside the simulator itself.

Ours: timesteps of a scripted episode as collect steps it. Baseline: the bare simulator, the same scene, substeps and
three pictures, drawn by mujoco.Renderer, with nothing read from it. Both are timed by the processor time they take: the
machine's other work counts less that way, but still slows both down.
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
        start, done = time.process_time(), 0
        for done in range(1, STEPS + 1):  # noqa: B007 - an episode may end before
            observation, _, terminated, _, _ = env.step(observation["policy_action"])
            if terminated:
                break
        return done / (time.process_time() - start)

    return Way("collect's environment", run)


def bare() -> Way:
    from workers.envs.simulator import HIDDEN, SCENE, load_mujoco

    mujoco = load_mujoco()
    model = mujoco.MjModel.from_xml_path(str(SCENE))
    data = mujoco.MjData(model)
    renderer = mujoco.Renderer(model, IMAGE_PIXELS, IMAGE_PIXELS)
    for flag in HIDDEN:
        renderer.scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
    substeps = round(1 / RATE_HZ / model.opt.timestep)

    def run() -> float:
        mujoco.mj_resetData(model, data)
        start = time.process_time()
        for _ in range(STEPS):
            mujoco.mj_step(model, data, substeps)
            for camera in CAMERAS:
                renderer.update_scene(data, camera)
                renderer.render()
        return STEPS / (time.process_time() - start)

    return Way("bare simulator with three cameras", run)


if __name__ == "__main__":
    compare("timesteps a processor second, one process", scripted(), bare(), unit="timesteps/s", runs=25)
