"""From flags and files to releases, and what a submission means for a job that is there already."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from jobctl import helm
from jobctl.backend import Record, Release, home_directory
from jobctl.errors import NotFoundError, UnreachableError, UsageError
from jobctl.spec import Asked, JobSpec, validate
from jobctl.values import as_text, spec_hash, spec_of, values_of

if TYPE_CHECKING:
    from jobctl.cli.session import Session

Decision = Literal["start", "running", "done"]


@dataclass(frozen=True)
class Prepared:
    """One document, checked and rendered: what submit would send, and what is there under its name."""

    spec: JobSpec
    release: Release
    record: Record | None


def prepare(session: Session, jobs: Sequence[Asked], *, fresh: bool, ask: bool = True) -> list[Prepared]:
    """Check and render every document before the first is started. Raises UsageError, RefusedError; starts nothing.

    `ask` says whether to ask the backend for what is there already under each name.
    """
    token = os.urandom(8).hex() if fresh else None
    return [_prepared(session, job, token, ask) for job in jobs]


def _prepared(session: Session, job: Asked, token: str | None, ask: bool) -> Prepared:
    with _rendering(session, str(job.name)) as rendering:

        def check() -> JobSpec:
            return validate(job.keys, job.source)

        # Our schema check takes half as long to load as Helm to come up. Helm holds values against the same schema: so
        # where nothing else asks a cluster before, ours waits until Helm refuses them, or has started and connects.
        by_helm = job.has_name and (session.is_local or not ask)
        if by_helm and (session.is_local or session.place is None):
            rendering.start()  # what follows happens while Helm comes up
        spec = validate(job.keys, job.source, by_schema=not by_helm)
        record = _existing(session, spec.name) if ask else None
        # A cluster's revision is Helm's own; `helm template`, which the local backend runs, would always say 1.
        revision = 1 if record is None else record.revision + 1
        values = values_of(spec, revision=revision if session.is_local else None, fresh_token=token)
        try:
            release = _rendered(session, rendering, spec.name, revision, values, check, is_new=ask and record is None)
        except UsageError:
            check()  # says in better words what Helm found
            raise
        return Prepared(spec, release, record)


def _rendering(session: Session, name: str) -> helm.Rendering:
    return helm.Rendering(name, namespace=session.place.namespace if not session.is_local and session.place else None)


def _rendered(
    session: Session,
    rendering: helm.Rendering,
    name: str,
    revision: int,
    values: dict[str, Any],
    check: Callable[[], object] = lambda: None,
    *,
    is_new: bool,
) -> Release:
    """What would be sent. On a cluster Helm knows the revision, where the release may be there already.

    `check` is called while Helm connects to a cluster.
    """
    if session.is_local:
        from jobctl.local.admission import admit

        release = Release(name, revision, values, rendering.of(values))
        admit(release, home_directory(os.environ), os.environ, session.allowed_env)
        return release
    if is_new or session.place is None:
        return Release(name, 1, values, rendering.of(values))
    from jobctl.cluster.release import Helm

    try:
        number, manifest = Helm(session.place).render(name, values, check)
    except UnreachableError as error:
        session.note(f"rendered as a first revision: {error}")
        return Release(name, 1, values, rendering.of(values))
    return Release(name, number, values, manifest)


def decide(prepared: Prepared, *, replace: bool, fresh: bool) -> Decision:
    """What this submission means: the same spec again is no new job. Raises UsageError where the name is taken."""
    record = prepared.record
    if record is None:
        return "start"
    if _hash_of(record) != spec_hash(prepared.release.manifest):
        if not replace:
            raise UsageError(_taken(prepared, record))
        return "start"
    if fresh:
        return "start"
    from datetime import UTC, datetime

    from jobctl.status import ACTIVE, view

    state = view(record, datetime.now(UTC)).state
    return "running" if state in ACTIVE else "done" if state == "succeeded" else "start"


def start_again(session: Session, record: Record) -> Release:
    """Submit the same values as the next revision. Returns what was sent."""
    values = as_text(session.backend.values(record.name))
    if session.is_local:
        planned = {**(values.get("planned") or {}), "revision": record.revision + 1}
        values = {**values, "planned": planned}
    with _rendering(session, record.name) as rendering:
        release = _rendered(session, rendering, record.name, record.revision + 1, values, is_new=False)
    return replace(release, revision=session.backend.submit(release))


def config_of(manifest: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The worker's config in a rendered release: its `spec` is what the hash is taken of."""
    import json

    config = next(document for document in manifest if document["kind"] == "ConfigMap")
    return json.loads(config["data"]["config.json"])


def differing_keys(old: Any, new: Any, path: str = "") -> list[str]:
    """The keys, with dots, whose values differ between two specs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [path]
    found = []
    for key in sorted(old.keys() | new.keys()):
        found += differing_keys(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return found


def _existing(session: Session, name: str) -> Record | None:
    if session.is_local:
        from jobctl.local.layout import may_be_known

        if not may_be_known(home_directory(os.environ), name):
            return None
    try:
        return session.backend.record(name)
    except NotFoundError:
        return None


def _hash_of(record: Record) -> str | None:
    return (record.job.get("metadata", {}).get("labels") or {}).get("jobctl.dev/spec-hash")


def _taken(prepared: Prepared, record: Record) -> str:
    old = spec_of(helm.template(record.name, as_text(record.values)))
    keys = differing_keys(old, spec_of(prepared.release.manifest))
    differs = f"they differ in {', '.join(keys)}" if keys else "this chart gives it another hash"
    return (
        f"The name {record.name} is taken by another spec ({differs}): choose another --name, "
        "or say --replace to go on under this name with the new spec."
    )
