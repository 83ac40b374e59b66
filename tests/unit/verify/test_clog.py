"""Which statuses a live transaction may have, read somewhere in a range of WAL."""

import itertools

from pageserver.verify.clog import first_wrong_xid, segments
from tests.unit.verify.pages import changed

EMPTY = bytes(8192)


def status(number: int) -> bytes:
    """A page whose sixth transaction has this status."""
    return changed(EMPTY, 1, bytes([number << 2]))


def test_each_status_is_one_it_had_in_the_range() -> None:
    allowed = {
        (live, before, after)
        for live, before, after in itertools.product(range(4), repeat=3)
        if first_wrong_xid(status(live), status(before), status(after)) is None
    }

    assert allowed == {
        (live, before, after)
        for live, before, after in itertools.product(range(4), repeat=3)
        if live in {before, after} or (live == 3 and after == 1)
    }
    assert first_wrong_xid(status(1), status(0), status(2)) == 5


def test_transactions_end_independently() -> None:
    live = bytes([0b0100]) + bytes(8191)
    before, after = EMPTY, bytes([0b0101]) + bytes(8191)

    assert first_wrong_xid(live, before, after) is None
    assert first_wrong_xid(bytes([0b1000]) + bytes(8191), before, after) == 1


def test_segments_go_by_number() -> None:
    assert segments(["10000", "000A", "0009", "000a", "FFFF.tmp", "12"]) == ["0009", "000A", "10000"]
