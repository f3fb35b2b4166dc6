"""What users get wrong: one clear sentence, the right exit status, and nothing is started."""

import pytest

from jobctl.cli import submission

TRAIN = ("submit", "train", "--name", "x", "--data", "datasets/x")

# ruff: noqa: E501 - one mistake a line
# what is typed → exit status, and what the sentence must say
TYPED = {
    "an unknown command": (("sumbit",), 2, "There is no command 'sumbit' (did you mean 'submit'?)"),
    "an unknown option": (("submit", "--relicas", "2"), 2, "No such option '--relicas'. (Did you mean one of: '--fresh', '--replace', '--replicas'?)"),
    "no kind and no file": (("submit",), 2, "Say what to run: a kind (collect, train or eval), or a file with -f."),
    "an unknown kind": (("submit", "trian"), 2, "kind is 'trian' (did you mean 'train'?)"),
    "an unknown profile": ((*TRAIN, "--gpu", "a100g"), 2, "there is no profile 'a100g' (did you mean 'a10g' or 'a100'?)"),
    "an unknown task": ((*TRAIN, "--task", "predicter"), 2, "task is 'predicter' (did you mean 'predictor'?)"),
    "an unknown setting": ((*TRAIN, "--set", "stpes=4"), 2, "settings has no key 'stpes' (did you mean 'steps'?)"),
    "an unknown key": ((*TRAIN, "--set", "replcas=4"), 2, "a spec has no key 'replcas' (did you mean 'replicas'?)"),
    "an assignment without =": ((*TRAIN, "--set", "steps"), 2, "is no assignment"),
    "a setting out of bounds": ((*TRAIN, "--set", "steps=0"), 2, "settings.steps is 0: it must be at least 1."),
    "planned as a number": ((*TRAIN, "--set", "planned=5"), 2, "planned is 5: it must be a mapping."),
    "no replicas": ((*TRAIN, "--replicas", "0"), 2, "replicas is 0: it must be at least 1."),
    "replicas that are no number": ((*TRAIN, "--replicas", "two"), 2, "'two' is not a valid integer"),
    "a name that is no DNS label": ((*TRAIN[:2], "--name", "My_Run"), 2, "name is 'My_Run', which is no DNS label"),
    "a file that is nested too deeply": (("submit", "-f", "deep.yaml"), 2, "levels"),
    "a missing file": (("submit", "-f", "nowhere.yaml"), 2, "nowhere.yaml can't be read: No such file or directory."),
    "a file that is not YAML": (("submit", "-f", "broken.yaml"), 2, "broken.yaml is not YAML that jobctl can read: line 2"),
    "two documents of one name": (("submit", "-f", "twins.yaml"), 2, "both have the name 'x': each job needs its own."),
    "one name for two documents": (("submit", "-f", "pair.yaml", "--name", "x"), 2, "pair.yaml has 2 documents: --name is for one"),
    "a kind beside a file of another": (("submit", "eval", "-f", "train.yaml"), 2, "leave eval out of the command"),
    "eval of nothing": (("submit", "eval", "--data", "d"), 2, "from is missing"),
    "a field that the local backend refuses": (
        (*TRAIN, "--set", "secretEnv={TOKEN: {secret: s, key: k}}"), 5, "secretKeyRef",
    ),
    "an unknown backend": (("list", "--backend", "locl"), 2, "There is no backend 'locl' (did you mean 'local'?)."),
    "no cluster at all": ((*TRAIN, "--backend", "kubernetes"), 2, "--backend local"),
    "an unknown job": (("status", "nobody"), 3, "There is no job 'nobody'"),
    "results of an unknown job": (("results", "nobody"), 3, "There is no job 'nobody'"),
    "a name that is a path": (("status", "../x"), 3, "There is no job '../x'"),
    "an unknown format": (("list", "-o", "xml"), 2, "'xml' is not one of"),
    "an unknown shell": (("completion", "csh"), 2, "'csh' is not one of"),
    "a negative timeout": (("wait", "x", "--timeout", "-1"), 2, "-1"),
}  # fmt: skip


@pytest.fixture
def files(tmp_path):
    (tmp_path / "broken.yaml").write_text("kind: [train\n")
    (tmp_path / "deep.yaml").write_text("{kind: train, name: x, env: " + "[" * 500 + "]" * 500 + "}")
    (tmp_path / "train.yaml").write_text("{kind: train, name: x, data: d}")
    (tmp_path / "twins.yaml").write_text("{kind: train, name: x, data: d}\n---\n{kind: train, name: x, data: e}\n")
    (tmp_path / "pair.yaml").write_text("{kind: train, name: a, data: d}\n---\n{kind: train, name: b, data: e}\n")


@pytest.mark.parametrize("mistake", TYPED)
def test_a_mistake_is_one_sentence_with_its_exit_status_and_starts_nothing(mistake, files, jobctl, backend, home):
    arguments, status, sentence = TYPED[mistake]
    said = jobctl(*arguments)
    assert said.status == status
    assert said.error.startswith("error: ") and len(said.error.splitlines()) == 1
    assert sentence in said.error
    assert said.out == ""
    assert "Traceback" not in said.err
    assert backend.records() == [] and not (home / "volumes").exists()


def test_a_later_document_s_mistake_is_found_before_the_first_is_started(tmp_path, jobctl, backend):
    (tmp_path / "s.yaml").write_text("{kind: collect, name: a}\n---\n{kind: train, name: b, data: d, gpu: h1}\n")
    assert jobctl("submit", "-f", "s.yaml").status == 2
    (tmp_path / "s.yaml").write_text(
        "{kind: collect, name: a}\n---\n{kind: train, name: b, data: d, secretEnv: {T: {secret: s, key: k}}}\n"
    )
    assert jobctl("submit", "-f", "s.yaml").status == 5
    assert backend.records() == []


def test_debug_shows_the_traceback_wherever_it_stands(jobctl):
    for arguments in (("--debug", "status", "nobody"), ("status", "nobody", "--debug")):
        said = jobctl(*arguments)
        assert said.status == 3
        assert "Traceback" in said.err and "error: There is no job" in said.err


def test_a_configured_cluster_is_never_answered_by_this_machine(jobctl, tmp_path, monkeypatch, backend):
    (tmp_path / "config").write_text(
        "{current-context: prod, contexts: [{name: prod, context: {cluster: c}}], "
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9'}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    said = jobctl(*TRAIN)
    assert (said.status, "https://127.0.0.1:9" in said.error, "--backend local" in said.error) == (4, True, True)
    assert backend.records() == []


def test_keys_differ_by_their_dotted_paths():
    old = {"a": 1, "b": {"c": 2, "d": [1]}, "e": None}
    new = {"a": 1, "b": {"c": 3, "d": [2]}, "f": {"g": 1}}
    assert submission.differing_keys(old, new) == ["b.c", "b.d", "f"]
