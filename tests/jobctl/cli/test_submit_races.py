"""Several people submit under one name at the same moment: one starts the job, the others are told what is so."""

from __future__ import annotations

import pytest

from jobctl.local.backend import LocalBackend

SLOW = ("--data", "datasets/x", "--set", "env.FAKE_STEPS=600", "--set", "env.FAKE_STEP_SECONDS=0.1")
TRIES = 20


@pytest.fixture
def at_once(program):
    """Start these commands together; (exit status, what was said) of each."""

    def run(*commands: tuple[str, ...]) -> list[tuple[int, str]]:
        started = [program(*command) for command in commands]
        said = [process.communicate(timeout=120) for process in started]
        return [(one.returncode, out + err) for one, (out, err) in zip(started, said, strict=True)]

    return run


@pytest.mark.timeout(300)
def test_one_of_two_submits_starts_the_job_and_the_other_says_so(at_once, home, backend):
    for number in range(TRIES):
        submit = ("submit", "train", "--name", f"x{number}", *SLOW)
        is_same = number % 2 == 0
        said = at_once((*submit, "--set", "steps=7"), (*submit, "--set", "steps=7" if is_same else "steps=8"))
        (winner,) = (at for at, (_, words) in enumerate(said) if "submitted as revision 1" in words)
        status, words = said[1 - winner]
        expected = (0, "already running") if is_same else (2, "is taken by another spec")
        assert (said[winner][0], status, expected[1] in words) == (0, expected[0], True), said
        steps = backend.record(f"x{number}").values["settings"]["steps"]
        assert steps == (7 if is_same else 7 + winner)
        assert len(list(home.glob(f"local/x{number}/r*"))) == 1
        backend.delete(f"x{number}")


@pytest.fixture
def overtaken(program, monkeypatch):
    """Have this command run to its end just before the next submission of this process reaches the backend."""

    def by(*command: str) -> None:
        submit = LocalBackend.submit

        def late(self: LocalBackend, release: object) -> int:
            monkeypatch.setattr(LocalBackend, "submit", submit)
            out, err = (process := program(*command)).communicate(timeout=60)
            assert (process.returncode, "revision" in out) == (0, True), err
            return submit(self, release)

        monkeypatch.setattr(LocalBackend, "submit", late)

    return by


X = ("submit", "train", "--name", "x", *SLOW)
# what is there; who comes first; who comes second; the exit status and words of the second; the revision that is left
RACES = {
    "a new name": (None, X, X, 0, "x: already running: nothing to do.", 1),
    "a new name, another spec": (None, (*X, "--set", "steps=7"), X, 2, "settings.steps", 1),
    "a new name, another spec with --replace": (None, (*X, "--set", "steps=7"), (*X, "--replace"), 2, "--replace", 1),
    "the same replacement": (X, (*X, "--set", "steps=7", "--replace"), (*X, "--set", "steps=7", "--replace"),
                             0, "x: already running", 2),
    "another replacement": (X, (*X, "--set", "steps=7", "--replace"), (*X, "--set", "steps=8", "--replace"),
                            2, "settings.steps", 2),
    "anew": (X, (*X, "--fresh"), (*X, "--fresh"), 0, "x: already running", 2),
}  # fmt: skip


@pytest.mark.parametrize("case", RACES)
def test_who_is_overtaken_looks_again_and_replaces_nothing_that_was_not_seen(case, jobctl, overtaken, home, backend):
    before, first, second, status, words, revision = RACES[case]
    if before:
        jobctl(*before)
    overtaken(*first)
    said = jobctl(*second)
    assert (said.status, words in said.out + said.err) == (status, True), said
    assert backend.record("x").revision == revision
    assert len(list(home.glob("local/x/r*"))) == revision


def test_a_retry_that_is_overtaken_finds_the_job_started_again(jobctl, overtaken, backend):
    jobctl(*X)
    jobctl("suspend", "x")
    overtaken("retry", "x")
    said = jobctl("retry", "x")
    assert (said.status, "already: nothing to do" in said.out, backend.record("x").revision) == (0, True, 2), said
