"""`jobctl list` and `jobctl status`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from jobctl.cli.document import job_document, job_summary, progress_text
from jobctl.cli.options import name_argument
from jobctl.cli.output import cell_text, emit, output_option, print_figures, print_table, say
from jobctl.cli.session import Session, own_result
from jobctl.errors import RefusedError, UnreachableError
from jobctl.status import ACTIVE, view

FIGURES_SHOWN = 12
REPLICA_KEYS = ("index", "pod", "phase", "exitCode", "attempts", "pid", "address", "metricsUrl", "message")


@click.command("list")
@click.option("--state", "states", multiple=True, metavar="STATE", help="Only jobs in this state (may be repeated).")
@output_option
@click.pass_obj
def list_command(session: Session, states: tuple[str, ...], output: str) -> None:
    """Show every job and its state, the newest first."""
    now = datetime.now(UTC)
    records = sorted(session.backend.records(), key=lambda record: record.created_at, reverse=True)
    pairs = [(record, view(record, now)) for record in records]
    jobs = [
        job_summary(job, session.progress(record, job)) for record, job in pairs if not states or job.state in states
    ]
    emit({"backend": session.where_document, "jobs": jobs}, output, _list_table)


@click.command("status")
@name_argument
@output_option
@click.pass_obj
def status_command(session: Session, name: str, output: str) -> None:
    """Show one job: state, reason, progress, replicas, its result, and what to type next."""
    emit({"backend": session.where_document, "job": describe(session, name)}, output, _status_table)


def describe(session: Session, name: str) -> dict[str, Any]:
    """The document of one job now. Raises NotFoundError."""
    record, job = session.view(name)
    run = session.run(record)
    attempts, result = None, None
    # On a cluster a pod has to be made for looking at the volume: that is worth it for an end, not for every look.
    if session.is_local or job.state in ("succeeded", "failed"):
        try:
            attempts, result = run.attempts(), None if job.state in ACTIVE else own_result(run, record, job)
        except (RefusedError, UnreachableError) as error:
            session.note(f"The result can't be read: {error}")
    return job_document(job, run, session.progress(record, job), attempts, result)


def _list_table(document: dict[str, Any]) -> None:
    if not document["jobs"]:
        namespace = document["backend"].get("namespace")
        where = f" in namespace {namespace}" if namespace else ""
        say(f"No jobs{where}. `jobctl submit --help` says how to start one.")
        return
    rows = [
        (
            job["name"],
            job["kind"],
            job["gpu"],
            job["replicas"],
            job["state"],
            progress_text(job["progress"], job["kind"]),
            job["reason"],
        )
        for job in document["jobs"]
    ]
    print_table(("NAME", "KIND", "GPU", "REPLICAS", "STATE", "PROGRESS", "REASON"), rows)


def _status_table(document: dict[str, Any]) -> None:
    job, backend = document["job"], document["backend"]
    lines = {
        "state": f"{job['state']}: {cell_text(job['reason'])}",
        "backend": " ".join(cell_text(part) for part in backend.values()),
        "job": cell_text(f"{job['kind']} · {job['task']} · {job['gpu']} · {job['replicas']} replica(s)"),
        "revision": f"{job['revision']} (spec {cell_text(job['specHash'])})",
        "created": job["createdAt"],
        "started": cell_text(job["startedAt"]),
        "ended": cell_text(job["finishedAt"]),
        "progress": progress_text(job["progress"], job["kind"]),
    }
    say(job["name"])
    for key, value in lines.items():
        say(f"  {key + ':':<10}{value}")
    for wait in job["backoffs"]:
        say(f"  back-off: index {wait['index']}, {wait['secondsLeft']:.0f} of {wait['seconds']:.0f} s left")
    if job["replicaStatuses"]:
        say()
        print_table(
            ("INDEX", "POD", "PHASE", "EXIT", "ATTEMPTS", "PID", "ADDRESS", "METRICS", "LAST MESSAGE"),
            [tuple(replica[key] for key in REPLICA_KEYS) for replica in job["replicaStatuses"]],
        )
    if job["result"]:
        say()
        say(f"result: {cell_text(job['result']['reason'])}")
        left_out = print_figures("FIGURE", job["result"]["figures"], most=FIGURES_SHOWN)
        if left_out:
            say(f"and {left_out} more: `jobctl results {job['name']}`")
        say(f"in {job['result']['directory']}")
    say(f"\nnext: {' · '.join(job['next'])}")
