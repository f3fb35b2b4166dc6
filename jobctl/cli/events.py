"""`jobctl events`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from jobctl.cli.options import name_argument
from jobctl.cli.output import emit, output_option, print_table, say
from jobctl.cli.session import Session


@click.command("events")
@name_argument
@output_option
@click.pass_obj
def events_command(session: Session, name: str, output: str) -> None:
    """Show what the cluster did about a job, oldest first: scheduling, pulling, mounting, evicting."""
    events = [asdict(event) for event in session.backend.events(name)]
    emit({"backend": session.where_document, "name": name, "events": events}, output, _table)


def _table(document: dict[str, Any]) -> None:
    if not document["events"]:
        say(f"No events of {document['name']}. A cluster keeps them for about an hour.")
        return
    keys = ("time", "type", "object", "reason", "count", "message")
    print_table(keys, [tuple(event[key] for key in keys) for event in document["events"]])
