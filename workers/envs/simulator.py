"""The one door to MuJoCo: chooses how pictures are drawn before the package is imported, and says what is missing.

MuJoCo reads `MUJOCO_GL` at import, so whoever wants the simulator calls `load_mujoco()` instead of importing it.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import BadConfigError

SCENE = Path(__file__).with_name("scene.xml")
MAX_GEOMS = 1000  # of a scene, all that is drawn
HIDDEN = ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_SKYBOX")
APT_PACKAGES = {"osmesa": "libosmesa6", "egl": "libegl1 and libgl1-mesa-dri", "glfw": "libglfw3"}


def choose_renderer() -> str:
    """Set `MUJOCO_GL` where it is unset (osmesa without a display, else MuJoCo's own choice glfw); return it."""
    if not os.environ.get("MUJOCO_GL"):
        os.environ["MUJOCO_GL"] = "glfw" if os.environ.get("DISPLAY") else "osmesa"
    # Pictures of 224 × 224 are too small to share among threads: the software renderer's own threads only cost time,
    # and take cores from the simulators beside this one.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    return os.environ["MUJOCO_GL"]


def load_mujoco() -> Any:
    """Import mujoco with a renderer.

    Raises BadConfigError, naming the apt package, where the library that draws pictures is missing.
    """
    backend = choose_renderer()
    try:
        mujoco = importlib.import_module("mujoco")
        # AttributeError: PyOpenGL finds no library and looks a function up on None.
        importlib.import_module(f"mujoco.{backend}" if backend in ("osmesa", "egl") else "mujoco")
    except (ImportError, AttributeError, RuntimeError) as error:
        raise BadConfigError(_missing(backend, error)) from error
    return mujoco


class Cameras:
    """Draws what a model's cameras see, without shadows, reflections and sky: the bits that mujoco.Renderer draws.

    The scene is gathered once for all cameras, and no picture is copied to turn it over (OpenGL's begin below).
    """

    def __init__(self, mujoco: Any, model: Any, names: Sequence[str], pixels: int) -> None:
        """Square pictures of `pixels`. Raises BadConfigError where none can be drawn."""
        self._mujoco, self._model = mujoco, model
        try:
            self._gl = mujoco.GLContext(pixels, pixels)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        except (ImportError, AttributeError, RuntimeError) as error:
            raise BadConfigError(_missing(os.environ.get("MUJOCO_GL", ""), error)) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        for flag in HIDDEN:
            self._scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0
        self._option, self._all = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL.value
        self._cameras = [_fixed_camera(mujoco, model, name) for name in names]
        self._rect = mujoco.MjrRect(0, 0, pixels, pixels)

    def draw(self, data: Any) -> NDArray[np.uint8]:
        """New pictures (cameras, pixels, pixels, 3), in the order of the names: a view whose rows run backwards."""
        mujoco, images = self._mujoco, np.empty((len(self._cameras), self._rect.height, self._rect.width, 3), np.uint8)
        self._gl.make_current()
        mujoco.mjv_updateScene(self._model, data, self._option, None, self._cameras[0], self._all, self._scene)
        for image, camera in zip(images, self._cameras, strict=True):
            mujoco.mjv_updateCamera(self._model, data, camera, self._scene)
            mujoco.mjv_makeLights(self._model, data, self._scene)  # the headlight is where the camera is
            mujoco.mjr_render(self._rect, self._scene, self._context)
            mujoco.mjr_readPixels(image, None, self._rect, self._context)
        return images[:, ::-1]

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def _fixed_camera(mujoco: Any, model: Any, name: str) -> Any:
    camera = mujoco.MjvCamera()
    camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(name).id
    return camera


def _missing(backend: str, error: BaseException) -> str:
    package = APT_PACKAGES.get(backend)
    hint = (
        f"install the Debian package {package}"
        if package
        else f"MUJOCO_GL={backend} is none of {', '.join(APT_PACKAGES)}"
    )
    return f"The simulator cannot draw pictures with MUJOCO_GL={backend} ({type(error).__name__}: {error}): {hint}."
