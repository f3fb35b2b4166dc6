"""submit, render, and what submitting again means. Pods run fake_worker.py, everything else is real."""

import json

import yaml
from held import hold_at

from jobctl.backend import Release
from jobctl.local.backend import LocalBackend

TRAIN = ("train", "--name", "x", "--data", "datasets/x")


def fails(code: int, *more: str) -> tuple[str, ...]:
    return (*TRAIN, "--set", f"env.FAKE_EXIT={code}", *more)


def test_submit_wait_shows_the_job_to_its_end_and_succeeds(jobctl):
    said = jobctl("submit", *TRAIN, "--wait")
    lines = said.out.splitlines()
    assert said.status == 0
    assert lines[0] == "x: submitted as revision 1 (3 objects)."
    assert lines[-2:] == ["x: succeeded: done", "next: jobctl results x"]


def test_submit_wait_of_a_job_that_fails_has_exit_status_1_and_says_why(jobctl):
    said = jobctl("submit", *fails(65, "--set", "env.FAKE_REASON=episode 7 is damaged"), "--wait")
    assert said.status == 1
    assert "x: failed: bad data: episode 7 is damaged" in said.out


def test_render_prints_exactly_what_submit_sends(jobctl, backend, monkeypatch):
    sent: list[Release] = []
    monkeypatch.setattr(LocalBackend, "submit", lambda self, release: sent.append(release))
    rendered = jobctl("render", *TRAIN, "--set", "lr=1e-4")
    assert jobctl("submit", *TRAIN, "--set", "lr=1e-4").status == 0
    assert list(yaml.safe_load_all(rendered.out)) == sent[0].manifest
    assert rendered.status == 0


def test_render_of_a_job_that_exists_is_its_next_revision(jobctl):
    jobctl("submit", *TRAIN, "--wait")
    documents = list(yaml.safe_load_all(jobctl("render", *TRAIN, "--set", "lr=1e-4").out))
    assert [d["metadata"]["name"] for d in documents if d["kind"] == "Job"] == ["x-r2"]


def test_render_needs_no_cluster(jobctl, monkeypatch):
    monkeypatch.setenv("JOBCTL_BACKEND", "kubernetes")
    said = jobctl("render", *TRAIN)
    assert (said.status, said.err) == (0, "backend: kubernetes\n")
    assert len(list(yaml.safe_load_all(said.out))) == 3


def test_render_without_the_cluster_that_is_configured_is_a_first_revision_and_tells_a_mistake_alone(
    jobctl, tmp_path, monkeypatch
):
    (tmp_path / "kubeconfig").write_text(
        "{current-context: prod, contexts: [{name: prod, context: {cluster: c, user: u}}], "
        "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:9'}}], users: [{name: u, user: {}}]}"
    )
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    said = jobctl("render", *TRAIN)
    assert (said.status, len(list(yaml.safe_load_all(said.out)))) == (0, 3)
    assert said.err.startswith("rendered as a first revision: ") and "https://127.0.0.1:9" in said.err
    said = jobctl("render", *TRAIN, "--set", "settings.stpes=5")
    assert (said.status, said.out) == (2, "")
    assert said.err == "error: the command line: settings has no key 'stpes' (did you mean 'steps'?).\n"


def test_flags_and_a_file_with_the_same_keys_give_the_same_objects(jobctl, tmp_path):
    spec = {
        "kind": "train", "name": "x", "data": "datasets/x", "gpu": "a10g", "allowCpu": True, "replicas": 2,
        "image": "registry/worker:1", "preset": "aggressive", "from": "older", "settings": {"steps": 40, "lr": 1e-4},
        "checkpoint": {"keep": 5},
    }  # fmt: skip
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    flags = (
        *TRAIN, "--gpu", "a10g", "--allow-cpu", "--replicas", "2", "--image", "registry/worker:1",
        "--preset", "aggressive", "--from", "older", "--set", "steps=40",
        "--set", "settings.lr=0.0001", "--set", "checkpoint.keep=5",
    )  # fmt: skip
    by_flags = jobctl("render", *flags)
    assert by_flags.status == 0
    assert by_flags.out == jobctl("render", "-f", "spec.yaml").out


def test_every_key_of_a_spec_is_taken_by_set_as_it_is(jobctl):
    assert jobctl("render", *TRAIN, "--set", "checkpoint.everySeconds=5").status == 0
    assert jobctl("render", "collect", "--set", "gates.episodes=12").status == 0


def test_a_dry_run_checks_everything_and_starts_nothing(jobctl, backend):
    said = jobctl("submit", *TRAIN, "--dry-run")
    assert (said.status, said.out) == (0, "x: would be started as revision 1 (3 objects).\n")
    assert backend.records() == []


def test_the_same_spec_again_while_it_runs_or_when_it_is_done_does_nothing(jobctl, backend):
    jobctl("submit", *TRAIN, hold_at(2))
    again = jobctl("submit", *TRAIN, hold_at(2))
    assert (again.status, again.out.splitlines()[0]) == (0, "x: already running: nothing to do.")
    jobctl("submit", *TRAIN[:2], "y", *TRAIN[3:], "--wait")
    again = jobctl("submit", *TRAIN[:2], "y", *TRAIN[3:], "--wait")
    assert (again.status, "y: already done: nothing to do." in again.out) == (0, True)
    assert [record.revision for record in backend.records()] == [1, 1]


def test_the_same_spec_again_after_a_failure_is_a_new_revision(jobctl, backend):
    assert jobctl("submit", *fails(64), "--wait").status == 1
    again = jobctl("submit", *fails(64), "--wait")
    assert (again.status, again.out.splitlines()[0]) == (1, "x: submitted as revision 2 (3 objects).")
    assert backend.record("x").revision == 2


def test_another_spec_under_a_taken_name_is_refused_naming_the_keys_that_differ(jobctl, backend):
    jobctl("submit", *TRAIN, "--wait")
    said = jobctl("submit", *TRAIN, "--set", "steps=7", "--set", "checkpoint.keep=9")
    assert (said.status, said.out) == (2, "")
    assert said.error == (
        "error: The name x is taken by another spec (they differ in checkpoint.keep, settings.steps): choose another "
        "--name, or say --replace to go on under this name with the new spec."
    )
    assert backend.record("x").revision == 1


def test_replace_lets_the_name_go_on_with_another_spec(jobctl, backend):
    jobctl("submit", *TRAIN, "--wait")
    assert jobctl("submit", *TRAIN, "--set", "steps=7", "--replace", "--wait").status == 0
    assert backend.record("x").revision == 2


def test_a_float_given_as_text_or_number_is_the_same_spec(jobctl):
    jobctl("submit", *TRAIN, "--set", "lr=0.0001", "--wait")
    assert "already done" in jobctl("submit", *TRAIN, "--set", "lr='1e-4'").out


def test_fresh_starts_a_done_job_anew_with_a_new_token_and_the_same_hash(jobctl, backend):
    jobctl("submit", *TRAIN, "--wait")
    first = backend.record("x")
    assert jobctl("submit", *TRAIN, "--fresh", "--wait").status == 0
    assert jobctl("submit", *TRAIN, "--fresh", "--wait").status == 0
    third = backend.record("x")
    labels = [record.job["metadata"]["labels"]["jobctl.dev/spec-hash"] for record in (first, third)]
    assert (first.values["planned"].get("freshToken"), third.revision) == (None, 3)
    assert len(third.values["planned"]["freshToken"]) == 16
    assert labels[0] == labels[1]


def test_a_job_without_a_name_is_called_after_kind_and_task_or_its_file(jobctl, tmp_path):
    assert jobctl("submit", "train", "--data", "d", "--dry-run").out.startswith("train-predictor: ")
    (tmp_path / "My Run_2.yaml").write_text("kind: train\ndata: d\n")
    assert jobctl("submit", "-f", "My Run_2.yaml", "--dry-run").out.startswith("my-run-2: ")
    assert jobctl("submit", "-f", "My Run_2.yaml", "--dry-run", "--name", "z").out.startswith("z: ")


SEQUENCE = """
{kind: collect, name: one}
---
{kind: train, name: two, data: datasets/one, env: {FAKE_EXIT_ONCE: "%d"}}
---
{kind: eval, name: three, data: datasets/one, from: two}
"""


def test_documents_run_in_order_and_a_failed_one_stops_them_until_the_same_command_continues(jobctl, tmp_path, backend):
    (tmp_path / "all.yaml").write_text(SEQUENCE % 65)
    first = jobctl("submit", "-f", "all.yaml", "--wait")
    assert first.status == 1
    assert first.error == "Not started: three. The same command again continues."
    assert [record.name for record in backend.records()] == ["one", "two"]

    second = jobctl("submit", "-f", "all.yaml", "--wait")
    assert second.status == 0
    assert second.out.splitlines()[0] == "one: already done: nothing to do. `jobctl results one` shows what came out."
    assert {record.name: record.revision for record in backend.records()} == {"one": 1, "two": 2, "three": 1}


def test_without_wait_only_the_last_document_is_left_running(jobctl, tmp_path):
    (tmp_path / "all.yaml").write_text(SEQUENCE % 0)
    said = jobctl("submit", "-f", "all.yaml")
    assert said.status == 0
    states = {job["name"]: job["state"] for job in json.loads(jobctl("list", "-o", "json").out)["jobs"]}
    assert (states["one"], states["two"]) == ("succeeded", "succeeded")
    assert said.out.splitlines()[-1].startswith("`jobctl wait three`")
