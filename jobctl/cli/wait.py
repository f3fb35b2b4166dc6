"""`jobctl wait`."""

from __future__ import annotations

import sys

import click

from jobctl.cli.document import NEXT, job_summary
from jobctl.cli.options import DETACHED, name_argument
from jobctl.cli.output import cell_text, emit, output_option
from jobctl.cli.session import Session, own_result
from jobctl.cli.watch import exit_status_of, watch
from jobctl.status import JobView


@click.command("wait")
@name_argument
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Stop waiting then, with exit status 124."
)
@output_option
@click.pass_obj
def wait_command(session: Session, name: str, timeout: float | None, output: str) -> int:
    """Wait until a job ends. Exit status 0 if it succeeded, 1 if it failed, was cancelled or interrupted.

    Ctrl-C stops watching with exit status 130 and leaves the job alone. A suspended job is waited for.
    """
    try:
        job = watch(session, name, timeout_seconds=timeout, stream=sys.stdout if output == "table" else sys.stderr)
    except KeyboardInterrupt:
        return detached(session, name)
    if output == "table":
        say_next(session, job)
    emit({"backend": session.where_document, "job": job_summary(job, None)}, output, lambda document: None)
    return exit_status_of(job)


def say_next(session: Session, job: JobView) -> None:
    """How it came out, and what to type now that it has ended."""
    record, _ = session.view(job.name)
    result = own_result(session.run(record), record, job) if job.state == "succeeded" else None
    if result is not None and result.reason not in (None, job.reason):
        session.say(f"{job.name}: {cell_text(result.reason)}")
    session.say(f"next: {' · '.join(command.format(name=job.name) for command in NEXT[job.state])}")


def detached(session: Session, name: str) -> int:
    """What Ctrl-C means while watching: the job goes on."""
    session.note(
        f"\nStopped watching; {name} goes on: `jobctl wait {name}` comes back to it, `jobctl cancel {name}` ends it."
    )
    return DETACHED
