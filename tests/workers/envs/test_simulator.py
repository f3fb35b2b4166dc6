"""What a user reads where no picture can be drawn: one sentence that names the package."""

import os
import subprocess
import sys

import pytest

HIDE_LIBRARY = """
import ctypes, ctypes.util
find, load = ctypes.util.find_library, ctypes.CDLL.__init__
ctypes.util.find_library = lambda name: None if "OSMesa" in name else find(name)
def refuse(self, name, *rest, **more):
    if name and "OSMesa" in str(name):
        raise OSError("no such library")
    load(self, name, *rest, **more)
ctypes.CDLL.__init__ = refuse
"""
ASK = """
from workers.errors import BadConfigError
from workers.envs import maker
from workers.envs.settings import CollectSettings
try:
    maker(CollectSettings())()
except BadConfigError as error:
    print(error)
"""


def ask(gl: str, before: str = "") -> str:
    environment = {**os.environ, "MUJOCO_GL": gl}
    environment.pop("PYOPENGL_PLATFORM", None)
    done = subprocess.run(
        [sys.executable, "-c", before + ASK], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("gl", "before", "expected"),
    [("osmesa", HIDE_LIBRARY, "install the Debian package libosmesa6"), ("paper", "", "MUJOCO_GL=paper is none of")],
)
def test_a_renderer_that_is_missing_is_one_sentence(gl: str, before: str, expected: str) -> None:
    message = ask(gl, before)
    assert expected in message
    assert "\n" not in message


def test_importing_the_package_imports_no_simulator() -> None:
    code = "import sys, workers.envs; print([m for m in ('mujoco', 'gymnasium', 'numpy', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
