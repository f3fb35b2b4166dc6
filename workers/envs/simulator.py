"""The one door to MuJoCo: chooses how pictures are drawn before the package is imported, and says what is missing.

MuJoCo reads `MUJOCO_GL` at import, so whoever wants the simulator calls `load_mujoco()` instead of importing it.
"""

from __future__ import annotations

import ctypes
import importlib
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.errors import BadConfigError

SCENE = Path(__file__).with_name("scene.xml")
MAX_GEOMS = 1000  # of a scene, all that is drawn
HIDDEN = ("mjRND_SHADOW", "mjRND_REFLECTION", "mjRND_SKYBOX")
DRAWN_GROUP = 0  # of a model's shapes; those outside a camera's view are in group 1
MARGIN_M = 0.001  # by which a shape must be outside, so that rounding decides nothing
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


def leave_out_hidden(mujoco: Any, scene: Any) -> None:
    """Have a scene drawn without shadows, reflections and sky."""
    for flag in HIDDEN:
        scene.flags[getattr(mujoco.mjtRndFlag, flag)] = 0


class Cameras:
    """Draws what a model's cameras see of its data, without shadows, reflections and sky: mujoco.Renderer's bits.

    Shapes outside a camera's view are left out; which those are stands in the model's `geom_group`, that belongs to
    this class. No picture is copied to turn it over (OpenGL's begin below), and pixels are read as the renderer holds
    them: the scene must ask for no more than one sample a pixel.
    """

    def __init__(self, mujoco: Any, model: Any, data: Any, names: Sequence[str], pixels: int) -> None:
        """Square pictures of `pixels`. Raises BadConfigError where none can be drawn."""
        self._mujoco, self._model, self._data = mujoco, model, data
        try:
            self._gl = _Current(mujoco.GLContext(pixels, pixels))
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        except (ImportError, AttributeError, RuntimeError) as error:
            raise BadConfigError(_missing(os.environ.get("MUJOCO_GL", ""), error)) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        _depth_alone(self._context.offFBO, pixels)
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        leave_out_hidden(mujoco, self._scene)
        self._option, self._all = mujoco.MjvOption(), mujoco.mjtCatBit.mjCAT_ALL.value
        self._option.geomgroup[:] = np.arange(len(self._option.geomgroup)) == DRAWN_GROUP
        self._cameras = [_fixed_camera(mujoco, model, name) for name in names]
        self._views = _Views(model, data)
        self._groups = model.geom_group  # a view
        self._rect = mujoco.MjrRect(0, 0, pixels, pixels)
        self._pixels = _Pixels(pixels)

    def draw(self) -> NDArray[np.uint8]:
        """New pictures (cameras, pixels, pixels, 3), in the order of the names: a view whose rows run backwards."""
        mujoco, model, data = self._mujoco, self._model, self._data
        height, width, count = self._rect.height, self._rect.width, len(self._cameras)
        memory = np.empty(count * height * width * 3 + 1, np.uint8)  # one more: see _Pixels
        self._gl.ensure()
        outside = self._views.outside()
        for number, camera in enumerate(self._cameras):
            self._groups[:] = outside[camera.fixedcamid]  # False and True are the two groups' numbers
            mujoco.mjv_updateScene(model, data, self._option, None, camera, self._all, self._scene)
            mujoco.mjr_render(self._rect, self._scene, self._context)
            self._pixels.read(memory, number * height * width * 3)
        return memory[:-1].reshape(count, height, width, 3)[:, ::-1]

    def close(self) -> None:
        self._gl.ensure()
        self._context.free()
        self._gl.free()


class _Current:
    """A GL context that is made current where another one is: asking costs a tenth of making it."""

    def __init__(self, context: Any) -> None:
        from OpenGL import platform

        self._context, self._asked = context, platform.GetCurrentContext
        context.make_current()
        self._address = hash(self._asked())  # an int, or PyOpenGL's pointer, whose hash is its address

    def ensure(self) -> None:
        current = self._asked()
        if not current or hash(current) != self._address:
            self._context.make_current()

    def free(self) -> None:
        self._context.free()


class _Pixels:
    """Reads pictures as words of red, green, blue and alpha, as the software renderer holds them, and leaves the alphas
    out. OpenGL would do that pixel by pixel: together this takes half as long."""

    def __init__(self, pixels: int) -> None:
        from OpenGL import GL, platform

        self._words = np.empty(pixels * pixels, np.uint32)
        pointer = ctypes.c_void_p(self._words.ctypes.data)
        # The library's own function: PyOpenGL's around it would ask for errors, which takes as long as reading.
        rectangle, format_ = (0, 0, pixels, pixels), (int(GL.GL_RGBA), int(GL.GL_UNSIGNED_BYTE))
        self._read = partial(platform.PLATFORM.GL.glReadPixels, *rectangle, *format_, pointer)

    def read(self, memory: NDArray[np.uint8], start: int) -> None:
        """Write the picture's bytes into `memory` from `start` on, and one byte more that means nothing."""
        self._read()
        # A word each three bytes: the next pixel's red takes the place of an alpha, as numpy goes from front to back.
        np.ndarray(self._words.shape, np.uint32, memory, start, (3,))[:] = self._words


def _depth_alone(framebuffer: int, pixels: int) -> None:
    """Take the stencil from MuJoCo's framebuffer: the same depths in half the memory. Only reflections need it."""
    from OpenGL import GL

    depths = GL.glGenRenderbuffers(1)
    GL.glBindRenderbuffer(GL.GL_RENDERBUFFER, depths)
    GL.glRenderbufferStorage(GL.GL_RENDERBUFFER, GL.GL_DEPTH_COMPONENT32F, pixels, pixels)
    GL.glBindFramebuffer(GL.GL_FRAMEBUFFER, framebuffer)
    for attachment, buffer in ((GL.GL_DEPTH_STENCIL_ATTACHMENT, 0), (GL.GL_DEPTH_ATTACHMENT, depths)):
        GL.glFramebufferRenderbuffer(GL.GL_FRAMEBUFFER, attachment, GL.GL_RENDERBUFFER, buffer)


class _Views:
    """What square pictures of a model's cameras can show: all that isn't wholly beyond a side of the view's pyramid."""

    def __init__(self, model: Any, data: Any) -> None:
        half = np.radians(model.cam_fovy) / 2
        cos, sin, zero, one = np.cos(half), np.sin(half), np.zeros_like(half), np.ones_like(half)
        # Normals that point out of the view (cameras, sides, 3), in camera axes: right, up, and backward.
        sides = [(cos, zero, sin), (-cos, zero, sin), (zero, cos, sin), (zero, -cos, sin), (zero, zero, one)]
        self._sides = np.ascontiguousarray(np.array(sides).transpose(2, 0, 1))
        # These are views: they follow the simulation.
        self._axes = data.cam_xmat.reshape(-1, 3, 3).transpose(0, 2, 1)
        self._eyes, self._centres = data.cam_xpos[:, None], data.geom_xpos
        # Planes and whatever else has no end have no radius: they are never outside.
        self._reach = np.where(model.geom_rbound > 0, model.geom_rbound + MARGIN_M, np.inf)
        self._normals = np.empty_like(self._sides)
        self._from_eye = np.empty((model.ncam, model.ngeom, 3))
        self._distances = np.empty((model.ncam, len(sides), model.ngeom))

    def outside(self) -> NDArray[np.bool_]:
        """Which shapes each camera cannot see (cameras, shapes): their bounding spheres are beyond a side."""
        np.matmul(self._sides, self._axes, out=self._normals)
        np.subtract(self._centres, self._eyes, out=self._from_eye)
        np.matmul(self._normals, self._from_eye.transpose(0, 2, 1), out=self._distances)  # m
        return np.maximum.reduce(self._distances, axis=1) > self._reach


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
