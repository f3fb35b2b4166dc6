"""`jobctl data list` and `jobctl data show`: what was collected, without copying it."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from jobctl.cli.output import cell_text, emit, output_option, print_table, say
from jobctl.cli.session import Session
from jobctl.errors import JobctlError, UsageError
from jobctl.untrusted import UnreadableError, mapping, mappings, number, parse_object, text, whole

SCHEMA = "jobctl.data/v1"
MOST_BYTES = 64 * 1024 * 1024  # of an answer: a picture is in it, or a line an episode
PNG = b"\x89PNG\r\n\x1a\n"
OUTCOMES_SHOWN = 20
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
@click.option("--force", is_flag=True, help="Replace the picture where it is there already.")
@_where_options
@click.pass_obj
def show_episode(
    session: Session,
    episode: int,
    target: Path | None,
    force: bool,
    data: str | None,
    claim: str,
    image: str | None,
    output: str,
) -> None:
    """Draw one episode: three cameras at four instants, its signals and its labels.

    `jobctl data list` says which episodes there are. The episode is checked against its checksums first.
    """
    target = target or Path(f"episode-{episode:06d}.png")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise UsageError(f"--to {target} is no file that can be written: name a PNG in a directory that exists.")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already: say --force to replace it, or name another file with --to.")
    found = _ask(session, claim, image, [*([data] if data else []), "--show", str(episode)])
    target.write_bytes(_picture(found.pop("picture", None)))
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
        found = parse_object(said, MOST_BYTES)
    except UnreadableError as error:
        raise JobctlError(
            f"The worker gave no answer about the data ({error}): is its image of this jobctl's version?"
        ) from error
    if found.get("schema") != SCHEMA:
        raise JobctlError(f"The worker answers in another form than {SCHEMA}: it is another version's.")
    return found


def _picture(encoded: Any) -> bytes:
    """The bytes of a PNG. Raises JobctlError for anything else."""
    try:
        picture = base64.b64decode(text(encoded) or "", validate=True)
    except ValueError:
        picture = b""
    if not picture.startswith(PNG):
        raise JobctlError("The worker drew no picture: is its image of this jobctl's version?")
    return picture


def _list_table(document: dict[str, Any]) -> None:
    episodes = mappings(document, "episodes")
    outcomes = Counter(cell_text(one.get("outcome")) for one in episodes)
    shares = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common(OUTCOMES_SHOWN))
    unfinished = "" if document.get("complete") else "; more are being collected, or are missing"
    say(f"{cell_text(document.get('data'))}: {len(episodes)} episodes ({shares}){unfinished}\n")
    rows = [
        (*(one.get(key) for key in ("episode", "outcome", "steps")), bool(one.get("perturbed")), one.get("seed"))
        for one in episodes
    ]
    print_table(("EPISODE", "OUTCOME", "TIMESTEPS", "PERTURBED", "SEED"), rows)


def _show_table(document: dict[str, Any]) -> None:
    one = mapping(document, "episode")
    disturbed = ", perturbed" if one.get("perturbed") else ""
    seconds = number(one, "seconds")
    said = {key: cell_text(one.get(key)) for key in ("episode", "outcome", "steps", "seed")}
    say(
        f"{cell_text(document.get('data'))}, episode {said['episode']}: {said['outcome']} after {said['steps']} "
        f"timesteps ({'–' if seconds is None else f'{seconds:.2f}'} s){disturbed}, seed {said['seed']}\n"
    )
    signals = mapping(document, "signals")
    rows = [
        (name, text(signals, name, "unit"), *(_figure(number(signals, name, key)) for key in ("min", "mean", "max")))
        for name in signals
    ]
    print_table(("SIGNAL", "UNIT", "MIN", "MEAN", "MAX"), rows)
    told = [
        f"{cell_text(failure)}: {', '.join(within)}"
        for failure, counts in mapping(document, "positive_timesteps").items()
        if (within := _within(mapping(counts)))
    ]
    say(f"\npositive timesteps of {told[0]}" if told else "\nno label is ever positive")
    say(f"picture: {document['picture']}")


def _figure(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _within(counts: dict[str, Any]) -> list[str]:
    """How many timesteps are positive within each horizon; nothing where none is."""
    known = {horizon: count for horizon in counts if (count := whole(counts, horizon)) is not None}
    if not any(known.values()):
        return []
    return [f"{count} within {cell_text(horizon)} timesteps" for horizon, count in known.items()]
