"""What the native lane is given of an acceptor, and what it gives back. The names tell the rules of docs/quorum.md."""

import pytest

from tests.sim.toywal import START
from tests.unit.quorum_world import FIRST, append, elected, finish, vote, wal_at, with_log
from walproxy.quorum.errors import MessageRefused
from walproxy.quorum.terms import Seal
from walproxy.wire.lsn import Lsn

WAL = wal_at(START)
END = START + len(WAL)


def test_the_lane_is_given_a_log_at_rest_only_rule_22() -> None:
    acceptor = with_log()
    assert acceptor.steady() is None  # No Elected of this run was taken.
    acceptor.on_elected("b", elected(2, START, FIRST.with_entry(2, 1, START)), 0.0)
    assert acceptor.steady() is None
    finish(acceptor)
    assert acceptor.steady() is not None

    acceptor.on_append("b", append(2, START, WAL), 0.0)
    assert acceptor.steady() is None
    work = acceptor.ready()
    assert work is not None
    acceptor.on_done(work)
    assert acceptor.steady() is not None

    acceptor.on_vote_request("c", vote(3, 2, END), 9.0)  # A vote of a term whose Elected is not there yet.
    finish(acceptor)
    assert acceptor.steady() is None


def test_the_lane_leaves_a_timeline_that_is_announced_to_the_core_rule_17() -> None:
    acceptor = with_log()
    acceptor.on_elected("b", elected(2, START, FIRST.with_entry(2, 1, START).with_entry(2, 2, END)), 0.0)
    finish(acceptor)

    assert acceptor.steady() is None

    acceptor.on_append("b", append(2, START, WAL), 0.0)
    finish(acceptor)
    steady = acceptor.steady()
    assert steady is not None
    assert steady.tli == 2


def test_the_lane_is_not_given_a_sealed_log_rule_25() -> None:
    acceptor = with_log()
    open_history = FIRST.with_entry(2, 1, START)
    acceptor.on_elected("b", elected(2, START, open_history), 0.0)
    finish(acceptor)
    assert acceptor.steady() is not None

    acceptor.on_elected("b", elected(3, START, open_history.with_entry(3, 1, START, Seal.SEALED)), 0.0)
    finish(acceptor)
    assert acceptor.steady() is None


def test_what_the_lane_took_is_durable_and_goes_on_where_it_ended_rules_11_and_13() -> None:
    acceptor = with_log(commit=START)
    acceptor.on_elected("b", elected(2, START, FIRST.with_entry(2, 1, START)), 0.0)
    finish(acceptor)
    steady = acceptor.steady()
    assert steady is not None
    steady.scanner.feed(WAL)

    assert acceptor.on_taken(
        Lsn(END), Lsn(END), START, commit_lsn=Lsn(END + 100), horizon_lsn=START, now_s=3.0
    )

    assert acceptor.commit_lsn == acceptor.durable_flush_lsn == acceptor.write_lsn == END
    assert acceptor.hears_leader(3.5)
    assert acceptor.ready() is None
    with pytest.raises(MessageRefused, match="end of the log"):
        acceptor.on_append("b", append(2, START, WAL), 3.0)
    more = wal_at(END, prev=START)
    acceptor.on_append("b", append(2, END, more), 3.0)
    assert finish(acceptor).wal[0].lsn == END

    acceptor.on_damage()
    assert acceptor.steady() is None
    with pytest.raises(MessageRefused, match="before elected"):
        acceptor.on_append("b", append(2, END + len(more), wal_at(END + len(more), prev=END)), 3.0)
