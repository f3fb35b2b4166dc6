"""Fits the shipped ensemble: `python -m workers.envs.ensemble --fit` (about two minutes on one core)."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.envs.ensemble import FEATURES, MEMBERS, WEIGHTS, Ensemble, features

EPISODES = 60
MIN_SKILL = 0.75
HIDDEN = (32, 32)
FloatArray = NDArray[np.float64]


def blank() -> Ensemble:
    """An ensemble whose members all say nothing: drives the environment while there is none yet."""
    return Ensemble(np.zeros(FEATURES), np.ones(FEATURES), ((np.zeros((1, FEATURES, 4)), np.zeros((1, 4))),))


def demonstrate(episodes: int) -> tuple[FloatArray, FloatArray]:
    """Features (N, 16) and actions (N, 4) of undisturbed episodes of the skilled policy, seeds 0, 1, 2, …"""
    from workers.envs.arm_cube import ArmCubeEnv
    from workers.envs.scripted import ScriptedEpisode

    env = ScriptedEpisode(ArmCubeEnv(perturbed_share=0.0, ensemble=blank()), min_skill=MIN_SKILL)
    inputs, actions = [], []
    for seed in range(episodes):
        observation, _ = env.reset(seed=seed)
        ended = False
        while not ended:
            inputs.append(features(env.arm_cube.readings))
            actions.append(observation["policy_action"].astype(np.float64))
            observation, _, ended, _, _ = env.step(observation["policy_action"])
    env.close()
    return np.array(inputs), np.array(actions)


def fit(inputs: FloatArray, actions: FloatArray) -> dict[str, NDArray[np.float32]]:
    """Named tensors of MEMBERS networks, each on its own bootstrap sample with its own start."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPRegressor
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    mean, scale = inputs.mean(0), inputs.std(0) + 1e-3
    standard = (inputs - mean) / scale
    members = []
    for member in range(MEMBERS):
        sample = np.random.default_rng([member, 7]).integers(len(inputs), size=len(inputs))
        network = MLPRegressor(
            hidden_layer_sizes=HIDDEN, activation="tanh", random_state=member, max_iter=60, batch_size=128, alpha=1e-4
        )
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(standard[sample], actions[sample])
        error = np.sqrt(np.mean((network.predict(standard) - actions) ** 2))
        print(f"member {member}: root mean square error {error:.3f}", flush=True)
        members.append(network)
    tensors = {"mean": mean, "scale": scale}
    for layer in range(len(HIDDEN) + 1):
        tensors[f"weight{layer}"] = np.stack([member.coefs_[layer] for member in members])
        tensors[f"bias{layer}"] = np.stack([member.intercepts_[layer] for member in members])
    return {name: value.astype(np.float32) for name, value in tensors.items()}


def main() -> None:
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(prog="python -m workers.envs.ensemble", description=__doc__)
    parser.add_argument(
        "--fit", action="store_true", required=True, help="collect demonstrations, fit, write the weights"
    )
    parser.add_argument("--episodes", type=int, default=EPISODES)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    inputs, actions = demonstrate(options.episodes)
    print(f"{len(inputs)} timesteps of {options.episodes} episodes", file=sys.stderr)
    save_file(fit(inputs, actions), options.out)
    options.out.chmod(0o644)  # safetensors writes for the owner alone
