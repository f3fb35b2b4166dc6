"""Claim: sensors, signals, ensemble and policy cost little beside the simulator itself.

Ours: timesteps of scripted episodes as collect steps them. Baseline: the bare simulator, the same scene, substeps and
three pictures, drawn by mujoco.Renderer, with nothing read from it. Both are timed by the processor time that they
take, a few timesteps of one and then of the other: what else the machine does meanwhile slows both alike.
"""

import time

from paired import Way, compare

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.scripted import ScriptedEpisode
from workers.episodes.schema import CAMERAS, IMAGE_PIXELS, RATE_HZ

STEPS, EPISODE_STEPS = 10, 100


def scripted() -> Way:
    env = ScriptedEpisode(ArmCubeEnv())
    seeds = iter(range(1, 1_000_000))
    observation, ended = env.reset(seed=next(seeds))[0], False

    def run() -> float:
        nonlocal observation, ended
        seconds = 0.0
        for _ in range(STEPS):
            if ended:
                observation, _ = env.reset(seed=next(seeds))
            start = time.process_time()
            observation, _, ended, _, _ = env.step(observation["policy_action"])
            seconds += time.process_time() - start
        return STEPS / seconds

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
        if data.time > EPISODE_STEPS / RATE_HZ:
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
    compare("timesteps a processor second, one process", scripted(), bare(), unit="timesteps/s", runs=150)
