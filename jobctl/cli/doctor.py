"""`jobctl doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from jobctl.cli.output import emit, output_option, say
from jobctl.cli.session import Session
from jobctl.version import __version__


@click.command("doctor")
@click.option("--claim", default="shared", show_default=True, help="The volume that the jobs share.")
@click.option("--image", default=f"jobctl-worker:{__version__}", show_default=True, help="The workers' image.")
@output_option
@click.pass_obj
def doctor_command(session: Session, claim: str, image: str, output: str) -> int:
    """Check what jobs need of the cluster and namespace; exit status 1 where something is missing."""
    from jobctl.cluster.doctor import examine

    findings = [asdict(finding) for finding in examine(session.cluster.api, claim, image)]
    emit({"backend": session.where_document, "findings": findings}, output, _table)
    return 1 if any(finding["level"] == "fail" for finding in findings) else 0


def _table(document: dict[str, Any]) -> None:
    width = max(len(finding["check"]) for finding in document["findings"])
    for finding in document["findings"]:
        say(f"{finding['level']:<4}  {finding['check']:<{width}}  {finding['said']}")
        if finding["advice"]:
            say(f"      {'':<{width}}  → {finding['advice']}")
