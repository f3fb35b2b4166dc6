"""How episodes end: the definitions on hand-made sequences, and each of them made to happen in the simulator."""

import numpy as np
import pytest

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.failures import COLLISION_NEWTONS, CUBE_HALF_M, GOAL_M, HOLD_STEPS, Judge, Truth
from workers.envs.scripted import ScriptedEpisode


def truth(gap: float = 0.0, fingers: int = 0, force: float = 0.0, x: float = 0.5, y: float = 0.1) -> Truth:
    return Truth((x, y, CUBE_HALF_M + gap), fingers, force)


HELD = truth(gap=0.05, fingers=2)
UP = truth(gap=GOAL_M + 0.01, fingers=2)
HARD = truth(force=COLLISION_NEWTONS + 1)

SEQUENCES = {
    "nothing happens yet": ([truth()] * 5, None),
    "held up long enough": ([UP] * HOLD_STEPS, "success"),
    "held up too short": ([UP] * (HOLD_STEPS - 1), None),
    "held up with a break": ([UP] * (HOLD_STEPS - 1) + [HELD] + [UP] * (HOLD_STEPS - 1), None),
    "lifted and lost in the air": ([HELD, truth(gap=0.04), truth(gap=0.03)], "drop"),
    "lifted and no finger for one timestep": ([HELD, truth(gap=0.05), HELD], None),
    "lifted and back on the table": ([HELD, truth(gap=0.005, fingers=1)], "drop"),
    "never lifted, fingers leave": ([truth(gap=0.01, fingers=2), truth(), truth()], None),
    "hit hard": ([truth(), HARD], "collision"),
    "pressed softly": ([truth(force=COLLISION_NEWTONS - 1)] * 3, None),
    "pushed out of the workspace": ([truth(), truth(y=0.40)], "other"),
    "fallen off the table": ([truth(gap=-0.2)], "other"),
    "time is over": ([truth()] * 200, "timeout"),
    "hit and dropped at once": ([HELD, truth(force=500.0)], "collision"),
    "success in the last timestep": ([truth()] * (200 - HOLD_STEPS) + [UP] * HOLD_STEPS, "success"),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_of_truths_ends_as_defined(name: str) -> None:
    sequence, expected = SEQUENCES[name]
    judge = Judge(max_steps=200)
    outcomes = [judge.judge(each) for each in sequence]
    assert outcomes == [None] * (len(sequence) - 1) + [expected]


def run(env: ScriptedEpisode, action: np.ndarray, steps: int) -> str | None:
    for _ in range(steps):
        *_, ended, _, info = env.step(action.astype(np.float32))
        if ended:
            return str(info["outcome"])
    return None


def test_opening_the_gripper_on_the_way_up_is_a_drop(env: ScriptedEpisode) -> None:
    observation, _ = env.reset(seed=3)
    while env.arm_cube.data.body("cube").xpos[2] < 0.08:
        observation, _, ended, _, _ = env.step(observation["policy_action"])
        assert not ended
    assert run(env, np.array([0, 0, 0, 1.0]), 20) == "drop"


def test_flying_low_into_the_wall_is_a_collision(env: ScriptedEpisode) -> None:
    env.reset(seed=3)
    assert run(env, np.array([0, 0, -0.8, 1.0]), 10) is None  # down in front of the wall, above the table
    assert run(env, np.array([0, 0.8, 0, 1.0]), 30) == "collision"


def test_fingers_driven_into_the_table_are_a_collision(env: ScriptedEpisode) -> None:
    env.reset(seed=3)
    assert run(env, np.array([0, 0, -1.0, 1.0]), 40) == "collision"


def test_a_cube_that_slides_off_the_mat_is_other(env: ScriptedEpisode) -> None:
    env.reset(seed=3)
    env.arm_cube.data.joint("cube").qvel[:2] = (0.0, 1.8)
    assert run(env, np.zeros(4), 40) == "other"


def test_doing_nothing_is_a_timeout() -> None:
    env = ScriptedEpisode(ArmCubeEnv(max_steps=15, perturbed_share=0.0))
    env.reset(seed=3)
    assert run(env, np.array([0, 0, 0, 1.0]), 15) == "timeout"
    env.close()
