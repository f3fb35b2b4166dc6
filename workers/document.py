"""A report as blocks that become Markdown, and HTML in one file: pictures inlined, nothing loaded, no script.

Texts are shown as they are: what they hold is never taken for markup.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.lead { font-size: 1.1rem; background: #eef3f8; border-left: 4px solid #1d3557; padding: .6rem 1rem; margin: .6rem 0; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #d5dae0; text-align: right; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; border-bottom: 2px solid #1d3557; }
th:first-child, td:first-child, .words { text-align: left; }
table.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
table.facts td:first-child { white-space: nowrap; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #57606a; font-size: .85rem; }
"""


@dataclass(frozen=True)
class Heading:
    text: str


@dataclass(frozen=True)
class Paragraph:
    """`lead`: one of the sentences that a reader with ten seconds reads."""

    text: str
    lead: bool = False


@dataclass(frozen=True)
class Table:
    """`columns` empty: a list of facts, each row a name and its value."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG file below the report's directory."""

    path: str
    caption: str


_SPACE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
_MARKUP = re.compile(r"[\\`*\[\]|~&<>@#]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
_BLOCK = re.compile(r"^(\d*)([+=.)-])")  # a line that begins so is a list, a rule or a heading
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_NUMBER = re.compile(r"[−–]?\d|–$")
Block = Heading | Paragraph | Table | Picture


def with_intervals(table: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    """A result's table for people: columns NAME, NAME_low and NAME_high share a cell, as `0.412 (0.33–0.49)`.

    `titles` names columns that need another name; the others lose their underscores.
    """
    kept = [column for column in table["columns"] if not column.endswith(("_low", "_high"))]
    rows = [dict(zip(table["columns"], values, strict=True)) for values in table["rows"]]
    return Table(
        [titles.get(column, column.replace("_", " ")) for column in kept],
        [[cell(row[column], row.get(f"{column}_low"), row.get(f"{column}_high")) for column in kept] for row in rows],
    )


def cell(value: Any, low: float | None = None, high: float | None = None) -> str:
    """A value as a person reads it; a dash for what is undefined or unbounded."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in (float("inf"), float("-inf")):
        return "–"
    text = f"{value:.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    if low is not None and high is not None:
        text += f" ({low:.2f}–{high:.2f})" if low >= 0 else f" ({low:.2f} to {high:.2f})"
    return text.replace("-", "−") if isinstance(value, float) else text


def markdown(title: str, blocks: Sequence[Block]) -> str:
    return "\n\n".join([f"# {_plain(title)}", *map(_markdown, blocks)]) + "\n"


def html(title: str, blocks: Sequence[Block], directory: Path) -> str:
    """One page that shows the same anywhere; pictures are read from below `directory`."""
    body = "\n".join([f"<h1>{escape(title)}</h1>", *(_html(block, directory) for block in blocks)])
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>'
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n<title>{escape(title)}</title>\n</head>\n'
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text, lead):
            return f"**{_plain(text)}**" if lead else _BLOCK.sub(r"\1\\\2", _plain(text))
        case Picture(path, caption):
            return f"![{_plain(caption)}]({path})"
        case Table(columns, rows):
            lines = [columns or ("", ""), *rows]
            head, *body = ["| " + " | ".join(map(_plain, line)) + " |" for line in lines]
            return "\n".join([head, "| " + " | ".join(["---"] * len(lines[0])) + " |", *body])


def _plain(text: str) -> str:
    """A text of one line in which Markdown finds no markup, no link and no entity."""
    return _MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), _SPACE.sub(" ", text).strip())


def _html(block: Block, directory: Path) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Paragraph(text, lead):
            return f'<p class="lead">{escape(text)}</p>' if lead else f"<p>{escape(text)}</p>"
        case Picture(path, caption):
            data = base64.b64encode((directory / path).read_bytes()).decode()
            picture = f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
            return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"
        case Table(columns, rows):
            words = [not any(_NUMBER.match(row[place]) for row in rows) for place in range(len(columns))]
            head = f"<thead>{_row('th', columns, words)}</thead>" if columns else ""
            body = "\n".join(_row("td", row, words) for row in rows)
            kind = "" if columns else ' class="facts"'
            return f'<div class="wide"><table{kind}>{head}<tbody>\n{body}\n</tbody></table></div>'


def _row(tag: str, cells: Sequence[str], words: Sequence[bool]) -> str:
    """`words`: of each column, whether it holds no numbers; none are given for facts."""
    kinds = [' class="words"' if word else "" for word in words] or [""] * len(cells)
    return (
        "<tr>"
        + "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for text, kind in zip(cells, kinds, strict=True))
        + "</tr>"
    )
