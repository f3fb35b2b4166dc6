"""Whether a training may go on from the checkpoint that is there: what decides lies beside the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers import lease, results, storage
from workers.checkpoint import BEGIN_ANEW, LAYOUT
from workers.errors import BadConfigError, BadDataError

if TYPE_CHECKING:
    from workers.checkpoint import Restored
    from workers.config import Config

KEYS_NAMED = 8


def marks(config: Config, restored: Restored | None) -> dict[str, Any]:
    """What a checkpoint says of the spec that it is made under, and of those before it: see `require_meant`."""
    names = sorted(config.spec.get("env") or [])  # its values may be nobody's business, and a volume has many readers
    return {
        "layout": LAYOUT,
        "specHash": config.spec_hash,
        "spec": config.spec | {"env": names},
        "specHistory": [found for found in _hashes(restored) if found != config.spec_hash],
    }


def require_meant(config: Config, steps: int, restored: Restored) -> None:
    """Raises BadConfigError unless this spec may go on from a checkpoint: never with fewer steps than are done.

    A checkpoint of another spec is gone on from only where that was meant, as `config.replaces` says, or where this
    spec had its part in it already: so `helm rollback`, which brings an old config back, goes on.
    """
    restored.require("identity", "optimizer")
    if restored.step > steps:
        raise BadConfigError(
            f"the run has done {restored.step} steps already ({restored.path.name}), but settings.steps asks for "
            f"{steps}: ask for {restored.step} or more, choose another name, or {BEGIN_ANEW}"
        )
    known = _hashes(restored)
    if config.replaces or not known or config.spec_hash in known:
        return
    keys = differing_keys(marks(config, None)["spec"], restored.state.get("spec"))
    named = ", ".join(keys[:KEYS_NAMED]) + (f" and {len(keys) - KEYS_NAMED} more" if len(keys) > KEYS_NAMED else "")
    raise BadConfigError(
        f"the run's checkpoint {restored.path.name} was made under another spec: they differ in "
        f"{named or 'a value of env, or how the chart hashes them'}; submit with --replace to go on from it under this "
        f"one (plain Helm: --set planned.replace=true), choose another name, or {BEGIN_ANEW}"
    )


def require_nothing(run_dir: Path) -> None:
    """Raises BadDataError where a run without a checkpoint to go on from had one once: it begins anew only if told to.

    What lies there from before the last --fresh was put back, under numbers that no longer count.
    """
    leases = run_dir / "lease" / "0"
    first = lease.first_since_fresh(leases)
    adopted = [step for number, step in lease.adopted_limits(leases).adoptions if number >= first and step is not None]
    back = sorted(step for step, fence in storage.steps(run_dir / "checkpoints") if fence < first)
    if back:
        raise BadDataError(
            f"{run_dir / 'checkpoints'} holds step {back[-1]} from before the run was begun anew: move what was put "
            f"back into a directory of runs/ by itself, without lease/, and go on under that name, or {BEGIN_ANEW}"
        )
    ended = results.finished_training(run_dir)
    if adopted or ended:
        before = f"went on from step {max(adopted)}" if adopted else "has ended with success"
        raise BadDataError(
            f"{run_dir / 'checkpoints'} is empty, but this run {before} before: put back what was there, "
            f"or {BEGIN_ANEW}"
        )


def require_same(identity: Mapping[str, Any], restored: Restored) -> None:
    """Raises BadConfigError if the checkpoint is of another model, seed or dataset than this config asks for."""
    if differ := differing_keys(restored.state["identity"], dict(identity)):
        raise BadConfigError(
            f"the run's checkpoint {restored.path.name} was trained with another {', '.join(differ)}: restore what was "
            f"changed, choose another name, or {BEGIN_ANEW}"
        )


def require_agreement(ranks: Sequence[Mapping[str, Any]]) -> None:
    """Raises, on all ranks alike, where one would train on other data or otherwise than rank 0.

    `ranks`: of each {"settings", "identity", "samples"}. BadConfigError for settings, BadDataError for what is read.
    """
    first = ranks[0]
    for number, other in enumerate(ranks):
        if keys := differing_keys(first["settings"], other["settings"], "settings"):
            raise BadConfigError(f"rank {number} differs from rank 0 in {', '.join(keys)}: all need the same config")
        if differing_keys(first["identity"], other["identity"]) or first["samples"] != other["samples"]:
            raise BadDataError(
                f"rank {number} reads other data than rank 0: {other['samples']} samples, not {first['samples']}, or "
                "others; all need the same volume, and a dataset that nobody writes any more"
            )


def differing_keys(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys, with dots, whose values differ between two specs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [path]
    found = []
    for key in sorted(old.keys() | new.keys()):
        found += differing_keys(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return found


def _hashes(restored: Restored | None) -> list[str]:
    """Of the specs that had their part in a checkpoint, oldest first; none is known of an old one."""
    state = restored.state if restored else {}
    found = [*state.get("specHistory", []), state.get("specHash")]
    return [one for one in found if one]
