"""What a training that nobody runs would find on its volume: said, or refused, before it is submitted.

The worker holds to the same rule, which is what counts; here a person hears of it before a pod is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jobctl.errors import JobctlError, UsageError
from jobctl.schema import setting_default
from jobctl.values import config_of, differing_keys, image_of

if TYPE_CHECKING:
    from jobctl.backend import Release
    from jobctl.cli.session import Session
    from jobctl.spec import JobSpec
    from jobctl.volume import Checkpoint

LOOK_SECONDS = 10.0  # for a pod to start that reads a cluster's volume: the worker looks as well


def resumed_from(session: Session, spec: JobSpec, release: Release, *, replace: bool) -> str | None:
    """`resumes from step 3819 of 4000`; None where nothing of this name was trained on the volume.

    Raises UsageError where the checkpoint on the volume is of another spec and nobody said --replace, or further than
    the steps that are asked for. Where the volume can't be read, it says so and returns None.
    """
    from jobctl.volume import Run

    name, config, image = spec.name, config_of(release.manifest), image_of(release.manifest)
    try:
        found = Run(session.backend.reader(spec.claim, None, image, LOOK_SECONDS), name).checkpoint()
    except JobctlError as error:
        session.note(f"What {name} left on the volume could not be read ({error}): its worker looks before it starts.")
        return None
    if found is None:
        return None
    _require_same(name, found, config, replace=replace)
    steps = _steps_of(config)
    if found.step > steps:
        raise UsageError(
            f"{name} has done {found.step} steps already (runs/{name} on the volume), and settings.steps asks for "
            f"{steps}: ask for more, choose another --name, or say --fresh to begin anew (what is there is kept aside)."
        )
    return f"resumes from step {found.step} of {steps}"


def _require_same(name: str, found: Checkpoint, config: dict[str, Any], *, replace: bool) -> None:
    if replace or found.spec_hash in (None, config["specHash"]):
        return
    # of env the config holds names alone
    keys = differing_keys(found.spec, config["spec"]) or ["a value of env"] if found.spec else []
    differs = f" (they differ in {', '.join(keys)})" if keys else ""
    raise UsageError(
        f"The volume holds step {found.step} of {name}, trained by another spec{differs}: choose another --name, say "
        "--replace to train on from there with this spec, or --fresh to begin anew (what is there is kept aside)."
    )


def _steps_of(config: dict[str, Any]) -> int:
    asked = config["settings"].get("steps")
    return int(setting_default(config["task"], config["kind"], "steps") if asked is None else asked)
