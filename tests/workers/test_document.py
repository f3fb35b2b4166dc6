"""Reports: the same blocks as Markdown and as one HTML file, in which nothing that was written is taken for markup."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from workers.document import Heading, Paragraph, Picture, Table, cell, html, markdown, with_intervals

BLOCKS = [
    Paragraph("It holds.", lead=True),
    Heading("Figures"),
    Table(["name", "F1"], [["a|b", "0.500 (0.40–0.60)"]]),
    Table((), [["run", "x"]]),
]


def test_markdown_has_headings_tables_and_pictures():
    assert markdown("T", [*BLOCKS, Picture("plots/a.png", "A")]) == (
        "# T\n\n**It holds.**\n\n## Figures\n\n"
        "| name | F1 |\n| --- | --- |\n| a\\|b | 0.500 (0.40–0.60) |\n\n"
        "|  |  |\n| --- | --- |\n| run | x |\n\n![A](plots/a.png)\n"
    )


MARKUP = st.text("#*_-+=>`[]()!<&;:/.|~\\1ax \n\t@w", min_size=1)
ANY = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1)
STRUCTURE = ["h1", "h2", "p", "p", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "td", "p"]
SPOKEN = {"text", "text_special", "strong_open", "strong_close", "image"}


@settings(max_examples=150, deadline=None)
@given(MARKUP | ANY)
@example(
    "a | b |\n| --- |\n# Heading\n<script>alert(1)</script> [x](javascript:1) ![y](http://z) &lt; www.z.org 1. - ---"
)
def test_markdown_shows_every_text_as_it_was_written_and_takes_none_for_markup(text):
    shown = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text).strip()
    blocks = [Heading(text), Paragraph(text), Paragraph(text, lead=True), Table([text, "b"], [[text, "c"]])]
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])

    tokens = parser.parse(markdown(text, [*blocks, Picture("plots/a.png", text)]))
    if shown:
        assert [spoken(token) for token in tokens if token.type == "inline"] == [*[shown] * 5, "b", shown, "c", shown]
        assert [token.tag for token in tokens if token.nesting == 1] == STRUCTURE


def spoken(token) -> str:
    """What a person reads of it."""
    assert {child.type for child in token.children} <= SPOKEN, token.content
    return "".join(spoken(child) if child.children else child.content for child in token.children)


class Reader(HTMLParser):
    """What a browser would show, and whether every tag is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_html_shows_every_text_as_it_was_written(text):
    reader = Reader()
    reader.feed(html("T", [Heading(text), Paragraph(text), Table([text], [[text]])], Path()))
    reader.close()

    assert reader.open == []
    assert "".join(reader.text).count(text) >= 4


def test_html_holds_its_pictures(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")

    page = html("T", [Picture("a.png", 'a "small" one')], tmp_path)

    assert '<img src="data:image/png;base64,iVBORw==" alt="a &quot;small&quot; one">' in page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((0.5,), "0.500"),
        ((0.5, 0.4, 0.6), "0.500 (0.40–0.60)"),
        ((-0.5, -0.6, 0.1), "−0.500 (−0.60 to 0.10)"),
        ((0.5, None, None), "0.500"),
        ((None, None, None), "–"),
        ((float("inf"),), "–"),
        ((12345,), "12,345"),
        ((True,), "yes"),
        (("a-b",), "a-b"),
    ],
)
def test_a_cell_reads_as_people_write(value, text):
    assert cell(*value) == text


def test_a_figure_and_its_interval_share_a_cell():
    table = {"columns": ["who", "f1", "f1_low", "f1_high", "n_seen"], "rows": [["a", 0.5, 0.4, 0.6, 3]]}

    assert with_intervals(table, {"f1": "F1"}) == Table(["who", "F1", "n seen"], [["a", "0.500 (0.40–0.60)", "3"]])
