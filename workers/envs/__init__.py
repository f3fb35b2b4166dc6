"""Simulators behind Gymnasium's API. `maker` is the door; nothing heavy is imported before what it gives is called."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from workers.envs.settings import CollectSettings

if TYPE_CHECKING:
    from workers.envs.scripted import ScriptedEpisode

__all__ = ["maker"]


def maker(settings: CollectSettings) -> Callable[[], ScriptedEpisode]:
    """What makes the environment of these settings, here or in another process.

    Calling it raises BadConfigError where the simulator cannot draw pictures.
    """
    return partial(_make, settings.max_steps, settings.perturbed_share)


def _make(max_steps: int, perturbed_share: float) -> ScriptedEpisode:
    from workers.envs.arm_cube import ArmCubeEnv
    from workers.envs.scripted import ScriptedEpisode

    return ScriptedEpisode(ArmCubeEnv(max_steps=max_steps, perturbed_share=perturbed_share))
