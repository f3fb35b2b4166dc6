"""What the cameras' pixels tell about the cube: where its red patch is, and where on a plane that points to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

MIN_BRIGHTNESS = 50  # of 255: darker red can't be told from the gripper's black
MIN_PIXELS = 6


@dataclass(frozen=True)
class Patch:
    """The cube in a picture: centre in image widths from the top left corner, area as a share of the picture."""

    x: float
    y: float
    area: float


@dataclass(frozen=True)
class Camera:
    """A calibrated pinhole camera: position (3,) in metres, rotation (3, 3) with columns right, up, backward, and
    the vertical field of view in radians."""

    position: NDArray[np.float64]
    rotation: NDArray[np.float64]
    fovy: float


class CubeFinder:
    """Finds the cube in pictures of one size. Keeps memory for its intermediate results: new pages cost more than they.

    Each byte is compared with the two behind it, which for a red one are its pixel's green and blue; the other two
    thirds of the comparisons are for nothing, but neighbours are compared many at once, bytes with gaps are not.
    """

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width = height, width
        size = height * width * 3
        self._half, self._behind, self._mask = (np.empty(size, dtype) for dtype in (np.uint8, np.uint8, np.bool_))
        self._behind[-2:] = 255  # the last two bytes are no red ones

    def find(self, image: NDArray[np.uint8]) -> Patch | None:
        """The red patch of an image (H, W, 3), or None where it isn't seen. Its rows may run backwards in memory."""
        backwards = image.strides[0] < 0
        flat = (image[::-1] if backwards else image).reshape(-1)
        np.right_shift(flat, 1, out=self._half)
        np.maximum(flat[1:-1], flat[2:], out=self._behind[:-2])
        np.greater(self._half, self._behind, out=self._mask)
        found = self._mask[::3].copy().nonzero()[0]
        found = found[flat[::3][found] >= MIN_BRIGHTNESS]
        count = len(found)
        if count < MIN_PIXELS:
            return None
        rows = int((found // self._width).sum())
        columns = int(found.sum()) - self._width * rows
        if backwards:
            rows = count * (self._height - 1) - rows
        height, width = self._height, self._width
        return Patch((columns / count + 0.5) / width, (rows / count + 0.5) / height, count / (height * width))


def on_plane(patch: Patch, camera: Camera, height_m: float) -> NDArray[np.float64] | None:
    """Where the ray through the patch's centre meets the plane z = height_m: (2,) metres, None if it points away."""
    scale = _width_at_1_m(camera.fovy)
    ray = camera.rotation @ np.array([(patch.x - 0.5) * scale, (0.5 - patch.y) * scale, -1.0])
    if ray[2] > -0.05:
        return None
    distance = (height_m - camera.position[2]) / ray[2]
    return (camera.position + distance * ray)[:2]


@cache
def _width_at_1_m(fovy: float) -> float:
    return float(2 * np.tan(fovy / 2))
