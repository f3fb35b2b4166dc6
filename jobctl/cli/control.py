"""`jobctl cancel`, `suspend`, `resume`, `retry` and `delete`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import click

from jobctl.backend import Record, live
from jobctl.cli.options import allow_env_option, name_argument
from jobctl.cli.session import Session
from jobctl.errors import NotFoundError, RefusedError
from jobctl.status import ACTIVE, JobView, State

LOOK_SECONDS = 10.0  # after a command, for what it asked for to become so
AGAIN_SECONDS = 0.1


@click.command("cancel")
@name_argument
@click.pass_obj
def cancel_command(session: Session, name: str) -> None:
    """Stop a job and mark it as not wanted. Its pods save first; `resume` takes it back."""
    _stop(session, name, "cancel", "cancelled")


@click.command("suspend")
@name_argument
@click.pass_obj
def suspend_command(session: Session, name: str) -> None:
    """Stop a job for now; its pods save first. `resume` goes on."""
    _stop(session, name, "suspend", "suspended")


@click.command("resume")
@name_argument
@click.pass_obj
def resume_command(session: Session, name: str) -> None:
    """Go on after suspend or cancel, from the last save."""
    _, job = session.view(name)
    if job.state in ("failed", "interrupted", "unknown"):
        raise RefusedError(
            f"{name} is not suspended but {job.state}: `jobctl retry {name}` starts it again from its last save."
        )
    if job.state not in ("suspended", "cancelled"):
        session.say(f"{name} is not suspended but {job.state}: nothing to do.")
        return
    session.backend.resume(name)
    record, job = _look(session, name, lambda record: not record.suspended)
    if record.suspended:
        raise RefusedError(f"{name} does not go on yet: it is {job.state} still; `jobctl status {name}` shows it.")
    waits = f", but waits: {job.reason}" if job.state == "pending" else ""
    session.say(f"{name} goes on{waits}. `jobctl wait {name}` shows how far it is.")


@click.command("retry")
@name_argument
@allow_env_option
@click.option(
    "--wait", is_flag=True, help="Stay until it ends; its end is the exit status. Ctrl-C only stops watching."
)
@click.pass_obj
def retry_command(session: Session, name: str, wait: bool) -> int:
    """Start an ended, suspended or interrupted job again as a new revision, from its last save.

    It also cuts short the Job controller's back-off of a recovering job. A collection that is done looks at its
    episodes once more, and records again what is damaged or gone.
    """
    from jobctl.cli.submission import start_again, until_settled
    from jobctl.cli.submit import stay

    def attempt(tries: int) -> str:
        record, job = session.view(name)
        if job.state in ("pending", "starting", "running"):
            return f"{name} is {job.state} already: nothing to do."
        if job.state == "succeeded" and record.values.get("kind") != "collect":
            return f"{name} is done already: nothing to do. `jobctl submit --fresh` would run it anew."
        revision = start_again(session, record, tries).revision
        now, job = session.view(name)
        if now.revision == revision and job.state in (*ACTIVE, "succeeded"):
            return f"{name} is started again as revision {revision}."
        return f"{name} was started again as revision {revision}; revision {now.revision} is {job.state}: {job.reason}."

    session.say(until_settled(session, attempt))
    return stay(session, name) if wait else 0


@click.command("delete")
@name_argument
@click.pass_obj
def delete_command(session: Session, name: str) -> None:
    """Stop a job and forget it. What it wrote on its volume stays."""
    try:
        run = session.run(session.backend.record(name))
    except NotFoundError:  # the rest of one may still be there: delete says whether
        session.say(f"What was left of {name} is deleted{_still_ending(session.backend.delete(name))}.")
        return
    # A cluster's volume is not looked at for the sake of a sentence.
    kept = run.exists() if session.is_local else True
    ending = _still_ending(session.backend.delete(name))
    session.say(f"{name} is deleted{ending}." + (f" What it wrote stays in {run.place}." if kept else ""))


def _stop(session: Session, name: str, verb: Literal["cancel", "suspend"], state: State) -> None:
    """Carry out `verb`, after which the job reads as `state`. Raises RefusedError for a job that has ended."""
    _, job = session.view(name)
    if job.state == state:
        session.say(f"{name} is {state} already.")
        return
    if job.state in ("succeeded", "failed"):
        raise RefusedError(f"{name} has {job.state} already: there is nothing left to {verb}.")
    getattr(session.backend, verb)(name)
    record, job = _look(session, name, lambda record: record.suspended and not _running_on(record))
    if job.state in ("succeeded", "failed"):
        raise RefusedError(f"{name} has {job.state} meanwhile: there was nothing left to {verb}.")
    if not record.suspended:
        raise RefusedError(
            f"{name} is not {state} yet but {job.state}: something lets it go on; `jobctl status {name}` shows it."
        )
    running = len(_running_on(record))
    told = f"; {running} of its replicas have not been told to end yet" if running else ""
    session.say(f"{name} is {job.state} {job.reason}{told}.")


def _look(session: Session, name: str, is_so: Callable[[Record], bool]) -> tuple[Record, JobView]:
    """The job once it is so, or has ended; as it is by then where that takes too long."""
    deadline = time.monotonic() + LOOK_SECONDS
    while True:
        record, job = session.view(name)
        if is_so(record) or job.state in ("succeeded", "failed") or time.monotonic() > deadline:
            return record, job
        time.sleep(AGAIN_SECONDS)


def _running_on(record: Record) -> list[Mapping[str, Any]]:
    """Its pods that nobody has told to end."""
    return [pod for pod in live(record.pods) if not pod["metadata"].get("deletionTimestamp")]


def _still_ending(replicas: int) -> str:
    return f"; {replicas} replica{'s' if replicas > 1 else ''} still ending" if replicas else ""
