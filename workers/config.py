"""The one config file that the chart mounts: validated once, every mistake told in one sentence."""

import difflib
import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from workers import __version__
from workers.errors import BadConfigError

SettingsModel = TypeVar("SettingsModel", bound=BaseModel)
MISTAKES_TOLD = 3


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class CheckpointPolicy(_Model):
    every_seconds: float = Field(default=60, gt=0, description="Seconds between two checkpoints.")
    keep: int = Field(default=3, ge=1, description="Checkpoints that stay; the best one is kept besides.")


class Config(_Model):
    """One worker's configuration. `settings` belong to the task: see `settings_as`."""

    version: str
    run: str
    kind: Literal["collect", "train", "eval"]
    task: str
    gpu: str = "cpu"
    device: Literal["cpu", "cuda"] = "cpu"
    allow_cpu: bool = False
    replicas: int = Field(default=1, ge=1)
    gpus_per_replica: int = Field(default=1, ge=1)
    preset: str = "balanced"
    data: str | None = None
    from_: str | None = Field(default=None, alias="from")
    settings: dict[str, Any] = Field(default_factory=dict)
    checkpoint: CheckpointPolicy = CheckpointPolicy()
    gates: dict[str, float] = Field(default_factory=dict)
    enforce_gates: bool = True  # from gates.enforce: false has missed gates reported without failing the job
    spec_hash: str
    grace_seconds: float = 60
    fresh_token: str | None = None
    replaces: bool = False  # another spec is meant to go on from what this run's spec of before left
    spec: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Config":
        """Raises BadConfigError: unreadable, not JSON, a wrong or unknown key, or made by another version of jobctl."""
        try:
            values = json.loads(path.read_bytes())
        except OSError as error:
            raise BadConfigError(f"the config file {path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise BadConfigError(f"the config file {path} is not JSON: {error}") from error
        config = _validated(cls, values, where="config", noun="key")
        if _release(config.version) != _release(__version__):
            raise BadConfigError(
                f"the chart is version {config.version} but this worker is {__version__}: "
                f"use the image of {config.version} or the chart of {__version__}"
            )
        return config

    @model_validator(mode="before")
    @classmethod
    def _part_gates(cls, values: Any) -> Any:
        """`gates` holds bounds by figure's name, and among them the switch `enforce`."""
        gates = values.get("gates") if isinstance(values, dict) else None
        if not isinstance(gates, dict) or "enforce" not in gates:
            return values
        bounds = {name: bound for name, bound in gates.items() if name != "enforce"}
        return {**values, "gates": bounds, "enforceGates": gates["enforce"]}

    def settings_as(self, model: type[SettingsModel]) -> SettingsModel:
        """`settings` as the task's own model; raises BadConfigError naming each wrong setting and the nearest names."""
        return _validated(model, self.settings, where="settings", noun="setting")


def load(path: Path) -> Config:
    return Config.load(path)


def _release(version: str) -> list[str]:
    return version.split(".")[:2]


def _validated(model: type[SettingsModel], values: Any, *, where: str, noun: str) -> SettingsModel:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        mistakes = [_mistake(model, detail, where, noun) for detail in error.errors()]
        more = len(mistakes) - MISTAKES_TOLD
        told = "; ".join(mistakes[:MISTAKES_TOLD]) + (f"; and {more} more" if more > 0 else "")
        raise BadConfigError(told) from error


def _mistake(model: type[BaseModel], detail: Any, where: str, noun: str) -> str:
    path = ".".join([where, *map(str, detail["loc"])])
    if detail["type"] == "extra_forbidden":
        return f"{path} is an unknown {noun}{_nearest(str(detail['loc'][-1]), _names(model, detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{path} is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{path} {message} (it is {_shown(detail['input'])})"


def _names(model: type[BaseModel], parents: tuple[Any, ...]) -> list[str]:
    """Names of the keys at the place where an unknown one was found."""
    current: Any = model
    for parent in parents:
        fields = getattr(current, "model_fields", {})
        current = next((f.annotation for name, f in fields.items() if parent in (name, f.alias)), None)
    return [field.alias or name for name, field in getattr(current, "model_fields", {}).items()]


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"; nearest: {', '.join(near)}"
    return f"; there are: {', '.join(sorted(names))}" if names else ""


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
