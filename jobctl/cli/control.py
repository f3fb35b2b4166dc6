"""`jobctl cancel`, `suspend`, `resume`, `retry` and `delete`."""

from __future__ import annotations

from typing import Literal

import click

from jobctl.cli.options import allow_env_option, name_argument
from jobctl.cli.session import Session
from jobctl.errors import NotFoundError, RefusedError
from jobctl.status import State


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
    session.say(f"{name} goes on. `jobctl wait {name}` shows how far it is.")


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
    from jobctl.cli.submission import start_again
    from jobctl.cli.submit import stay

    record, job = session.view(name)
    if job.state in ("pending", "starting", "running"):
        session.say(f"{name} is {job.state} already: nothing to do.")
    elif job.state == "succeeded" and record.values.get("kind") != "collect":
        session.say(f"{name} is done already: nothing to do. `jobctl submit --fresh` would run it anew.")
    else:
        release = start_again(session, record)
        session.say(f"{name} is started again as revision {release.revision}.")
    return stay(session, name) if wait else 0


@click.command("delete")
@name_argument
@click.pass_obj
def delete_command(session: Session, name: str) -> None:
    """Stop a job and forget it. What it wrote on its volume stays."""
    try:
        run = session.run(session.backend.record(name))
    except NotFoundError:  # the rest of one may still be there: delete says whether
        session.backend.delete(name)
        session.say(f"What was left of {name} is deleted.")
        return
    # A cluster's volume is not looked at for the sake of a sentence.
    kept = run.exists() if session.is_local else True
    session.backend.delete(name)
    session.say(f"{name} is deleted." + (f" What it wrote stays in {run.place}." if kept else ""))


def _stop(session: Session, name: str, verb: Literal["cancel", "suspend"], state: State) -> None:
    """Carry out `verb`, after which the job reads as `state`. Raises RefusedError for a job that has ended."""
    _, job = session.view(name)
    if job.state == state:
        session.say(f"{name} is {state} already.")
        return
    if job.state in ("succeeded", "failed"):
        raise RefusedError(f"{name} has {job.state} already: there is nothing left to {verb}.")
    getattr(session.backend, verb)(name)
    session.say(f"{name} is {state}: its pods save and end. `jobctl resume {name}` goes on from there.")
