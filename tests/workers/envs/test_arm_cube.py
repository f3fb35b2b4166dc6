"""The environment: Gymnasium's contract, determinism, pictures."""

import warnings

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.scripted import ScriptedEpisode
from workers.envs.simulator import leave_out_hidden, load_mujoco
from workers.episodes.schema import CAMERAS, IMAGE_PIXELS, SIGNALS


def drive(env: ScriptedEpisode, seed: int, steps: int) -> list[dict[str, np.ndarray]]:
    observation, _ = env.reset(seed=seed)
    rows = [observation]
    for _ in range(steps):
        observation, *_ = env.step(observation["policy_action"])
        rows.append(observation)
    return rows


def same_bits(a: list[dict[str, np.ndarray]], b: list[dict[str, np.ndarray]]) -> bool:
    return all(x[name].tobytes() == y[name].tobytes() for x, y in zip(a, b, strict=True) for name in x)


def test_gymnasium_accepts_the_environment() -> None:
    env = ArmCubeEnv(max_steps=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*unbounded|.*infinity|.*spec.*")
        check_env(env, skip_render_check=True)
    assert env.render().shape == (224, 3 * 224, 3)
    env.close()


def test_an_episode_is_a_function_of_its_seed_whatever_ran_before(env: ScriptedEpisode) -> None:
    fresh = ScriptedEpisode(ArmCubeEnv(perturbed_share=0.0), min_skill=0.95)
    first = drive(fresh, seed=11, steps=25)
    fresh.close()
    drive(env, seed=12, steps=30)
    again = drive(env, seed=11, steps=25)
    assert same_bits(first, again)
    assert not same_bits(again, drive(env, seed=12, steps=25))


def test_a_perturbed_episode_is_a_function_of_its_seed_too() -> None:
    env = ScriptedEpisode(ArmCubeEnv(perturbed_share=1.0))
    runs = [drive(env, seed=5, steps=40) for _ in range(2)]
    env.close()
    assert same_bits(*runs)


def test_without_a_seed_each_episode_is_another(env: ScriptedEpisode) -> None:
    env.reset(seed=1)
    seeds = {env.reset()[1]["episode_seed"] for _ in range(3)}
    assert len(seeds) == 3


def test_the_pictures_are_those_of_mujocos_own_renderer_in_any_pose(env: ScriptedEpisode) -> None:
    mujoco, arm_cube = load_mujoco(), env.arm_cube
    env.reset(seed=6)
    low, high = arm_cube.arm.limits
    shapes_left_out = set()
    with mujoco.Renderer(arm_cube.model, IMAGE_PIXELS, IMAGE_PIXELS) as renderer:
        leave_out_hidden(mujoco, renderer.scene)
        for joints in np.random.default_rng(6).uniform(low, high, (20, len(low))):
            arm_cube.data.qpos[arm_cube.arm.qpos] = joints
            mujoco.mj_forward(arm_cube.model, arm_cube.data)
            images = arm_cube.observe()["images"]  # each time another renderer was used meanwhile
            shapes_left_out.add(int(arm_cube.model.geom_group.sum()))
            for image, camera in zip(images, CAMERAS, strict=True):
                renderer.update_scene(arm_cube.data, camera)
                assert np.array_equal(image, renderer.render())
    assert len(shapes_left_out) > 1  # more or fewer, as the arm moves
    assert np.array_equal(arm_cube.observe()["images"], images)  # another renderer was used meanwhile


def test_the_three_cameras_show_different_pictures(skilled_episode: dict[str, np.ndarray]) -> None:
    images = skilled_episode["images"].astype(np.int16)
    for a in range(len(CAMERAS)):
        for b in range(a):
            assert np.abs(images[:, a] - images[:, b]).mean() > 20


def test_the_cube_is_seen_in_each_camera_and_moves_in_the_wrist_cameras_picture(
    skilled_episode: dict[str, np.ndarray],
) -> None:
    red = skilled_episode["images"].astype(np.int16)
    patches = (red[..., 0] > 2 * red[..., 1]) & (red[..., 0] > 2 * red[..., 2]) & (red[..., 0] > 50)
    areas = patches.sum((2, 3))
    assert dict(zip(CAMERAS, (areas.max(0) > 30).tolist(), strict=True)) == dict.fromkeys(CAMERAS, True)
    wrist = areas[:, CAMERAS.index("wrist")]
    assert wrist[-1] > 10 * max(wrist[0], 1)  # far away at first, between the fingers at the end


def test_each_signal_is_finite_and_varies_within_an_episode(skilled_episode: dict[str, np.ndarray]) -> None:
    signals = skilled_episode["signals"]
    assert np.isfinite(signals).all()
    assert {s.name: bool(v > 0) for s, v in zip(SIGNALS, signals.std(0), strict=True)} == {
        s.name: True for s in SIGNALS
    }


def test_a_skilled_undisturbed_policy_lifts_the_cube(skilled_episode: dict[str, np.ndarray]) -> None:
    assert skilled_episode["outcome"] == "success"


def test_after_the_end_the_world_stands_still() -> None:
    env = ScriptedEpisode(ArmCubeEnv(max_steps=3))
    rows = drive(env, seed=2, steps=3)
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    env.close()
    assert (reward, terminated, truncated, info) == (0.0, True, False, {})
    assert observation["images"].tobytes() == rows[-1]["images"].tobytes()
    assert observation["signals"].tobytes() == rows[-1]["signals"].tobytes()


@pytest.mark.parametrize("action", [np.full(4, 1e6), np.array([0.0, 0.0, 0.0, -50.0])])
def test_an_action_out_of_bounds_counts_as_the_bound(env: ScriptedEpisode, action: np.ndarray) -> None:
    results = []
    for each in (action, np.clip(action, -1, 1)):
        env.reset(seed=4)
        results.append(env.step(each.astype(np.float32))[0]["state"].tobytes())
    assert results[0] == results[1]


def test_an_action_that_is_no_number_is_refused(env: ScriptedEpisode) -> None:
    env.reset(seed=4)
    with pytest.raises(ValueError, match="not finite"):
        env.step(np.array([0.0, np.nan, 0.0, 0.0], np.float32))
