"""How values are printed."""

import contextlib
import io
import json

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from jobctl.cli.output import cell_text, duration, emit, fold_intervals, print_figures, print_table, to_yaml

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(DOCUMENTS)
def test_yaml_holds_the_document(document):
    assert yaml.load(to_yaml(document), Loader=yaml.CSafeLoader) == document


@given(st.dictionaries(st.text(), DOCUMENTS))
@example({"last": "a\n\n"})
@example({"last": "a\u0085\u2028\u202e\x1b"})
def test_what_programs_read_is_exact(document):
    for form, read in (("json", json.loads), ("yaml", lambda text: yaml.load(text, Loader=yaml.CSafeLoader))):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            emit(document, form, print)
        assert read(printed.getvalue()) == document


def test_text_of_several_lines_is_a_block():
    assert to_yaml({"config.json": "{\n}\n"}) == "config.json: |\n  {\n  }\n"


@pytest.mark.parametrize("text", ["7130e52", "0o17", "1_000", ".5e3", "+1", "y", "N", "10:30:00", "yes", "~"])
def test_text_that_another_reader_of_yaml_takes_for_something_else_is_in_quotes(text):
    assert to_yaml({"env": text}) == f"env: '{text}'\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (8000, "2 h 13 min"), (200_000, "2 d 7 h")],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert duration(seconds) == text


def test_cells_are_short_and_say_what_is_absent():
    assert [cell_text(value) for value in (None, True, False, 0.123456, 7, "x")] == [
        "–",
        "yes",
        "no",
        "0.1235",
        "7",
        "x",
    ]


def test_a_table_is_not_cut_in_a_pipe_and_numbers_stand_at_the_right(capsys):
    print_table(("name", "figure"), [("a" * 200, 1), ("b", 100)])
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["NAME", "FIGURE"]
    assert out[2] == "a" * 200 + "        1"
    assert out[3] == "b" + " " * 199 + "      100"


def test_markup_in_a_value_is_text(capsys):
    print_table(("name",), [("[red]x[/red]",)])
    assert "[red]x[/red]" in capsys.readouterr().out


def test_intervals_stand_beside_their_value():
    columns = ("name", "f1", "f1_low", "f1_high", "recall", "recall_low")
    assert fold_intervals(columns, [("a", 0.5, 0.4, 0.6, 1, 0), ("b", None, None, None, 1, 0)]) == (
        ["name", "f1", "recall", "recall_low"],
        [["a", "0.5 (0.4 to 0.6)", 1, 0], ["b", None, 1, 0]],
    )


def test_figures_beyond_the_most_are_counted(capsys):
    assert print_figures("FIGURE", {"a": 1, "b": 2, "c": 3}, most=2) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:]] == ["a", "b"]
