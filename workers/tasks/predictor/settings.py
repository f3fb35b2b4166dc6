"""What a spec's `settings:` may say for the predictor; the chart's schema is generated from these models.

Only pydantic may be imported here: a configuration is judged before torch is loaded.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

Weight = Annotated[float, Field(ge=0, le=100)]
Budget = Annotated[float, Field(gt=0, le=100)]
Baseline = Literal["boosted", "logistic", "time", "prevalence"]


class _Settings(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def lags(context: int, reach: int) -> tuple[int, ...]:
    """How many timesteps before the present one each of the `context` timesteps lies, 0 first, rising.

    Adjacent ones at first, then ever wider gaps up to `reach`: (reach + 1)^(i / (context - 1)) - 1, rounded. Where
    `reach` is less than context - 1, all are adjacent.
    """
    last = max(1, context - 1)
    return tuple(max(i, round((reach + 1) ** (i / last)) - 1) for i in range(context))


class TrainSettings(_Settings):
    """Settings of `kind: train`, `task: predictor`."""

    model: Literal["small", "medium", "large"] = Field(default="small", description="Size of the network.")
    steps: int = Field(default=3000, ge=1, le=100_000_000, description="Optimizer steps of the whole run.")
    batch: int = Field(default=256, ge=1, le=1_048_576, description="Samples of one optimizer step over all replicas.")
    batch_per_replica: int | None = Field(
        default=None,
        ge=1,
        le=1_048_576,
        description="Instead of batch: samples of one step on each replica; the batch becomes this times the processes "
        "and lr is multiplied by the same number.",
    )
    lr: float = Field(
        default=1e-3, gt=0, le=10, description="Highest learning rate, reached at the end of the warm-up."
    )
    weight_decay: float = Field(default=1e-4, ge=0, le=10, description="AdamW's weight decay.")
    warmup_fraction: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Share of the steps over which lr rises from 0.",
    )
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="After the rise: a cosine takes lr down to 0 at the last step, or it stays."
    )
    gradient_clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    dropout: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of hidden units dropped; null takes the model's own (large 0.3, else 0.1).",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Start of every random number: weights, order, augmentation, dropout."
    )
    context: int = Field(
        default=10, ge=1, le=200, description="Timesteps of the past, the present one included, that the network sees."
    )
    reach: int = Field(
        default=160,
        ge=0,
        le=1000,
        description="How many timesteps back the oldest of them lies: gaps widen towards the past. "
        "context - 1 or less: none, they are adjacent.",
    )
    pad_history: bool = Field(
        default=True,
        description="Judge an episode's first timesteps too, with its first one repeated as their past; "
        "false starts where a whole context has been seen.",
    )
    noise: float = Field(
        default=0.01,
        ge=0,
        le=10,
        description="Augmentation: deviation of the noise on each signal, in the signal's own deviations.",
    )
    jitter: int = Field(
        default=2, ge=0, le=20, description="Augmentation: the window is moved by up to this many timesteps."
    )
    history_cut: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Augmentation: share of windows whose past is cut at a random timestep, as an episode's start cuts "
        "it, so that a repeated timestep does not tell how long the episode runs.",
    )
    horizon_weights: tuple[Weight, ...] = Field(
        default=(1.0, 1.0, 0.8, 0.6),
        min_length=4,
        max_length=4,
        description="Weight of the loss of each horizon, the shortest first.",
    )
    consistency: float = Field(
        default=0.1,
        ge=0,
        le=100,
        description="Weight of the squared difference between predictions of adjacent timesteps.",
    )
    pos_weight: float | None = Field(
        default=3.0,
        gt=0,
        le=1000,
        description="Class weighting: how much a positive label counts; null takes each output's negatives a positive "
        "in the training split, at most 20.",
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="Labels become this share of a coin's toss.")
    validate_every_steps: int = Field(
        default=200, ge=1, description="Steps between two looks at the validation episodes."
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Early stopping: end after so many looks without a better one; null trains all steps.",
    )
    checkpoint_every_steps: int | None = Field(
        default=None, ge=1, description="Save at every multiple of this step too, beside checkpoint.everySeconds."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Arithmetic of the forward pass: auto is bf16 or fp16 where the device has it, fp32 on a CPU.",
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="CPU threads of torch; null is 1 on a CPU, where more than one is not bit-exact.",
    )

    @property
    def lags(self) -> tuple[int, ...]:
        return lags(self.context, self.reach)

    @model_validator(mode="after")
    def _one_batch(self) -> "TrainSettings":
        if self.batch_per_replica is not None and "batch" in self.model_fields_set:
            raise ValueError("batch and batchPerReplica exclude each other: keep one of them")
        return self


class EvalSettings(_Settings):
    """Settings of `kind: eval`, `task: predictor`."""

    test_data: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$",
        description="Another dataset, all of whose episodes are judged instead of the test split of data; thresholds "
        "and baselines come from data all the same. A path on the volume, such as datasets/NAME.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Start of the bootstrap's random numbers.")
    bootstrap: int = Field(
        default=1000, ge=100, le=100_000, description="How often the episodes are drawn again for the intervals."
    )
    confidence: float = Field(
        default=0.95, ge=0.5, le=0.999, description="Share of the draws that lie inside an interval."
    )
    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Probability from which an output is positive; null chooses it on validation episodes.",
    )
    beta: float = Field(
        default=1.0,
        gt=0,
        le=10,
        description="How many times recall counts as much as precision where a threshold is chosen: 1 is F1.",
    )
    false_alarms: tuple[Budget, ...] = Field(
        default=(0.1, 0.5, 1.0),
        min_length=1,
        max_length=5,
        description="False alarms an episode that are put up with: lead times are told at the threshold which keeps "
        "to them on validation episodes.",
    )
    baselines: tuple[Baseline, ...] = Field(
        default=("boosted", "logistic", "time", "prevalence"),
        max_length=4,
        description="What the predictor is compared with, each fitted on the training episodes; boosted takes longest.",
    )
    batch: int = Field(default=4096, ge=1, le=1_048_576, description="Samples of one forward pass.")
    threads: int = Field(default=1, ge=1, le=512, description="CPU threads of torch.")
