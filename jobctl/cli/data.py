"""`jobctl data list` and `jobctl data show`: what was collected, without copying it."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from jobctl.cli.output import emit, output_option, print_table
from jobctl.cli.session import Session
from jobctl.errors import JobctlError, UsageError

SCHEMA = "jobctl.data/v1"
_Command = Callable[..., Any]


@click.group("data")
def data_command() -> None:
    """Look at collected episodes."""


def _where_options(command: _Command) -> _Command:
    """Which dataset, on which volume, and what reads it there."""
    options = (
        click.option("--data", metavar="PATH", help="The dataset. [the volume's, where it has only one]"),
        click.option("--claim", default="shared", show_default=True, help="The volume that it lies on."),
        click.option("--image", metavar="IMAGE", help="What reads it on a cluster. [that of a job with this volume]"),
        output_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


@data_command.command("list")
@_where_options
@click.pass_obj
def list_episodes(session: Session, data: str | None, claim: str, image: str | None, output: str) -> None:
    """List a dataset's episodes and how they ended."""
    found = _ask(session, claim, image, [data] if data else [])
    emit({"backend": session.where_document, **found}, output, _list_table)


@data_command.command("show")
@click.argument("episode", type=click.IntRange(min=0))
@click.option(
    "--to", "target", type=click.Path(path_type=Path), metavar="FILE", help="The picture. [episode-EPISODE.png]"
)
@_where_options
@click.pass_obj
def show_episode(
    session: Session, episode: int, target: Path | None, data: str | None, claim: str, image: str | None, output: str
) -> None:
    """Draw one episode: three cameras at four instants, its signals and its labels.

    `jobctl data list` says which episodes there are. The episode is checked against its checksums first.
    """
    target = target or Path(f"episode-{episode:06d}.png")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(f"--to {target} is no file that can be written: name a PNG in a directory that exists.")
    found = _ask(session, claim, image, [*([data] if data else []), "--show", str(episode)])
    target.write_bytes(base64.b64decode(found.pop("picture")))
    emit({"backend": session.where_document, **found, "picture": str(target)}, output, _show_table)


def _ask(session: Session, claim: str, image: str | None, arguments: Sequence[str]) -> dict[str, Any]:
    """What `python -m workers data` says beside the volume. Raises NotFoundError with its sentence."""
    from jobctl.backend import claim_of

    record = None
    if image is None:
        using = [record for record in session.backend.records() if claim_of(record.values) == claim]
        record = max(using, key=lambda record: record.created_at, default=None)
    said = session.backend.reader(claim, record, image).ask_worker(["data", *arguments])
    try:
        found = json.loads(said)
    except ValueError as error:
        raise JobctlError("The worker gave no answer about the data: is its image of this jobctl's version?") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise JobctlError(f"The worker answers in another form than {SCHEMA}: it is another version's.")
    return found


def _list_table(document: dict[str, Any]) -> None:
    episodes = document["episodes"]
    outcomes = Counter(episode["outcome"] for episode in episodes)
    shares = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    unfinished = "" if document["complete"] else "; more are being collected, or are missing"
    click.echo(f"{document['data']}: {len(episodes)} episodes ({shares}){unfinished}\n")
    rows = [
        (one["episode"], one["outcome"], one["steps"], "yes" if one["perturbed"] else "no", one["seed"])
        for one in episodes
    ]
    print_table(("EPISODE", "OUTCOME", "TIMESTEPS", "PERTURBED", "SEED"), rows)


def _show_table(document: dict[str, Any]) -> None:
    one = document["episode"]
    disturbed = ", perturbed" if one["perturbed"] else ""
    click.echo(
        f"{document['data']}, episode {one['episode']}: {one['outcome']} after {one['steps']} timesteps "
        f"({one['seconds']:.2f} s){disturbed}, seed {one['seed']}\n"
    )
    rows = [
        (name, figures["unit"], *(f"{figures[key]:.4g}" for key in ("min", "mean", "max")))
        for name, figures in document["signals"].items()
    ]
    print_table(("SIGNAL", "UNIT", "MIN", "MEAN", "MAX"), rows)
    told = [
        f"{failure}: {', '.join(f'{count} within {horizon} timesteps' for horizon, count in counts.items())}"
        for failure, counts in document["positive_timesteps"].items()
        if any(counts.values())
    ]
    click.echo(f"\npositive timesteps of {told[0]}" if told else "\nno label is ever positive")
    click.echo(f"picture: {document['picture']}")
