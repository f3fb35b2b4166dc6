"""How an answer is printed: one document, as a table for people, as JSON or YAML for programs.

All goes through `say`: text from volumes, pods and objects can hold anything, and is never more than text to a
terminal. JSON and YAML are exact all the same: both have escapes of their own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import click

FORMATS = ("table", "json", "yaml")
MOST_FIGURES = 1000
# What PyYAML reads as text, but kubectl and Helm as a number or a boolean: 7130e52, 0o17, y
_ELSEWHERE_NO_TEXT = re.compile(r"[-+.]?[0-9]|[yYnN]$")
_Command = Callable[..., Any]
# What a terminal acts on, or shows elsewhere than it stands: C0 but tab and newline, DEL, C1, line and paragraph
# separators, marks that turn the direction of text, and halves of characters, which have no encoding.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_NAMED = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}


def say(sentence: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print for people: line breaks and tabs as they are, every other control character as its escape, `\\x1b`."""
    click.echo(printable(sentence), err=err, nl=nl)


def printable(sentence: str) -> str:
    """The text as it may be written to a terminal."""
    return _CONTROL.sub(_escape, sentence)


def in_one_line(piece: str) -> str:
    """As printable, for a piece of a line: its line breaks and tabs are escaped, too."""
    return re.sub("[\n\t]", _escape, printable(piece))


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if match[0] in _NAMED:
        return _NAMED[match[0]]
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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
        say(to_json(document, indent=2))
    elif output == "yaml":
        say(to_yaml(document), nl=False)
    else:
        as_table(document)


def to_json(document: Any, indent: int | None = None) -> str:
    """The document as JSON: exact, and without a character that a terminal acts on (JSON has escapes for them all)."""
    import json

    text = json.dumps(document, indent=indent, ensure_ascii=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def to_yaml(document: Any) -> str:
    """The document as YAML, keys in their order. Exact, but for halves of characters: YAML has none of them."""
    import yaml

    plain = yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)
    if not _CONTROL.search(plain):
        return plain
    return yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=False, width=120)


@cache
def _dumper() -> Any:
    """A safe dumper that writes text of several lines as such: `config.json: |`."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        pass

    def represent(dumper: Any, text: str) -> Any:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if not text.isascii() else text
        style = "|" if "\n" in text else "'" if _ELSEWHERE_NO_TEXT.match(text) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent)
    return Dumper


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as wide as it must be: in a pipe nothing is cut or wrapped."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    columns, rows = fold_intervals(columns, [_cells(row, len(columns)) for row in rows])
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for position, column in enumerate(columns):
        numeric = all(isinstance(row[position], int | float | None) for row in rows)
        table.add_column(Text(in_one_line(column.upper())), justify="right" if numeric else "left")
    for row in rows:
        table.add_row(*(Text(cell_text(cell)) for cell in row))
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 10_000)
    with console.capture() as printed:
        console.print(table)
    say("\n".join(line.rstrip() for line in printed.get().split("\n")).rstrip("\n"))


def _cells(row: Any, count: int) -> list[Any]:
    """So many cells, whatever the row is."""
    cells = [*row] if isinstance(row, list | tuple) else [row]
    return cells[:count] + [None] * (count - len(cells))


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
    """Figures one below the other, at most so many (None: as many as anybody reads); how many were left out."""
    names, rows = fold_intervals(list(figures), [list(figures.values())])
    pairs = list(zip(names, rows[0], strict=True))
    shown = pairs[: MOST_FIGURES if most is None else most]
    print_table((heading, "VALUE"), shown)
    return len(pairs) - len(shown)


def cell_text(value: Any) -> str:
    """A value as a person reads it, in one line: four significant digits, a dash for what is absent."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return in_one_line(str(value))


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
