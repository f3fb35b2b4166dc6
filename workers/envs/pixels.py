"""What the cameras' pixels tell about the cube: where its red patch is, and where on a plane that points to."""

from __future__ import annotations

from dataclasses import dataclass

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


def find_cube(image: NDArray[np.uint8]) -> Patch | None:
    """The red patch of an image (H, W, 3), or None where it isn't seen."""
    red, green, blue = (
        image[..., colour].copy() for colour in range(3)
    )  # with gaps between them all takes twice as long
    half = red >> 1
    mask = (red >= MIN_BRIGHTNESS) & (half > green) & (half > blue)
    found = np.flatnonzero(mask)
    if len(found) < MIN_PIXELS:
        return None
    height, width = mask.shape
    rows, columns = np.divmod(found, width)
    return Patch(float(columns.mean() + 0.5) / width, float(rows.mean() + 0.5) / height, len(found) / mask.size)


def on_plane(patch: Patch, camera: Camera, height_m: float) -> NDArray[np.float64] | None:
    """Where the ray through the patch's centre meets the plane z = height_m: (2,) metres, None if it points away."""
    scale = 2 * np.tan(camera.fovy / 2)
    ray = camera.rotation @ np.array([(patch.x - 0.5) * scale, (0.5 - patch.y) * scale, -1.0])
    if ray[2] > -0.05:
        return None
    distance = (height_m - camera.position[2]) / ray[2]
    return (camera.position + distance * ray)[:2]
