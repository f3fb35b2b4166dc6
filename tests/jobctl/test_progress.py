"""How far a run is, whatever its lines hold and whatever the clocks did."""

from hypothesis import given
from hypothesis import strategies as st

from jobctl.cli.document import progress_document, progress_text
from jobctl.progress import progress_of

ODD = st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=3)
LINES = st.dictionaries(st.sampled_from(["time", "step", "steps", "episodes", "loss", "x"]), ODD | st.lists(ODD))


@given(st.lists(st.lists(LINES, max_size=4), max_size=3), st.integers(1, 3))
def test_no_line_breaks_it_nor_its_text(tails, indexes):
    for kind in ("train", "collect", "odd"):
        progress_text(progress_document(progress_of(tails, indexes)), kind)


def lines(*moments: tuple[float, int]) -> list[dict]:
    return [{"time": time, "step": step, "steps": 100} for time, step in moments]


def test_a_clock_that_was_set_back_leaves_the_rate_since():
    progress = progress_of([lines((1000.0, 10), (1002.0, 14), (402.0, 18), (404.0, 20))])
    assert progress is not None
    assert (progress.step, progress.steps_per_second, progress.eta_seconds) == (20, 1.0, 80.0)


def test_a_loop_that_began_again_leaves_the_rate_since():
    progress = progress_of([lines((1.0, 10), (2.0, 50), (3.0, 20), (4.0, 22))])
    assert progress is not None and progress.steps_per_second == 2.0


def test_no_rate_is_made_of_one_moment():
    for moments in ([(5.0, 10)], [(5.0, 10), (5.0, 12)], [(5.0, 10), (4.0, 12)]):
        progress = progress_of([lines(*moments)])
        assert progress is not None and (progress.steps_per_second, progress.eta_seconds) == (None, None)
