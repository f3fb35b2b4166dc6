"""Simulators behind Gymnasium's API. `make_vector` is the door; nothing heavy is imported before it is called."""

from workers.envs.vector import make_vector

__all__ = ["make_vector"]
