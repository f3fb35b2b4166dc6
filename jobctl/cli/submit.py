"""`jobctl submit` and `jobctl render`."""

from __future__ import annotations

from typing import Any

import click

from jobctl.cli.options import spec_options
from jobctl.cli.output import say, to_yaml
from jobctl.cli.session import Session
from jobctl.cli.specs import asked_of
from jobctl.cli.submission import Prepared, decide, prepare, start

ALREADY = {
    "running": "already running: nothing to do.",
    "done": "already done: nothing to do. `jobctl results {name}` shows what came out.",
}


@click.command("submit")
@spec_options
@click.option("--replace", is_flag=True, help="Let the name go on with this other spec.")
@click.option("--dry-run", is_flag=True, help="Check everything and say what would happen; start nothing.")
@click.option(
    "--wait", is_flag=True, help="Stay until it ends; its end is the exit status. Ctrl-C only stops watching (130)."
)
@click.pass_obj
def submit_command(session: Session, replace: bool, dry_run: bool, wait: bool, fresh: bool, **flags: Any) -> int:
    """Start a job: `jobctl submit train --data datasets/x`, or `-f spec.yaml`.

    The same spec again finds the job running or done and does nothing, or starts it again from its last save. Several
    documents in one file run in order: submit waits between them, the same command again continues, and a failed one
    stops the sequence with exit status 1.
    """
    prepared = prepare(session, asked_of(flags, session.note), fresh=fresh, replace=replace)
    decisions = [decide(job, replace=replace, fresh=fresh) for job in prepared]
    for number, (job, decision) in enumerate(zip(prepared, decisions, strict=True), start=1):
        if decision == "start" and not dry_run:
            job, decision = start(session, job, replace=replace, fresh=fresh)
            decisions[number - 1] = decision
        session.say(_announcement(job, decision, dry_run))
        if dry_run:
            continue
        if wait or number < len(prepared):
            status = stay(session, job.spec.name)
            if status != 0:
                _say_what_is_left(session, prepared[number:])
                return status
    if not wait and not dry_run and decisions[-1] != "done":
        name = prepared[-1].spec.name
        session.say(f"`jobctl wait {name}` shows how far it is, `jobctl logs -f {name}` what it says.")
    return 0


@click.command("render")
@spec_options
@click.pass_obj
def render_command(session: Session, fresh: bool, **flags: Any) -> None:
    """Print exactly the objects that submit would send, as YAML."""
    # Helm itself asks a cluster for the revision that names end in: the client needn't be loaded for it.
    prepared = prepare(session, asked_of(flags, session.note), fresh=fresh, ask=session.is_local)
    if not session.is_open:
        session.say_where()
    documents = [document for job in prepared for document in job.release.manifest]
    say("---\n".join(to_yaml(document) for document in documents), nl=False)


def stay(session: Session, name: str) -> int:
    """Watch a job until its end and return the exit status; Ctrl-C leaves it alone."""
    from jobctl.cli.wait import detached, say_next
    from jobctl.cli.watch import exit_status_of, watch

    try:
        job = watch(session, name)
    except KeyboardInterrupt:
        return detached(session, name)
    say_next(session, job)
    return exit_status_of(job)


def _announcement(job: Prepared, decision: str, dry_run: bool) -> str:
    name = job.spec.name
    if decision != "start":
        return f"{name}: {ALREADY[decision].format(name=name)}"
    verb = "would be started" if dry_run else "submitted"
    goes_on = f"; it {job.continues}" if job.continues else ""
    return f"{name}: {verb} as revision {job.release.revision} ({len(job.release.manifest)} objects){goes_on}."


def _say_what_is_left(session: Session, left: list[Prepared]) -> None:
    if left:
        names = ", ".join(job.spec.name for job in left)
        session.note(f"Not started: {names}. The same command again continues.")
