"""The cube in the pictures: found by colour, put back on the table by the cameras' calibration."""

import numpy as np
import pytest
from numpy.typing import NDArray

from workers.envs.pixels import Camera, CubeFinder, Patch, on_plane
from workers.envs.scripted import ScriptedEpisode

FINDER = CubeFinder(224, 224)


def slowly_found(image: NDArray[np.uint8]) -> Patch | None:
    """What the finder does, pixel by pixel as one would say it."""
    red, green, blue = (image[..., colour].astype(int) for colour in range(3))
    rows, columns = np.nonzero((red >= 50) & (red // 2 > green) & (red // 2 > blue))
    if len(rows) < 6:
        return None
    return Patch(float(columns.mean() + 0.5) / 224, float(rows.mean() + 0.5) / 224, len(rows) / 224**2)


@pytest.mark.parametrize("darkness", [1, 3, 6])
def test_the_finder_compares_each_red_with_its_own_pixels_green_and_blue(darkness: int) -> None:
    rng = np.random.default_rng(darkness)
    for _ in range(20):
        image = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        image[..., 1:] //= darkness
        assert FINDER.find(image) == slowly_found(image)
        some_red = np.where(rng.random((224, 224, 1)) < 0.001, np.uint8([90, 10, 20]), np.uint8(100))
        assert FINDER.find(some_red) == slowly_found(some_red)


def test_what_was_found_before_is_forgotten() -> None:
    assert FINDER.find(np.full((224, 224, 3), (200, 20, 20), np.uint8)) == Patch(0.5, 0.5, 1.0)
    assert FINDER.find(np.full((224, 224, 3), 200, np.uint8)) is None


def test_a_red_patch_is_found_where_it_is() -> None:
    image = np.full((224, 224, 3), 120, np.uint8)
    image[40:60, 100:120] = (200, 20, 20)
    assert FINDER.find(image) == Patch(x=110 / 224, y=50 / 224, area=400 / 224**2)


@pytest.mark.parametrize("colour", [(120, 120, 120), (20, 0, 0), (200, 150, 110), (0, 0, 200)])
def test_other_colours_are_no_cube(colour: tuple[int, int, int]) -> None:
    assert FINDER.find(np.full((224, 224, 3), colour, np.uint8)) is None


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
