"""What may be asked for, and what is said about the rest. No Helm runs here."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobctl.errors import UsageError
from jobctl.schema import read_defaults, read_schema
from jobctl.spec import read_specs, validate

NOWHERE = {"HOME": "/nonexistent"}
TRAIN = {"kind": "train", "name": "x"}


def test_the_shortest_spec_has_every_default():
    spec = validate({"kind": "train"})
    assert (spec.name, spec.kind, spec.task, spec.gpu, spec.replicas, spec.gpus_per_replica) == (
        "train",
        "train",
        "predictor",
        "cpu",
        1,
        1,
    )
    assert (spec.preset, spec.data, spec.from_run, spec.claim, spec.settings) == (
        "balanced",
        "datasets/train",
        None,
        "shared",
        {},
    )


def test_numbers_given_as_text_are_numbers():
    spec = validate(TRAIN | {"replicas": "2", "settings": {"lr": "1e-4", "steps": "500"}})
    assert (spec.replicas, spec.settings) == (2, {"lr": 0.0001, "steps": 500})
    assert spec.asked["replicas"] == "2"


REFUSED = [
    ({"kind": "trian"}, "kind is 'trian' (did you mean 'train'?)."),
    ({"name": "no-kind"}, "kind is missing: collect, train or eval."),
    (TRAIN | {"gpu": "a1000"}, "there is no profile 'a1000' (did you mean 'a100' or 'a10g'?)."),
    (TRAIN | {"task": "predicter"}, "task is 'predicter' (did you mean 'predictor'?)."),
    (TRAIN | {"settings": {"stepz": 5}}, "settings has no key 'stepz' (did you mean 'steps'?)."),
    (TRAIN | {"replica": 5}, "a spec has no key 'replica' (did you mean 'replicas' or 'gpusPerReplica'?)."),
    (TRAIN | {"steps": 5}, "a spec has no key 'steps': it is a setting, write settings.steps."),
    (TRAIN | {"settings": {"steps": "5.0"}}, "settings.steps is '5.0': it must be a whole number."),
    (TRAIN | {"checkpoint": {"every": 5}}, "checkpoint has no key 'every' (known: everySeconds, keep)."),
    (TRAIN | {"global": {}}, "a spec has no key 'global'"),
    (TRAIN | {"replicas": 0}, "replicas is 0: it must be at least 1."),
    (TRAIN | {"replicas": "0"}, "replicas is 0: it must be at least 1."),
    (TRAIN | {"replicas": 1.5}, "replicas is 1.5: it must be a whole number."),
    (TRAIN | {"replicas": "many"}, "replicas is 'many': it must be a whole number."),
    (TRAIN | {"settings": {"lr": "fast"}}, "settings.lr is 'fast': it must be a number."),
    (TRAIN | {"settings": {"lr": 0}}, "settings.lr is 0: it must be more than 0."),
    (TRAIN | {"settings": {"lr": "11"}}, "settings.lr is 11.0: it must be at most 10."),
    (TRAIN | {"settings": {"model": "huge"}}, "settings.model is 'huge' (known: large, medium, small)."),
    (TRAIN | {"settings": [1]}, "settings is [1]: it must be a mapping."),
    (TRAIN | {"retry": 3}, "retry is 3: it must be a mapping."),
    (TRAIN | {"allowCpu": "yes"}, "allowCpu is 'yes': it must be true or false."),
    (TRAIN | {"data": "/mnt/d"}, "data is '/mnt/d': a path on the volume, such as datasets/salus"),
    (TRAIN | {"data": "../d"}, "data is '../d': a path on the volume"),
    (TRAIN | {"name": "My_Run"}, "name is 'My_Run', which is no DNS label"),
    (TRAIN | {"name": "a" * 51}, "has 51 characters: at most 50"),
    (TRAIN | {"name": 5}, "name is 5, which is no DNS label"),
    (TRAIN | {"name": "1x", "replicas": 2}, "name '1x' begins with a digit"),
    (TRAIN | {"gates": {"f1": 0.5}}, "gates have no meaning for train"),
    (TRAIN | {"env": {"A-B": "1"}}, "env: 'A-B' can't be a name there: a variable's name"),
    (TRAIN | {"env": {"A": [1]}}, "env.A is [1]: it must be text or null."),
    (TRAIN | {"env": {"A": 7.13e55}}, "env.A is 7.13e+55, which is no text: put it in quotes."),
    (TRAIN | {"pod": {"labels": {"a": True}}}, "pod.labels.a is true, which is no text"),
    (TRAIN | {"scheduling": {"tolerations": [{"value": 5}]}}, "which is no text: put it in quotes."),
    (TRAIN | {"env": {"A": "x\0"}}, "env.A holds U+0000"),
    (TRAIN | {"env": {"A": "\ud83d"}}, "env.A holds U+D83D"),
    (TRAIN | {"image": "\udcff"}, "image holds U+DCFF"),
    (TRAIN | {"pod": {"annotations": {"\udcff": "x"}}}, "pod.annotations has a key that holds U+DCFF"),
    (TRAIN | {"env": {"A": "x" * 131_070}}, "env.A has 131073 bytes"),
    (TRAIN | {"env": {"A": "🚀" * 32_768}}, "env.A has 131075 bytes"),
    (TRAIN | {"env": {f"A{n}": "x" * 131_000 for n in range(9)}}, "env has 1179036 bytes in all"),
    (TRAIN | {"pod": {"annotations": {f"a{n}": "x" * 200_000 for n in range(2)}}}, "pod.annotations have 400004 bytes"),
    (TRAIN | {"env": {"JOBCTL_VOLUME": "/"}}, "env.JOBCTL_VOLUME can't be set"),
    (TRAIN | {"env": {"JOB_COMPLETION_INDEX": "5"}}, "env.JOB_COMPLETION_INDEX can't be set"),
    (TRAIN | {"secretEnv": {"JOBCTL_STORE": {"secret": "s", "key": "k"}}}, "secretEnv.JOBCTL_STORE can't be set"),
    (TRAIN | {"pod": {"labels": {"a": "x y"}}}, "pod.labels.a is 'x y': a label's value; at most 63"),
    (TRAIN | {"pod": {"labels": {"a": "x" * 64}}}, "at most 63"),
    (TRAIN | {"pod": {"labels": {"a/b/c": "x"}}}, "pod.labels: 'a/b/c' can't be a name there: NAME or PREFIX/NAME"),
    (TRAIN | {"pod": {"annotations": {"-a": "x"}}}, "pod.annotations: '-a' can't be a name there"),
    (TRAIN | {"scheduling": {"nodeSelector": {"a": "ä"}}}, "scheduling.nodeSelector.a is 'ä': a label's value"),
    (TRAIN | {"scheduling": {"queue": "q" * 64}}, "at most 63"),
    (TRAIN | {"volume": {"claim": "a..b"}}, "volume.claim is 'a..b': the name of an object of Kubernetes"),
    (TRAIN | {"image": "my image"}, "image is 'my image': the worker's image; printable ASCII without spaces."),
    (TRAIN | {"secretEnv": {"A": {"secret": "s", "key": ".."}}}, "secretEnv.A.key is '..': a key of a Secret"),
    (TRAIN | {"secretEnv": {"A": {"secret": "s"}}}, "secretEnv.A lacks the key 'key'."),
    (
        TRAIN | {"env": {"A": "1"}, "secretEnv": {"A": {"secret": "s", "key": "k"}}},
        "A stands in both env and secretEnv",
    ),
    (TRAIN | {"resources": {"shm": "lots"}}, "resources.shm is 'lots': a quantity of Kubernetes"),
    (TRAIN | {"pod": {"runAsUser": 0}}, "pod.runAsUser is 0: it must be at least 1."),
    (TRAIN | {"apiVersion": "v2"}, "apiVersion is 'v2' (known: jobctl/v1)."),
    ({"kind": "eval"}, "from is missing: eval judges the weights of a run"),
    ({"kind": "collect", "from": "r"}, "from has no meaning for collect"),
    ({"kind": "collect", "data": "runs/other"}, "data is 'runs/other', but collect writes below datasets/ only"),
    ({"kind": "collect", "data": "datasets"}, "data is 'datasets', but collect writes below datasets/ only"),
    ({"kind": "collect", "settings": {"lr": 1}}, "settings has no key 'lr'"),
]


@pytest.mark.parametrize(("asked", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_a_bad_spec_is_refused_with_one_sentence(asked, sentence):
    with pytest.raises(UsageError) as caught:
        validate(asked, "spec.yaml")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("spec.yaml: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 2


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(
    asked=st.dictionaries(st.sampled_from([*read_defaults(), "name", "other"]), anything, max_size=4),
    kind=st.booleans(),
)
def test_whatever_is_asked_for_is_a_job_or_a_usage_error(asked, kind):
    asked |= {"kind": "train"} if kind else {}
    try:
        spec = validate(asked)
    except UsageError as error:
        assert str(error).startswith("the spec: ")
    else:
        assert (spec.name, spec.replicas >= 1, spec.claim != "") == (asked.get("name") or "train", True, True)


def test_every_problem_is_said_at_once():
    with pytest.raises(UsageError) as caught:
        validate(TRAIN | {"replicas": 0, "gpu": "h100", "settings": {"stepz": 1}})
    assert len(str(caught.value).splitlines()) == 3


def test_every_key_of_the_schema_has_a_default_in_values():
    assert set(read_schema()["properties"]) - {"global"} == set(read_defaults())


def test_defaults_of_the_chart_are_valid():
    defaults = read_defaults() | {"kind": "train"}
    assert validate(defaults).full == defaults | {"name": "train"}


def test_documents_of_a_file_become_specs_in_order(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("kind: collect\nname: a\n---\nkind: train\nname: b\ndata: datasets/a\n")
    assert [(spec.name, spec.kind, spec.data) for spec in read_specs(file, environ=NOWHERE)] == [
        ("a", "collect", "datasets/a"),
        ("b", "train", "datasets/a"),
    ]


def test_two_documents_of_one_name_are_refused(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("kind: collect\nname: a\n---\nkind: train\nname: a\n")
    with pytest.raises(UsageError, match=r"document 1 and .*document 2 both have the name 'a'"):
        read_specs(file, environ=NOWHERE)


def test_a_problem_names_its_document(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("kind: collect\nname: a\n---\nkind: train\nname: b\nreplicas: 0\n")
    with pytest.raises(UsageError, match=r"spec\.yaml, document 2: replicas is 0"):
        read_specs(file, environ=NOWHERE)


def test_later_layers_win_and_mappings_are_merged(tmp_path):
    (tmp_path / "jobctl.yaml").write_text("gpu: a10g\nreplicas: 8\nsettings: {steps: 1, batch: 8, seed: 1}\n")
    file = tmp_path / "spec.yaml"
    file.write_text("kind: train\nname: a\nsettings: {steps: 2, batch: 16, seed: 2}\nreplicas: 4\n")
    (spec,) = read_specs(
        file, flags={"replicas": 2, "settings": {"batch": 32}}, assignments=["settings.seed=3"], environ=NOWHERE
    )
    assert (spec.gpu, spec.replicas, spec.settings) == ("a10g", 2, {"steps": 2, "batch": 32, "seed": 3})


def test_a_bare_name_in_set_is_a_setting_where_only_a_setting_has_it():
    (spec,) = read_specs(None, kind="train", assignments=["steps=400", "replicas=2"], environ=NOWHERE)
    assert (spec.settings, spec.replicas) == ({"steps": 400}, 2)
    with pytest.raises(UsageError, match=r"a spec has no key 'replics'.*did you mean 'replicas'"):
        read_specs(None, kind="train", assignments=["replics=2"], environ=NOWHERE)


def test_texts_are_what_was_typed_in_every_layer(tmp_path):
    typed = "{A: 7130e52, B: 0012345, C: 1.10, D: 1234567890123456789, E: 10:30:00, F: yes}"
    expected = {"A": "7130e52", "B": "0012345", "C": "1.10", "D": "1234567890123456789", "E": "10:30:00", "F": "yes"}
    (tmp_path / "jobctl.yaml").write_text(f"pod: {{annotations: {typed}}}\nvolume: {{claim: 1e3}}\n")
    file = tmp_path / "spec.yaml"
    file.write_text(
        f"kind: train\nname: 1e3\nenv: {typed}\nimage: 1.10\nfrom: 010\ndata: 2026-01-01\n"
        f"scheduling: {{tolerations: [{{key: on, value: 0x1}}], queue: 5}}\nsettings: {{steps: 500, lr: 1e-4}}\n"
        "resources: {requests: {cpu: 010, memory: 12345678901234567890}, shm: 1e9}\n"
    )
    sets = [f"pod.labels.{name}={value}" for name, value in expected.items() if ":" not in value]
    (spec,) = read_specs(file, assignments=[*sets, "env.G=", "env.H=a # b", "env.I={a: 1}"], environ=NOWHERE)
    assert spec.asked == {
        "kind": "train",
        "name": "1e3",
        "env": expected | {"G": "", "H": "a # b", "I": "{a: 1}"},
        "pod": {"annotations": expected, "labels": {n: value for n, value in expected.items() if n != "E"}},
        "volume": {"claim": "1e3"},
        "image": "1.10",
        "from": "010",
        "data": "2026-01-01",
        "scheduling": {"tolerations": [{"key": "on", "value": "0x1"}], "queue": "5"},
        "settings": {"steps": 500, "lr": 0.0001},
        "resources": {"requests": {"cpu": "010", "memory": "12345678901234567890"}, "shm": "1e9"},
    }


def test_a_kind_that_contradicts_the_file_is_refused(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text("kind: collect\nname: a\n")
    with pytest.raises(UsageError, match=r"is a collect job, not train: leave train out"):
        read_specs(file, kind="train", environ=NOWHERE)


def test_checking_settings_imports_neither_torch_nor_the_workers():
    code = (
        "import sys; from jobctl.spec import validate; validate({'kind': 'train', 'settings': {'lr': 0.1}});"
        "print([name for name in ('torch', 'workers', 'pydantic', 'kubernetes', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
