"""What an episode is: cameras, failure types, horizons, the twelve signals, and the arrays that hold them on disk.

One episode of T timesteps at 30 Hz is one Zarr v3 group; `ARRAYS` is the whole of its layout.
"""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "jobctl.episodes/v1"
RATE_HZ = 30
CAMERAS = ("front", "side", "wrist")
IMAGE_PIXELS = 224
IMAGE_SHAPE = (IMAGE_PIXELS, IMAGE_PIXELS, 3)
FAILURES = ("drop", "timeout", "collision", "other")
SUCCESS = "success"
OUTCOMES = (SUCCESS, *FAILURES)
HORIZONS = (6, 9, 12, 15)  # timesteps: 200, 300, 400 and 500 ms at 30 Hz
ACTION_SIZE = 4
MAX_STEPS = 20_000  # of an episode: ten times what collect records
MAX_STATE_SIZE = 1024


@dataclass(frozen=True)
class Signal:
    """One number a timestep that a real robot has: no step counter, no perturbation flag, no simulator's truth."""

    name: str
    unit: str
    sensor: str
    description: str


SIGNALS = (
    Signal("disagreement", "1", "policy ensemble", "standard deviation of the ensemble members' actions"),
    Signal("action_norm", "1", "command", "Euclidean norm of the commanded action"),
    Signal("action_change", "1", "command", "norm of the difference to the action one timestep earlier"),
    Signal("joint_speed", "rad/s", "joint encoders", "norm of the arm joints' velocities"),
    Signal("joint_effort", "N m", "motor currents", "norm of the arm joints' motor torques, less the arm's own weight"),
    Signal("tracking_error", "rad", "joint encoders", "norm of commanded less measured arm joint positions"),
    Signal("gripper_opening", "m", "finger encoders", "distance between the fingers"),
    Signal("grip_effort", "N", "finger motor current", "force of the finger motor"),
    Signal("wrist_force", "N", "wrist force sensor", "norm of the force at the wrist, tared with the empty hand"),
    Signal("tool_height", "m", "joint encoders", "height of the tool over the table, by forward kinematics"),
    Signal(
        "cube_offset",
        "1",
        "wrist camera",
        "distance of the cube's image position to the gripper's, image widths; 1 where it is not seen",
    ),
    Signal("cube_motion", "1", "front camera", "change of the cube's image position in one timestep, image widths"),
)


@dataclass(frozen=True)
class Array:
    """One array of an episode. `suffix` is the shape after T (None: any size, fixed within an episode); `chunk` is the
    chunk's shape, None where the whole array is one chunk. A chunked array is one shard: it is written once, whole."""

    name: str
    dtype: str
    suffix: tuple[int | None, ...]
    chunk: tuple[int, ...] | None = None
    zstd_level: int = 1


ARRAYS = (
    Array("actions", "float32", (ACTION_SIZE,)),
    Array("states", "float32", (None,)),
    Array("images", "uint8", (len(CAMERAS), *IMAGE_SHAPE), chunk=(8, 1, *IMAGE_SHAPE)),
    Array("signals", "float32", (len(SIGNALS),)),
    Array("horizon_labels", "uint8", (len(HORIZONS), len(FAILURES))),
)
ARRAY_NAMES = tuple(array.name for array in ARRAYS)
TIMESTEP_IMAGE_BYTES = len(CAMERAS) * IMAGE_PIXELS * IMAGE_PIXELS * 3  # before compression
