"""No signal knows what no sensor sees: hidden state is changed, and the signals of that moment stay bit-equal."""

from collections.abc import Callable

import numpy as np
import pytest

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.perturbations import Perturbation
from workers.envs.scripted import ScriptedEpisode
from workers.envs.signals import Readings
from workers.episodes.schema import SIGNALS


def set_mass(env: ArmCubeEnv) -> None:
    env.model.body_mass[env.model.body("cube").id] *= 3.0


def set_inertia(env: ArmCubeEnv) -> None:
    env.model.body_inertia[env.model.body("cube").id] *= 5.0


def set_friction(env: ArmCubeEnv) -> None:
    for name in ("cube", "left_pad", "right_pad"):
        env.model.geom(name).friction[0] = 0.01


def set_perturbation(env: ArmCubeEnv) -> None:
    env.perturbation = Perturbation("cube_shove", env._judge.steps + 1, 1.5, (0.0, 1.0, 0.0))


def set_judge(env: ArmCubeEnv) -> None:
    env._judge.steps, env._judge._lifted, env._judge._held_steps = 190, True, 9


def set_clock(env: ArmCubeEnv) -> None:
    env.data.time += 5.0


def set_seed(env: ArmCubeEnv) -> None:
    env.episode_seed += 1


HIDDEN = [set_mass, set_inertia, set_friction, set_perturbation, set_judge, set_clock, set_seed]


@pytest.fixture(scope="module")
def moment() -> ArmCubeEnv:
    """Above the cube, before any contact between them."""
    env = ScriptedEpisode(ArmCubeEnv(perturbed_share=0.0), min_skill=0.95)
    observation, _ = env.reset(seed=21)
    for _ in range(30):
        observation, *_ = env.step(observation["policy_action"])
    return env.arm_cube


def observe_anew(env: ArmCubeEnv) -> np.ndarray:
    """Signals after the simulator has worked out all forces again from its present state and parameters."""
    env._mujoco.mj_forward(env.model, env.data)
    return env.observe()["signals"]


@pytest.mark.parametrize("change", HIDDEN, ids=lambda change: change.__name__)
def test_hidden_state_does_not_reach_the_signals_of_the_same_moment(
    moment: ArmCubeEnv, change: Callable[[ArmCubeEnv], None]
) -> None:
    before = observe_anew(moment)
    change(moment)
    assert observe_anew(moment).tobytes() == before.tobytes()


def test_sensed_state_does_reach_the_signals(moment: ArmCubeEnv) -> None:
    """Without this the test above would pass on signals that never change."""
    before = observe_anew(moment)
    moment.data.qpos[moment.arm.qpos] += 0.02
    moment.data.qvel[moment.arm.dofs] += 0.1
    changed = dict(zip([s.name for s in SIGNALS], observe_anew(moment) != before, strict=True))
    moment.data.qpos[moment.arm.qpos] -= 0.02
    moment.data.qvel[moment.arm.dofs] -= 0.1
    names = (
        "disagreement",
        "joint_speed",
        "joint_effort",
        "tracking_error",
        "wrist_force",
        "tool_height",
        "cube_offset",
    )
    assert {name: bool(changed[name]) for name in names} == dict.fromkeys(names, True)


def test_a_perturbation_changes_nothing_before_it_begins() -> None:
    runs = []
    for at_step in (12, 1000):
        env = ScriptedEpisode(ArmCubeEnv(perturbed_share=0.0))
        observation, _ = env.reset(seed=8)
        env.arm_cube.perturbation = Perturbation("arm_shove", at_step, 120.0, (0.0, 1.0, 0.0))
        signals = []
        for _ in range(20):
            observation, *_ = env.step(observation["policy_action"])
            signals.append(observation["signals"])
        env.close()
        runs.append(np.array(signals))
    assert np.flatnonzero((runs[0] != runs[1]).any(1))[0] == 12  # the first timestep that the push acts in


def test_readings_hold_nothing_but_sensors() -> None:
    """Whoever adds a reading must say which sensor gives it, here."""
    assert set(Readings._fields) == {
        *("joint_positions", "joint_velocities", "joint_commands", "joint_torques"),
        *("gripper_opening", "grip_effort", "wrist_force", "tool_position", "wrist_camera"),
        *("action", "previous_action", "front_patch", "previous_front_patch", "wrist_patch"),
    }
