"""Settings of `kind: collect`: what a spec's `settings:` may hold. The chart's schema is generated from this model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from workers.runtime import DEFAULT_EPISODES

MAX_EPISODES = 1_000_000  # so that the seeds of two datasets never meet: see seed_of


class CollectSettings(BaseModel):
    """Settings of `collect` for the arm-and-cube environment (three cameras of 224 × 224 pixels, 30 Hz)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)

    episodes: int = Field(
        DEFAULT_EPISODES, ge=1, le=MAX_EPISODES, description="Episodes in the whole dataset, over all replicas."
    )
    envs: int | None = Field(
        None, ge=1, le=256, description="Simulators side by side in one replica; null: 8, on cpu one a core, at most 8."
    )
    max_steps: int = Field(200, ge=20, le=2000, description="Timesteps after which an episode ends as a timeout.")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="The dataset's seed; each episode's own follows from it.")
    perturbed_share: float = Field(
        0.2, ge=0.0, le=1.0, description="Share of the episodes in which the world is disturbed."
    )

    def seed_of(self, episode: int) -> int:
        """The seed of one episode: a pure function of the dataset's seed and the episode's number; no two are equal."""
        return (self.seed + 1) * MAX_EPISODES + episode

    def envs_on(self, device: str, cores: int) -> int:
        """Simulators of one replica on this device: as asked, else 8 beside a GPU and one a core (at most 8) on cpu."""
        return self.envs or (min(cores, 8) if device == "cpu" else 8)
