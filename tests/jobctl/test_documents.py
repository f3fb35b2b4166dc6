"""Reading YAML, assignments and a team's defaults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl import documents
from jobctl.errors import UsageError


def test_several_documents_are_read_in_order_and_empty_ones_left_out():
    assert documents.parse("---\na: 1\n---\n---\nb: 2\n", "s") == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: [1\n", r"line 3, column 1"),
        ("a: 1\nb: 2\na: 3\n", r"line 3, column 1: the key 'a' stands there twice"),
        ("s: {x: 1, x: 2}", r"line 1, column 11: the key 'x' stands there twice"),
        ("a: !!python/object:os.system {}", r"line 1, column 4: could not determine a constructor"),
        ("- a\n- b\n", r"document 1 is a list, but a spec is a mapping"),
        ("a: 1\n---\njust text\n", r"document 2 is a text, but a spec is a mapping"),
        ("1: a\n", r"the key 1 .*is no text: put it in quotes"),
        ("a: {b: .nan}\n", r"a\.b is nan: it must be a finite number"),
        ("a: \x00\n", r"not YAML that jobctl can read"),
        ("a: " + "[" * 100_000, r"more than 50 levels"),
        ("a: &a [*a]\n", r"aliases make more levels"),
        (
            "a: &a [1]\nb: &b [*a, *a]\n"
            + "".join(f"{c}: &{c} [{', '.join([f'*{p}'] * 50)}]\n" for p, c in ("bc", "cd", "de")),
            r"aliases make more",
        ),
        ("a: !!int x\n", r"line 1, column 4: 'x' is no int"),
        ("a: !!set {b}\n", r"line 1, column 4: could not determine a constructor"),
        ("a: " + "9" * 5000 + "\n", r"9… *' is no int"),
        ("? [a]\n: 1\n", r"a key is no text but a list or a mapping"),
        ("a: {<<: {? [a] : 1}}\n", r"a key is no text but a list or a mapping"),
        ("a: {<<: {1: 1}}\n", r"the key 1 is no text"),
        ("a: {<<: 1}\n", r"expected a mapping"),
        ('{"a": "\\\\ud83d", "b": ' + '{"c": ' * 5000 + "1" + "}" * 5001, r"levels"),
    ],
)
def test_what_is_no_spec_is_refused_with_its_place(text, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        documents.parse(text, "spec.yaml")
    assert str(caught.value).startswith("spec.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.yaml can't be read: No such file"):
        documents.read(tmp_path / "gone.yaml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="no text in UTF-8"):
        documents.read(tmp_path / "binary")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(UsageError, match="holds no document"):
        documents.read(tmp_path / "empty.yaml")
    with pytest.raises(UsageError, match="can't be read: Is a directory"):
        documents.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("settings.lr=1e-4", {"settings": {"lr": 0.0001}}),
        ("settings.lr=0.0001", {"settings": {"lr": 0.0001}}),
        ("replicas=2", {"replicas": 2}),
        ("allowCpu=true", {"allowCpu": True}),
        ("image=host/x:1.0", {"image": "host/x:1.0"}),
        ("data=null", {"data": None}),
        ("env.A='5'", {"env": {"A": "5"}}),
        ("env.URL=a=b", {"env": {"URL": "a=b"}}),
        ("settings.weights=[1, 0.5]", {"settings": {"weights": [1, 0.5]}}),
        (r"scheduling.nodeSelector.a\.b/c=d", {"scheduling": {"nodeSelector": {"a.b/c": "d"}}}),
        ("env.DAY=2026-01-02", {"env": {"DAY": "2026-01-02"}}),
    ],
)
def test_an_assignment_is_a_path_and_a_yaml_value(text, expected):
    assert documents.assignment(text) == expected


TYPED = [
    "7130e52",
    "0012345",
    "1.10",
    "1234567890123456789",
    "10:30:00",
    "yes",
    "0x10",
    "2026-01-01",
    "1_000",
    ".inf",
    "<<",
]


@pytest.mark.parametrize("typed", TYPED)
def test_where_text_is_meant_a_plain_scalar_is_what_was_typed(typed):
    def is_text(path):
        return path[:-1] in [("env",), ("env", "L")]

    assert documents.parse(f"env: {{A: {typed}, x{typed}: y, L: [{typed}]}}", "s", is_text) == [
        {"env": {"A": typed, f"x{typed}": "y", "L": [typed]}}
    ]
    if typed != "<<":
        assert documents.parse(f"env: {{{typed}: y}}", "s", is_text) == [{"env": {typed: "y"}}]
    assert documents.assignment(f"env.A={typed}", is_text) == {"env": {"A": typed}}
    assert documents.assignment(f"env={{A: {typed}}}", is_text) == {"env": {"A": typed}}


@pytest.mark.parametrize("value", ["", "a # b", "{a: 1}", "[1", "'5'", '"x', "a: b", " x ", "~", "\n", "&a", "a=b"])
def test_an_assigned_text_is_all_that_stands_behind_the_sign(value):
    assert documents.assignment(f"env.A={value}", lambda path: True) == {"env": {"A": value}}


def test_null_is_null_also_where_text_is_meant():
    assert documents.parse("{a: null, b: ~, c: , d: 'null'}", "s", lambda path: True) == [
        {"a": None, "b": None, "c": None, "d": "null"}
    ]
    assert documents.assignment("env.A=null", lambda path: True) == {"env": {"A": None}}


def test_a_mapping_that_is_merged_twice_is_no_duplicate():
    text = "x: &b {<<: {p: 1}, q: 2}\ny: *b\nz: {<<: *b, q: 3}\n"
    assert documents.parse(text, "s") == [{"x": {"p": 1, "q": 2}, "y": {"p": 1, "q": 2}, "z": {"p": 1, "q": 3}}]


@pytest.mark.parametrize("text", ["settings.lr", "=1", "a..b=1", ".a=1", "a=[1", "a=1\nb: 2"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(UsageError, match="--set"):
        documents.assignment(text)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_survives_an_assignment(number):
    assert documents.assignment(f"a={number!r}") == {"a": number}


trees = st.recursive(
    st.integers() | st.none(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=6
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


@given(a=mappings, b=mappings, c=mappings)
def test_merging_is_associative_and_has_an_empty_layer(a, b, c):
    assert documents.merge(a, {}) == a == documents.merge({}, a)
    one_way, other_way = documents.merge(documents.merge(a, b), c), documents.merge(a, documents.merge(b, c))
    if not clashes(a, b, c):
        assert one_way == other_way


def clashes(*layers):
    """Whether a key is a mapping in one layer and a single value in another: then the order of merging decides."""
    keys = {key for layer in layers for key in layer}
    for key in keys:
        found = [layer[key] for layer in layers if key in layer]
        kinds = {isinstance(value, dict) for value in found}
        if len(kinds) > 1 or (kinds == {True} and clashes(*found)):
            return True
    return False


def test_team_defaults_are_the_users_file_and_the_one_beside_the_spec(tmp_path):
    user = tmp_path / "config" / "jobctl"
    user.mkdir(parents=True)
    (user / "jobctl.yaml").write_text("gpu: a10g\nscheduling: {queue: team, spot: true}\n")
    beside = tmp_path / "work"
    beside.mkdir()
    (beside / "jobctl.yaml").write_text("scheduling: {spot: false}\n")
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert documents.team_files(beside, environ) == [
        (user / "jobctl.yaml", {"gpu": "a10g", "scheduling": {"queue": "team", "spot": True}}),
        (beside / "jobctl.yaml", {"scheduling": {"spot": False}}),
    ]
    assert documents.team_files(tmp_path, {"HOME": str(tmp_path)}) == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("gpu: a\n---\ngpu: b\n", "holds 2 documents"), ("name: x\n", "sets name, which belongs to one job")],
)
def test_team_defaults_that_are_a_spec_are_refused(tmp_path, text, sentence):
    (tmp_path / "jobctl.yaml").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        documents.team_files(tmp_path, {"HOME": "/nonexistent"})
