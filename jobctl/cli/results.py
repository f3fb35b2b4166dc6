"""`jobctl results`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobctl.cli.document import result_summary
from jobctl.cli.options import name_argument
from jobctl.cli.output import cell_text, emit, output_option, print_figures, print_table, say
from jobctl.cli.session import Session
from jobctl.errors import NotFoundError, UsageError
from jobctl.untrusted import at
from jobctl.volume import MODEL, Result, Run

FIGURES_BESIDE_TABLES = 10  # the tables say the rest with more words
COLUMNS_SHOWN = 50
ROWS_SHOWN = 1000
OTHERS_NAMED = 3  # of the files that are not fetched


@click.command("results")
@name_argument
@click.option(
    "-d",
    "--to",
    "target",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Fetch results, plots and weights there.",
)
@click.option("--force", is_flag=True, help="Replace what is there already under the names that are fetched.")
@click.option("--claim", default="shared", show_default=True, help="The volume of a run whose job has been deleted.")
@click.option(
    "--image", metavar="IMAGE", help="The image to read it with on a cluster, where its job has been deleted."
)
@output_option
@click.pass_obj
def results_command(
    session: Session, name: str, target: Path | None, force: bool, claim: str, image: str | None, output: str
) -> None:
    """Show a run's result; with --to, fetch its report, plots and weights, each checked against its checksum.

    Nothing that is there already is replaced unless --force says so.

    Results outlive the job: they can be read after `delete`.
    """
    run, result = _find(session, name, claim, image)
    document: dict[str, Any] = {
        "backend": session.where_document,
        "name": name,
        "result": {**(result_summary(run, result) or {}), "tables": result.tables},
    }
    if target is not None:
        document["fetched"] = [str(path) for path in _fetch(session, run, result, target, force)]
    emit(document, output, _table)


def _find(session: Session, name: str, claim: str, image: str | None) -> tuple[Run, Result]:
    """The best result of a run. Raises NotFoundError where there is no run, or it has no result yet."""
    try:
        record, job = session.view(name)
        run, state = session.run(record), f"its job is {job.state}"
    except NotFoundError:
        run, state = Run(session.backend.reader(claim, None, image), name), "its job was deleted"
        if not run.exists():
            raise
    results = run.results()
    if not results:
        raise NotFoundError(f"{name} has no result yet: {state}. `jobctl wait {name}` waits for its end.")
    return run, results[0]


def _fetch(session: Session, run: Run, result: Result, target: Path, force: bool) -> list[Path]:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file: name a directory that the results shall be fetched to.")
    copies = run.copies_of(result, target)
    weights = run.weights()
    if weights is not None:
        copies += run.copies_of(weights, target, below="weights", only=MODEL)
    if result.others:
        names = ", ".join(cell_text(name) for name in result.others[:OTHERS_NAMED])
        more = f" and {len(result.others) - OTHERS_NAMED} more" if len(result.others) > OTHERS_NAMED else ""
        session.note(
            f"Not fetched from {run.place_of(result.directory)}, since no result has such files: {names}{more}."
        )
    return run.fetch(copies, force=force)


def _table(document: dict[str, Any]) -> None:
    result = document["result"]
    reason = cell_text(result["reason"] or "no reason given")
    say(f"{document['name']}: {reason} (exit code {cell_text(result['exitCode'])})")
    tables = {cell_text(title.replace("_", " ")): table for title, table in result["tables"].items()}
    if result["figures"]:
        say()
        left_out = print_figures("FIGURE", result["figures"], most=FIGURES_BESIDE_TABLES if tables else None)
        if left_out:
            say(f"and {left_out} more, most of them in the tables: `jobctl results {document['name']} -o yaml`")
    details = [title for title, table in tables.items() if at(table, "detail")]
    for title, table in tables.items():
        if title not in details:
            say(f"\n{title}")
            _print_published(document["name"], table)
    if details:
        say(f"\nin the report: {', '.join(details)}")
    say(f"\nin {result['directory']}")
    for path in result["reports"][:1]:
        say(f"report: {path}")
    for path in result["plots"]:
        say(f"plot: {path}")
    if "fetched" in document:
        say("\nfetched:" + "".join(f"\n  {path}" for path in document["fetched"]))


def _print_published(name: str, table: Any) -> None:
    """A table from the volume, as far as it is one and fits a screen."""
    columns, rows = at(table, "columns"), at(table, "rows")
    if not isinstance(columns, list) or not isinstance(rows, list):
        say(f"no table: `jobctl results {name} -o json` shows what it is")
        return
    if len(columns) > COLUMNS_SHOWN:
        say(f"{len(columns)} columns: `jobctl results {name} -o json` shows them")
        return
    print_table([str(column) for column in columns], rows[:ROWS_SHOWN])
    if len(rows) > ROWS_SHOWN:
        say(f"and {len(rows) - ROWS_SHOWN} more rows: `jobctl results {name} -o json` shows them")
