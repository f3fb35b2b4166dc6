"""A cluster that is away is said once, waited for, and given up in the end."""

import pytest

from jobctl.errors import UnreachableError
from jobctl.patience import Patience


def test_a_cluster_that_comes_back_is_said_once_to_be_away_and_once_to_be_back():
    said: list[str] = []
    patience = Patience(said.append)
    patience.answered()
    for _ in range(3):
        patience.failed(UnreachableError("It does not answer."))
    patience.answered()
    patience.answered()
    assert said == ["It does not answer. Waiting for it to come back.", "It answers again, after 0 s."]


def test_one_that_stays_away_is_given_up():
    patience = Patience(lambda text: None, seconds=-1)
    patience.failed(UnreachableError("first"))
    with pytest.raises(UnreachableError, match="second"):
        patience.failed(UnreachableError("second"))
