"""`jobctl logs`."""

from __future__ import annotations

import click

from jobctl.cli.options import DETACHED, name_argument
from jobctl.cli.output import output_option, say, to_json, to_yaml
from jobctl.cli.session import Session
from jobctl.errors import NotFoundError


@click.command("logs")
@name_argument
@click.option(
    "-f", "--follow", is_flag=True, help="Go on until the job ends. Ctrl-C only stops watching (exit status 130)."
)
@click.option("--replica", type=click.IntRange(min=0), metavar="N", help="Only the replica with this index.")
@output_option
@click.pass_obj
def logs_command(session: Session, name: str, follow: bool, replica: int | None, output: str) -> int:
    """Print what the replicas wrote, over all attempts, oldest first."""
    _, job = session.view(name)
    if replica is not None and replica >= job.completions:
        known = "it has only index 0" if job.completions == 1 else f"its indexes are 0 to {job.completions - 1}"
        raise NotFoundError(f"{name} has no replica {replica}: {known}.")
    if job.state in ("pending", "starting"):
        session.note(f"{name} has not said anything yet: it is {job.state}: {job.reason}.")
    prefixed = job.completions > 1 and replica is None
    try:
        for line in session.backend.logs(name, replica, follow):
            entry = {"index": line.index, "pod": line.pod, "text": line.text}
            if output == "json":
                say(to_json(entry))
            elif output == "yaml":
                say(to_yaml([entry]).rstrip())
            else:
                _say(f"[{line.index}] " if prefixed else "", line.text)
    except KeyboardInterrupt:
        session.note(f"\nStopped watching; {name} goes on: `jobctl logs -f {name}` comes back to it.")
        return DETACHED
    return 0


def _say(prefix: str, text: str) -> None:
    """One line of a log. What a progress bar has drawn over itself stands below itself."""
    for drawn in [part for part in text.split("\r") if part] or [""]:
        say(f"{prefix}{drawn}")
