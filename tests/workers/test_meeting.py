"""What index 0 leaves beside its lease for the others, and who else can read, guess or replace it."""

import json
import os
import stat

import pytest

from workers import lease, meeting
from workers.meeting import Place

PLACE = Place("secret", 29400, 29401)


def test_the_newest_is_found_older_ones_are_removed_and_only_their_user_can_read_them(tmp_path):
    assert meeting.find(tmp_path / "nowhere") is None
    meeting.announce(tmp_path, 7, Place("old", 1, 2))
    meeting.announce(tmp_path, 12, PLACE)
    assert meeting.find(tmp_path) == PLACE
    assert [path.name for path in tmp_path.iterdir()] == ["000012.meeting"]
    assert stat.S_IMODE((tmp_path / "000012.meeting").stat().st_mode) == 0o600
    assert lease.numbers(tmp_path) == [], "it is no lease"


def test_a_writer_that_wakes_up_late_hides_nobody(tmp_path):
    meeting.announce(tmp_path, 12, PLACE)
    meeting.announce(tmp_path, 7, Place("late", 1, 2))
    assert meeting.find(tmp_path) == PLACE


@pytest.mark.parametrize(
    "text",
    ["", "[" * 5000, "[]", "{}", "x" * 10_000]
    + [
        json.dumps({"token": "t", "store": 1, "hub": 2} | wrong) for wrong in ({"hub": "2"}, {"store": 0}, {"token": 5})
    ],
)
def test_what_is_no_such_file_counts_as_none(tmp_path, text):
    (tmp_path / "000001.meeting").write_text(text)
    assert meeting.find(tmp_path) is None


def test_a_pipe_holds_nobody_and_no_link_is_followed(tmp_path):
    os.mkfifo(tmp_path / "000001.meeting")
    assert meeting.find(tmp_path) is None
    meeting.announce(tmp_path / ".", 3, PLACE)
    (tmp_path / "000004.meeting").symlink_to(tmp_path / "000003.meeting")
    with pytest.raises(OSError, match="symbolic links"):
        meeting.find(tmp_path)


def test_proofs_differ_by_who_shows_them_and_tell_nothing_of_the_token():
    proofs = {PLACE.proof(who) for who in ("hub", "store", "member 1", "member 2")}
    assert len(proofs) == 4
    assert not any("secret" in proof for proof in proofs)
    assert PLACE.is_proof("hub", PLACE.proof("hub"))
    assert not any(PLACE.is_proof("hub", shown) for shown in (PLACE.proof("store"), "", None, 5, "ü", ["hub"]))


def test_a_held_port_is_nobody_elses_whether_somebody_listens_there_or_not():
    held = meeting.hold("127.77.1.2", 29400)
    try:
        assert _next_free(held) > held.getsockname()[1]
        meeting.listen(held.fileno(), 1)
        assert _next_free(held) > held.getsockname()[1]
        meeting.hang_up(held)
        assert _next_free(held) > held.getsockname()[1]
        meeting.listen(held.fileno(), 1)
    finally:
        held.close()


def _next_free(held):
    host, port = held.getsockname()
    with meeting.hold(host, port) as other:
        return other.getsockname()[1]
