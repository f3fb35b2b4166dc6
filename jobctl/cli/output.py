"""How an answer is printed: one document, as a table for people, as JSON or YAML for programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import click

FORMATS = ("table", "json", "yaml")
_Command = Callable[..., Any]


def output_option(command: _Command) -> _Command:
    """-o table|json|yaml: every reading command has it."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="How to print the answer.",
    )(command)


def emit(document: dict[str, Any], output: str, as_table: Callable[[dict[str, Any]], None]) -> None:
    """Print the document on stdout; `as_table` prints it for people."""
    if output == "json":
        import json

        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    elif output == "yaml":
        click.echo(to_yaml(document), nl=False)
    else:
        as_table(document)


def to_yaml(document: Any) -> str:
    """The document as YAML, keys in their order."""
    import yaml

    return yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)


@cache
def _dumper() -> Any:
    """A safe dumper that writes text of several lines as such: `config.json: |`."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    def represent(dumper: Any, text: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    Dumper.add_representer(str, represent)
    return Dumper


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as wide as it must be: in a pipe nothing is cut or wrapped."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns, rows = fold_intervals(columns, list(rows))
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, column in enumerate(columns):
        numeric = all(isinstance(row[position], int | float | None) for row in rows)
        table.add_column(column.upper(), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as printed:
        console.print(table)
    click.echo("\n".join(line.rstrip() for line in printed.get().splitlines()))


def fold_intervals(columns: Sequence[str], rows: list[Sequence[Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns NAME, NAME_low and NAME_high as the one column NAME, whose cells read `0.41 (0.36 to 0.47)`."""
    at = {column: position for position, column in enumerate(columns)}
    folded = {column for column in columns if f"{column}_low" in at and f"{column}_high" in at}
    bounds = {f"{column}_{end}" for column in folded for end in ("low", "high")}
    kept = [column for column in columns if column not in bounds]

    def cell(row: Sequence[Any], column: str) -> Any:
        value = row[at[column]]
        if column not in folded or value is None:
            return value
        low, high = (cell_text(row[at[f"{column}_{end}"]]) for end in ("low", "high"))
        return f"{cell_text(value)} ({low} to {high})"

    return kept, [[cell(row, column) for column in kept] for row in rows]


def print_figures(heading: str, figures: dict[str, Any], most: int | None = None) -> int:
    """Figures one below the other, at most so many; how many were left out."""
    names, rows = fold_intervals(list(figures), [list(figures.values())])
    pairs = list(zip(names, rows[0], strict=True))
    print_table((heading, "VALUE"), pairs[:most])
    return len(pairs) - len(pairs[:most])


def cell_text(value: Any) -> str:
    """A value as a person reads it: four significant digits, a dash for what is absent."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def duration(seconds: float) -> str:
    """Seconds in the largest two units: 42 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for unit, size, smaller, small in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    raise AssertionError("every number from 60 on has a unit")
