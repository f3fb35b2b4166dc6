"""The one door to MuJoCo: chooses how pictures are drawn before the package is imported, and says what is missing.

MuJoCo reads `MUJOCO_GL` at import, so whoever wants the simulator calls `load_mujoco()` instead of importing it.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from workers.errors import BadConfigError

SCENE = Path(__file__).with_name("scene.xml")
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


def make_renderer(mujoco: Any, model: Any, height: int, width: int) -> Any:
    """A mujoco.Renderer without shadows, reflections and sky. Raises BadConfigError where no picture can be drawn."""
    backend = os.environ.get("MUJOCO_GL", "")
    try:
        renderer = mujoco.Renderer(model, height, width)
    except (ImportError, AttributeError, RuntimeError) as error:
        raise BadConfigError(_missing(backend, error)) from error
    for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION, mujoco.mjtRndFlag.mjRND_SKYBOX):
        renderer.scene.flags[flag] = 0
    return renderer


def _missing(backend: str, error: BaseException) -> str:
    package = APT_PACKAGES.get(backend)
    hint = (
        f"install the Debian package {package}"
        if package
        else f"MUJOCO_GL={backend} is none of {', '.join(APT_PACKAGES)}"
    )
    return f"The simulator cannot draw pictures with MUJOCO_GL={backend} ({type(error).__name__}: {error}): {hint}."
