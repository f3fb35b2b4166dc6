"""Generated parts of a page, between two comments that say which command makes them."""

from collections.abc import Sequence
from pathlib import Path


def part(path: Path, begin: str, end: str) -> str:
    """What stands between the two marks of a page. Raises ValueError where one is missing."""
    _, rest = path.read_text(encoding="utf-8").split(begin)
    return rest.split(end)[0]


def replace(path: Path, begin: str, end: str, text: str) -> None:
    """Put `text` between the marks, and leave the rest of the page as it is."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])
