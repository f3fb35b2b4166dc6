"""Reading what anybody may have written: within bounds, and either a value of ours or one sentence."""

import contextlib
import json
import pickle

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers import untrusted
from workers.untrusted import CorruptError, parse_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(JSON)
def test_what_workers_write_is_read_as_it_is(value):
    assert parse_json(json.dumps(value).encode()) == value


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text('[]{},:"1e-Na²').map(str.encode))
@example(b"[" * 4000)
@example(b'{"a":' * 4000)
@example(b"1" * 400)
@example(b"1" * 5000)
@example(b"-" + b"9" * 400)
@example(b'"\\ud800"')
def test_anything_else_is_a_value_or_a_value_error(data):
    with contextlib.suppress(ValueError):
        json.dumps(parse_json(data), allow_nan=False).encode()


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
def test_numbers_that_are_none_become_null(text):
    assert parse_json(f"[{text}]".encode()) == [None]


@pytest.mark.parametrize("levels", [untrusted.MAX_JSON_DEPTH, untrusted.MAX_JSON_DEPTH + 1])
def test_json_is_so_deep_and_no_deeper(levels):
    text = b"[" * levels + b"]" * levels
    if levels > untrusted.MAX_JSON_DEPTH:
        with pytest.raises(ValueError, match="deeper than 32 levels"):
            parse_json(text)
    else:
        parse_json(text)


def test_a_record_has_its_fields_each_of_its_type(tmp_path):
    path = tmp_path / "record"
    fields = {"fence": int, "token": (str, type(None))}
    for content, why in (
        ("[]", "it holds no JSON object"),
        ("{}", "it lacks 'fence'"),
        ('{"fence": true, "token": null}', "its 'fence' is of the wrong type"),
        ('{"fence": 1.0, "token": null}', "its 'fence' is of the wrong type"),
        ('{"fence": 1, "token": 2}', "its 'token' is of the wrong type"),
    ):
        path.write_text(content)
        with pytest.raises(CorruptError, match=why):
            untrusted.read_record(path, fields)
    path.write_text('{"fence": 1, "token": null, "more": []}')
    assert untrusted.read_record(path, fields) == {"fence": 1, "token": None, "more": []}
    with pytest.raises(CorruptError, match="it has more than 9 bytes"):
        untrusted.read_record(path, fields, limit=9)


@pytest.mark.parametrize(
    ("text", "number"), [("000012", 12), ("²", None), ("٣", None), ("9" * 400, None), ("-1", None), ("", None)]
)
def test_a_number_in_a_name_is_of_ascii_digits_and_not_too_long(text, number):
    assert untrusted.whole_number(text) == number


def test_what_is_damaged_can_be_told_to_another_process(tmp_path):
    error = pickle.loads(pickle.dumps(CorruptError(tmp_path, "it is gone")))
    assert (str(error), error.path, error.code) == (f"{tmp_path} is damaged: it is gone", tmp_path, 65)
