"""`jobctl results`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jobctl.cli.document import result_summary
from jobctl.cli.options import name_argument
from jobctl.cli.output import emit, output_option, print_figures, print_table
from jobctl.cli.session import Session
from jobctl.errors import NotFoundError, UsageError
from jobctl.volume import MODEL, Result, Run

FIGURES_BESIDE_TABLES = 10  # the tables say the rest with more words


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
@click.option("--claim", default="shared", show_default=True, help="The volume of a run whose job has been deleted.")
@click.option(
    "--image", metavar="IMAGE", help="The image to read it with on a cluster, where its job has been deleted."
)
@output_option
@click.pass_obj
def results_command(
    session: Session, name: str, target: Path | None, claim: str, image: str | None, output: str
) -> None:
    """Show a run's result; with --to, fetch its report, plots and weights, each checked against its checksum.

    Results outlive the job: they can be read after `delete`.
    """
    run, result = _find(session, name, claim, image)
    document: dict[str, Any] = {
        "backend": session.where_document,
        "name": name,
        "result": {**(result_summary(run, result) or {}), "tables": result.data.get("tables") or {}},
    }
    if target is not None:
        document["fetched"] = [str(path) for path in _fetch(run, result, target)]
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


def _fetch(run: Run, result: Result, target: Path) -> list[Path]:
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file: name a directory that the results shall be fetched to.")
    fetched = run.fetch(result, target)
    weights = run.weights()
    if weights is not None:
        fetched += run.fetch(weights, target / "weights", only=MODEL)
    return fetched


def _table(document: dict[str, Any]) -> None:
    result = document["result"]
    click.echo(f"{document['name']}: {result['reason'] or 'no reason given'} (exit code {result['exitCode']})")
    if result["figures"]:
        click.echo()
        left_out = print_figures("FIGURE", result["figures"], most=FIGURES_BESIDE_TABLES if result["tables"] else None)
        if left_out:
            click.echo(f"and {left_out} more, most of them in the tables: `jobctl results {document['name']} -o yaml`")
    details = [title for title, table in result["tables"].items() if table.get("detail")]
    for title, table in result["tables"].items():
        if title in details:
            continue
        click.echo(f"\n{title.replace('_', ' ')}")
        print_table([str(column) for column in table.get("columns", [])], table.get("rows", []))
    if details:
        names = ", ".join(title.replace("_", " ") for title in details)
        click.echo(f"\nin the report: {names}")
    click.echo(f"\nin {result['directory']}")
    for path in result["reports"][:1]:
        click.echo(f"report: {path}")
    for path in result["plots"]:
        click.echo(f"plot: {path}")
    if "fetched" in document:
        click.echo("\nfetched:" + "".join(f"\n  {path}" for path in document["fetched"]))
