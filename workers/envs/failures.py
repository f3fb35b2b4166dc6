"""How an episode ends, decided from the simulator's truth (labels may use it, signals may not).

| outcome | physical definition |
|---|---|
| collision | a contact between the arm (links, hand, fingers) and the wall or the table exceeds 80 N |
| drop | after it was held 2 cm or more over the table, no finger touches the cube for 2 timesteps or it is below 1 cm |
| other | the cube left the reachable workspace (the painted mat and 1 cm around it) or fell off the table |
| success | the cube is held 12 cm or more over the table for 10 timesteps in a row |
| timeout | none of these within the episode's timesteps (200) |

Heights are those of the cube's lower face. Where two happen in the same timestep the upper one counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.episodes.schema import SUCCESS

COLLISION_NEWTONS = 80.0
CUBE_HALF_M = 0.02
LIFTED_M = 0.02
DROPPED_M = 0.01
GOAL_M = 0.12
HOLD_STEPS = 10
LOST_STEPS = 2
WORKSPACE_X_M = (0.33, 0.67)
WORKSPACE_Y_M = (-0.05, 0.33)
OFF_TABLE_M = -0.05


@dataclass(frozen=True)
class Truth:
    """What the simulator knows after a timestep: the cube's centre in metres, contacts, the peak force on the arm."""

    cube: tuple[float, float, float]
    finger_contacts: int  # fingers that touch the cube, 0 to 2
    peak_force: float  # N, between the arm and wall or table, the largest of all physics steps of the timestep


class Judge:
    """Watches one episode and says after each timestep how it ended, or None while it goes on."""

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps
        self.steps = 0
        self._lifted = False
        self._held_steps = 0
        self._lost_steps = 0

    def judge(self, truth: Truth) -> str | None:
        self.steps += 1
        gap = truth.cube[2] - CUBE_HALF_M
        touched = truth.finger_contacts > 0
        self._lifted |= truth.finger_contacts == 2 and gap >= LIFTED_M
        self._held_steps = self._held_steps + 1 if touched and gap >= GOAL_M else 0
        self._lost_steps = 0 if touched else self._lost_steps + 1
        endings = {
            "collision": truth.peak_force > COLLISION_NEWTONS,
            "drop": self._lifted and (self._lost_steps >= LOST_STEPS or gap < DROPPED_M),
            "other": _outside(truth.cube),
            SUCCESS: self._held_steps >= HOLD_STEPS,
            "timeout": self.steps >= self.max_steps,
        }
        return next((outcome for outcome, happened in endings.items() if happened), None)


def _outside(cube: tuple[float, float, float]) -> bool:
    x, y, z = cube
    inside = WORKSPACE_X_M[0] <= x <= WORKSPACE_X_M[1] and WORKSPACE_Y_M[0] <= y <= WORKSPACE_Y_M[1]
    return z < OFF_TABLE_M or not inside
