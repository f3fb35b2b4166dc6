"""The cube in the pictures: found by colour, put back on the table by the cameras' calibration."""

import numpy as np
import pytest

from workers.envs.pixels import Camera, Patch, find_cube, on_plane
from workers.envs.scripted import ScriptedEpisode


def test_a_red_patch_is_found_where_it_is() -> None:
    image = np.full((224, 224, 3), 120, np.uint8)
    image[40:60, 100:120] = (200, 20, 20)
    assert find_cube(image) == Patch(x=110 / 224, y=50 / 224, area=400 / 224**2)


@pytest.mark.parametrize("colour", [(120, 120, 120), (20, 0, 0), (200, 150, 110), (0, 0, 200)])
def test_other_colours_are_no_cube(colour: tuple[int, int, int]) -> None:
    assert find_cube(np.full((224, 224, 3), colour, np.uint8)) is None


def test_a_ray_away_from_the_table_meets_nothing() -> None:
    level = Camera(np.array([0.0, 0.0, 0.5]), np.array([[0, 0, -1.0], [-1, 0, 0], [0, 1, 0]]), 0.8)
    assert on_plane(Patch(0.5, 0.5, 0.01), level, 0.02) is None


@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5])
def test_the_front_camera_tells_where_the_cube_lies(env: ScriptedEpisode, seed: int) -> None:
    env.reset(seed=seed)
    patch = env.arm_cube.readings.front_patch
    assert patch is not None
    seen = on_plane(patch, env.arm_cube.front_camera, 0.02)
    assert seen is not None
    assert np.linalg.norm(seen - env.arm_cube.data.body("cube").xpos[:2]) < 0.015
