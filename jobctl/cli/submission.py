"""From flags and files to releases, and what a submission means for a job that is there already."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from jobctl import helm
from jobctl.backend import Record, Release, home_directory
from jobctl.cli.resuming import resumed_from
from jobctl.errors import NotFoundError, OvertakenError, UnreachableError, UsageError
from jobctl.spec import Asked, JobSpec, validate
from jobctl.values import as_text, by_jobctl, differing_keys, spec_hash, spec_of, values_of

if TYPE_CHECKING:
    from jobctl.cli.session import Session

Decision = Literal["start", "running", "done"]
T = TypeVar("T")
OTHERS_SECONDS = 40.0  # how long another call may be at work on the same job: longer than Helm may take
SILENT_SECONDS = 5.0
AGAIN_SECONDS = 0.3


@dataclass(frozen=True)
class Prepared:
    """One document, checked and rendered: what submit would send, and what is there under its name."""

    spec: JobSpec
    release: Release
    record: Record | None
    continues: str | None = None  # of a training that only the volume knows: where it goes on, in words


def prepare(
    session: Session, jobs: Sequence[Asked], *, fresh: bool, replace: bool = False, ask: bool = True
) -> list[Prepared]:
    """Check and render every document before the first is started. Raises UsageError, RefusedError; starts nothing.

    `ask` says whether to ask the backend for what is there already under each name.
    """
    token = os.urandom(8).hex() if fresh else None
    if not ask:
        return [_prepared(session, job, token, replace, ask=False) for job in jobs]

    def attempt(job: Asked, tries: int) -> Prepared:
        if tries:
            _settle(session, str(job.name))
        return _prepared(session, job, token, replace, ask=True)

    return [until_settled(session, partial(attempt, job)) for job in jobs]


def until_settled(session: Session, attempt: Callable[[int], T]) -> T:
    """What `attempt` returns, which is given the number of tries before this one.

    It is tried again while another call is at work on the same job. Raises OvertakenError where that takes too long.
    """
    start, noted = time.monotonic(), False
    for tries in itertools.count():
        try:
            return attempt(tries)
        except OvertakenError:
            seconds = time.monotonic() - start
            if seconds > OTHERS_SECONDS:
                raise
            if seconds > SILENT_SECONDS and not noted:
                session.note("Another command is at work on this job: waiting for it to end.")
                noted = True
            time.sleep(AGAIN_SECONDS)
    raise AssertionError("count has no end")


def _prepared(session: Session, job: Asked, token: str | None, replace: bool, *, ask: bool) -> Prepared:
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
        values = values_of(spec, revision=revision if session.is_local else None, fresh_token=token, replace=replace)
        try:
            release = _rendered(session, rendering, spec.name, revision, values, check, is_new=ask and record is None)
        except UsageError:
            check()  # says in better words what Helm found
            raise
        only_on_volume = ask and record is None and token is None and spec.kind == "train"
        continues = resumed_from(session, spec, release, replace=replace) if only_on_volume else None
        return Prepared(spec, release, record, continues)


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


def start(session: Session, job: Prepared, *, replace: bool, fresh: bool) -> tuple[Prepared, Decision]:
    """Submit it; where another call has been faster, look again and decide anew. Returns what was sent or found.

    `replace` and `fresh` were said of the job that was seen: of another one they don't hold. Raises what decide raises.
    """

    def attempt(tries: int) -> tuple[Prepared, Decision]:
        if tries == 0:
            session.backend.submit(job.release)
            return job, "start"
        now, is_same = _prepared_again(session, job)
        decision = decide(now, replace=replace and is_same, fresh=fresh and is_same)
        if decision == "start":
            session.backend.submit(now.release)
        return now, decision

    return until_settled(session, attempt)


def start_again(session: Session, record: Record, tries: int = 0) -> Release:
    """Submit the same values as the next revision. Returns what was sent.

    Raises OvertakenError where another call has been faster; `tries` says how often that has happened.
    """
    if tries:
        _settle(session, record.name)
    values = by_jobctl(as_text(session.backend.values(record.name)))
    release = _next_release(session, record.name, record.revision + 1, values)
    session.backend.submit(release)
    return release


def _prepared_again(session: Session, job: Prepared) -> tuple[Prepared, bool]:
    """The job with what is there under its name by now; whether that is what was there before."""
    name = job.spec.name
    _settle(session, name)
    record = _existing(session, name)
    is_same = _uid_of(record) == _uid_of(job.record)
    values = job.release.values if is_same else values_of(job.spec)  # without what --fresh and --replace put there
    release = _next_release(session, name, 1 if record is None else record.revision + 1, values)
    return Prepared(job.spec, release, record, job.continues if is_same else None), is_same


def _next_release(session: Session, name: str, revision: int, values: dict[str, Any]) -> Release:
    """The same values as the next revision: as this one on the local backend, as Helm counts on a cluster."""
    if session.is_local:
        values = {**values, "planned": {**(values.get("planned") or {}), "revision": revision}}
    with _rendering(session, name) as rendering:
        return _rendered(session, rendering, name, revision, values, is_new=False)


def _settle(session: Session, name: str) -> None:
    """Raises OvertakenError while another call is still at work on this job; mends what a killed one has left."""
    if not session.is_local:
        session.cluster.settle(name)


def _existing(session: Session, name: str) -> Record | None:
    if session.is_local:
        from jobctl.local.layout import may_be_known

        if not may_be_known(home_directory(os.environ), name):
            return None
    try:
        return session.backend.record(name)
    except NotFoundError:
        return None


def _uid_of(record: Record | None) -> str | None:
    return record.job.get("metadata", {}).get("uid") if record else None


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
