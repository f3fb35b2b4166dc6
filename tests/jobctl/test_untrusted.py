"""Stored and received JSON is read within bounds; accessors give a value only where it has the type asked for."""

import json
import math
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobctl.untrusted import (
    MOST_DEPTH,
    UnreadableError,
    at,
    mapping,
    mappings,
    number,
    open_below,
    parse,
    parse_object,
    read_object,
    split_lines,
    text,
    whole,
)

PLAIN = st.none() | st.booleans() | st.integers(-(2**127), 2**127) | st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(PLAIN | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=12)
STEPS = st.lists(st.integers(-3, 3) | st.sampled_from(["a", "b"]), max_size=3)


@given(VALUES)
def test_a_document_is_read_as_it_was_written(value):
    assert parse(json.dumps(value)) == value


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.text(st.characters(), max_size=60))
@example("[" * 4000)
@example("[" * 4000 + "]" * 4000)
@example('{"a":' * 900 + "1" + "}" * 900)
@example("9" * 400)
@example("9" * 5000)
@example("-1e999")
@example("[NaN, -Infinity]")
@example('{"\\ud800": "\\udc00x"}')
@example(b"\xff\xfe")
def test_whatever_is_there_is_either_no_document_or_one_that_can_be_written_again(data):
    try:
        value = parse(data)
    except UnreadableError as error:
        assert str(error).startswith("it is ")
        return
    encoded = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    assert parse(encoded) == value


def test_what_json_has_not_is_absent():
    assert parse('[NaN, Infinity, 1e999, ' + "9" * 400 + ', 1, 0.5, "\\ud83d\\ude80\\ud800"]') == [
        None, None, None, None, 1, 0.5, "🚀\ufffd",
    ]  # fmt: skip


def test_depth_and_size_have_an_end():
    fits = "[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1)
    assert isinstance(parse(fits), list)
    for data in ("[" + "[" * MOST_DEPTH + "]" * MOST_DEPTH + "]", '"' + "x" * 100 + '"'):
        with pytest.raises(UnreadableError):
            parse(data, most_bytes=100 if "x" in data else 10_000)
    with pytest.raises(UnreadableError):
        parse_object("[1]")


@pytest.mark.parametrize("part", ["[]", "{}", "0"])
def test_a_document_of_very_many_parts_is_not_taken_apart(part):
    data = "[" + ",".join([part] * 400_000) + "]"
    with pytest.raises(UnreadableError, match="parts"):
        parse(data.encode(), most_bytes=len(data))


@given(VALUES, STEPS)
def test_accessors_raise_for_no_value(value, path):
    found = at(value, *path)
    assert isinstance(mapping(value, *path), dict)
    assert all(isinstance(one, dict) for one in mappings(value, *path))
    assert text(value, *path) in (None, found)
    assert whole(value, *path) is None or isinstance(whole(value, *path), int)
    assert number(value, *path) is None or math.isfinite(float(found))


def test_numbers_written_as_text_are_whole_where_they_are_digits():
    assert [whole(written) for written in ("7", "007", "²", "-1", "1.0", "", "9" * 19, True, 3.0, 3)] == [
        7, 7, None, None, None, None, None, None, None, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("part", ["", ".", "..", "a/b", "/etc/passwd", "a\0b"])
def test_no_part_of_a_path_leads_elsewhere(part, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_text("{}")
    for parts in ((part,), ("a", part), (part, "b")):
        with pytest.raises(OSError):
            open_below(tmp_path, parts)


def test_a_link_is_followed_to_the_root_and_nowhere_below(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text('{"a": 1}')
    (tmp_path / "root").symlink_to("real")
    assert read_object(tmp_path / "root", "file") == {"a": 1}
    (tmp_path / "real" / "link").symlink_to("file")
    (tmp_path / "real" / "up").symlink_to("..")
    for parts in (("link",), ("up", "real", "file")):
        with pytest.raises(UnreadableError, match="link"):
            read_object(tmp_path / "root", *parts)


def test_a_pipe_holds_no_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableError, match="no regular file"):
        read_object(tmp_path, "pipe")


@given(st.lists(st.binary(max_size=20), max_size=6))
def test_lines_of_chunks_are_those_of_the_whole(chunks):
    data = b"".join(chunks)
    assert list(split_lines(chunks)) == data.removesuffix(b"\n").split(b"\n") if data else [] == []
    assert b"".join(split_lines(chunks, most_bytes=3)) == data.replace(b"\n", b"")


def test_a_line_without_an_end_comes_in_pieces():
    endless = (b"x" * 1000 for _ in range(10_000))
    first = next(split_lines(endless, most_bytes=4000))
    assert first == b"x" * 4000
