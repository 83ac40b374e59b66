"""The acceptor keeps the rules of docs/quorum.md, whose numbers the tests name."""

from dataclasses import replace

import pytest

from tests.sim.toywal import CLUSTER, SEGMENT, START
from tests.unit.quorum_world import (
    FIRST,
    answers,
    append,
    elected,
    finish,
    new_acceptor,
    vote,
    wal_at,
    with_log,
)
from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.errors import IdentityRefused, LogDamaged, MessageRefused
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import AppendReply, HistoryFile, VoteReply
from walproxy.quorum.state import Cluster
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn

WAL = wal_at(START)
END = START + len(WAL)
SECOND = FIRST.with_entry(2, 1, END)


def the_reply(acceptor: Acceptor) -> VoteReply:
    (reply,) = answers(acceptor)
    assert isinstance(reply, VoteReply)
    return reply


def the_append_reply(acceptor: Acceptor) -> AppendReply:
    (reply,) = answers(acceptor)
    assert isinstance(reply, AppendReply)
    return reply


def following(*, term: int = 1) -> Acceptor:
    """An acceptor that has taken the Elected of an empty log."""
    acceptor = new_acceptor()
    acceptor.on_elected("b", elected(term, START, TermHistory.of([(term, 1, START)])), now_s=0.0)
    finish(acceptor)
    return acceptor


# --- rules 1 and 2: identity ---


def test_another_generation_is_refused_rule_1() -> None:
    acceptor = with_log()
    other = replace(vote(9), generation=2)

    with pytest.raises(MessageRefused, match="generation"):
        acceptor.on_vote_request("b", other, now_s=0.0)

    assert acceptor.ready() is None


def test_a_greeting_is_answered_with_the_own_position_rule_2() -> None:
    acceptor = with_log(end=END)

    acceptor.on_greeting("b", new_acceptor("b").greeting())

    (reply,) = answers(acceptor)
    assert reply == acceptor.greeting()
    assert acceptor.greeting().flush_lsn == END


def test_the_node_id_of_a_peer_is_remembered_on_disk_rule_2() -> None:
    acceptor = with_log()

    acceptor.on_greeting("b", new_acceptor("b").greeting())

    work = finish(acceptor)
    assert work.control is not None
    assert dict(work.control.peer_ids) == {"b": b"b"}


def test_a_peer_that_lost_its_disk_is_refused_rule_2() -> None:
    acceptor = with_log()
    acceptor.on_greeting("b", new_acceptor("b").greeting())
    finish(acceptor)

    with pytest.raises(IdentityRefused, match="lost its disk"):
        acceptor.on_greeting("b", replace(new_acceptor("b").greeting(), node_id=b"new"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "c"}, "another name"),
        ({"membership": Membership(1, ("a", "b"))}, "other members"),
        ({"cluster": Cluster(8, SEGMENT, 18)}, "another cluster"),
    ],
)
def test_a_peer_that_is_not_who_it_should_be_is_refused_rule_2(change: dict[str, object], why: str) -> None:
    acceptor = with_log()
    greeting = replace(new_acceptor("b").greeting(), **change)  # type: ignore[arg-type]

    with pytest.raises(IdentityRefused, match=why):
        acceptor.on_greeting("b", greeting)


def test_a_stranger_is_refused_rule_2() -> None:
    acceptor = with_log()
    greeting = replace(new_acceptor("b").greeting(), name="x")

    with pytest.raises(IdentityRefused, match="not a member"):
        acceptor.on_greeting("x", greeting)


# --- rules 3 to 7: votes ---


def test_a_vote_is_durable_before_it_leaves_rule_3() -> None:
    acceptor = with_log()

    acceptor.on_vote_request("b", vote(2, 1, START), now_s=0.0)

    work = finish(acceptor)
    assert work.control is not None
    assert (work.control.term, work.control.voted_for) == (2, "b")
    ((to, reply),) = work.answers
    assert isinstance(reply, VoteReply)
    assert (to, reply.is_granted, reply.term) == ("b", True, 2)


def test_there_is_one_vote_a_term_rule_3() -> None:
    acceptor = with_log()
    acceptor.on_vote_request("b", vote(2, 1, START), now_s=0.0)
    finish(acceptor)

    acceptor.on_vote_request("c", vote(2, 1, START), now_s=0.0)
    refused = the_reply(acceptor)
    acceptor.on_vote_request("b", vote(2, 1, START), now_s=0.0)
    again = the_reply(acceptor)

    assert not refused.is_granted
    assert again.is_granted


def test_a_vote_survives_a_restart_rule_3() -> None:
    acceptor = with_log()
    acceptor.on_vote_request("b", vote(2, 1, START), now_s=0.0)
    saved = finish(acceptor).control
    assert saved is not None

    reborn = new_acceptor(state=saved, end=START)
    reborn.on_vote_request("c", vote(2, 1, START), now_s=0.0)

    assert not the_reply(reborn).is_granted


def test_a_term_learned_from_its_proposer_has_no_vote_left_rule_3() -> None:
    acceptor = following(term=3)

    acceptor.on_vote_request("c", vote(3, 3, START), now_s=9.0)

    assert not the_reply(acceptor).is_granted


def test_a_past_term_gets_no_vote_rule_3() -> None:
    acceptor = following(term=3)

    acceptor.on_vote_request("c", vote(2, 9, START + 999), now_s=9.0)

    assert the_reply(acceptor).why == "term is past"


def test_a_pre_vote_changes_nothing_rule_4() -> None:
    acceptor = with_log()
    before = acceptor.state

    acceptor.on_vote_request("b", vote(2, 1, START, is_pre=True), now_s=0.0)

    work = finish(acceptor)
    assert work.control is None
    assert acceptor.state == before
    assert isinstance(work.answers[0][1], VoteReply)
    assert work.answers[0][1].is_granted


@pytest.mark.parametrize(("silence_s", "is_granted"), [(0.9, False), (1.1, True)])
def test_a_pre_vote_is_refused_while_a_proposer_is_heard_rule_4(silence_s: float, is_granted: bool) -> None:
    acceptor = following()

    acceptor.on_vote_request("c", vote(2, 1, START, is_pre=True), now_s=silence_s)

    assert the_reply(acceptor).is_granted is is_granted


def test_a_lost_connection_to_the_proposer_is_silence_rule_4() -> None:
    acceptor = following()

    acceptor.on_leader_lost("b")
    acceptor.on_vote_request("c", vote(2, 1, START, is_pre=True), now_s=0.1)

    assert the_reply(acceptor).is_granted


def test_a_log_that_ends_at_the_start_of_a_term_holds_it_rule_5() -> None:
    acceptor = with_log(history=SECOND, end=END)

    assert acceptor.last_log_term == 2


def test_a_log_that_ends_before_the_start_of_a_term_does_not_hold_it_rule_5() -> None:
    acceptor = with_log(history=SECOND, end=END - 1)

    assert acceptor.last_log_term == 1


def test_wal_is_flushed_before_a_vote_leaves_rule_6() -> None:
    acceptor = following()

    acceptor.on_append("b", append(1, START, WAL), now_s=0.0)
    acceptor.on_vote_request("c", vote(2, 1, END), now_s=9.0)

    work = finish(acceptor)
    assert [write.wal for write in work.wal] == [WAL]
    reply = work.answers[0][1]
    assert isinstance(reply, VoteReply)
    assert (reply.is_granted, reply.flush_lsn) == (True, END)


@pytest.mark.parametrize(
    ("last_log_term", "flush", "is_granted"),
    [(1, END - 1, False), (1, END, True), (1, END + 1, True), (0, END + 9, False), (2, START, True)],
)
def test_a_vote_goes_to_no_log_that_is_behind_rule_7(
    last_log_term: int, flush: int, is_granted: bool
) -> None:
    acceptor = with_log(end=END)

    acceptor.on_vote_request("b", vote(5, last_log_term, flush), now_s=0.0)

    reply = the_reply(acceptor)
    assert reply.is_granted is is_granted
    assert acceptor.state.term == (5 if is_granted else 1)


# --- rules 8 to 10: one log ---


def test_the_first_elected_begins_the_log_rules_8_and_15() -> None:
    acceptor = new_acceptor()

    acceptor.on_elected("b", elected(1, START, FIRST), now_s=0.0)

    work = finish(acceptor)
    assert work.new_log is not None
    assert (work.new_log.start_lsn, work.new_log.cluster) == (START, CLUSTER)
    assert work.control is not None
    assert work.control.must_create
    assert work.control_after_cut is not None
    assert not work.control_after_cut.must_create
    assert work.control_after_cut.log_start_lsn == START


def test_elected_of_a_past_term_is_told_the_own_term_rule_8() -> None:
    acceptor = following(term=3)

    acceptor.on_elected("c", elected(2, START, TermHistory.of([(2, 1, START)])), now_s=0.0)

    reply = the_append_reply(acceptor)
    assert reply.term == 3


def test_two_histories_of_one_term_are_refused_rule_8() -> None:
    acceptor = following(term=1)

    with pytest.raises(MessageRefused, match="two histories"):
        acceptor.on_elected("c", elected(1, START, TermHistory.of([(1, 1, START + 8)])), now_s=0.0)


def test_elected_for_another_common_point_is_refused_rule_10() -> None:
    acceptor = with_log(end=END)

    with pytest.raises(MessageRefused, match="another end"):
        acceptor.on_elected("b", elected(2, START, SECOND), now_s=0.0)

    assert acceptor.ready() is None


def test_what_diverged_is_cut_and_announced_first_rule_10() -> None:
    more = wal_at(END, prev=START)
    acceptor = with_log(history=FIRST.with_entry(2, 1, END), end=END + len(more))
    third = FIRST.with_entry(3, 1, END)

    acceptor.on_elected("c", elected(3, END, third), now_s=0.0)

    work = finish(acceptor)
    assert work.cut_to_lsn == END
    assert work.control is not None
    assert (work.control.truncating_to_lsn, work.control.term_history) == (END, third)
    assert work.control_after_cut is not None
    assert work.control_after_cut.truncating_to_lsn == INVALID_LSN
    assert acceptor.write_lsn == acceptor.durable_flush_lsn == END


def test_wal_that_was_not_written_yet_is_cut_too_rule_10() -> None:
    acceptor = following()
    more = wal_at(END, prev=START)
    acceptor.on_append("b", append(1, START, WAL + more), now_s=0.0)

    common = Lsn(END + len(more))
    with pytest.raises(MessageRefused, match="another end"):
        acceptor.on_elected("c", elected(2, common, SECOND), now_s=0.0)
    acceptor.on_elected("c", elected(2, END, SECOND), now_s=0.0)

    # What the proposer of term 1 sent after END never gets to the disk.
    work = finish(acceptor)
    assert [write.wal for write in work.wal] == [WAL]
    assert work.cut_to_lsn is None


def test_a_cut_below_the_commit_lsn_is_refused_rule_10() -> None:
    acceptor = with_log(end=END, commit=END)

    with pytest.raises(MessageRefused, match="committed"):
        acceptor.on_elected("b", elected(2, START, TermHistory.of([(1, 1, START), (2, 1, START)])), now_s=0.0)

    assert acceptor.ready() is None


def test_a_log_with_nothing_in_common_is_begun_anew_if_nothing_of_it_is_committed_rule_10() -> None:
    acceptor = with_log(end=END)

    acceptor.on_elected("b", elected(2, START, TermHistory.of([(2, 1, START)])), now_s=0.0)

    work = finish(acceptor)
    assert work.new_log is not None
    assert acceptor.write_lsn == START


def test_a_start_with_a_cut_announced_takes_it_back_rule_10() -> None:
    state = replace(with_log(history=SECOND).state, truncating_to_lsn=Lsn(END))

    acceptor = new_acceptor(state=state, end=Lsn(END))

    work = finish(acceptor)
    assert work.control is not None
    assert work.control.truncating_to_lsn == INVALID_LSN


# --- rules 11 and 21: appends ---


def test_wal_is_answered_when_it_is_synced_rules_11_and_22() -> None:
    acceptor = following()

    acceptor.on_append("b", append(1, START, WAL), now_s=0.0)

    assert acceptor.durable_flush_lsn == START
    work = finish(acceptor)
    assert [(write.lsn, write.wal, write.tli) for write in work.wal] == [(START, WAL, 1)]
    assert work.answers == (("b", work.answers[0][1]),)
    assert acceptor.durable_flush_lsn == END


def test_many_appends_are_one_piece_of_work_rule_22() -> None:
    acceptor = following()
    more = wal_at(END, prev=START)

    acceptor.on_append("b", append(1, START, WAL), now_s=0.0)
    acceptor.on_append("b", append(1, END, more), now_s=0.0)

    work = finish(acceptor)
    assert [write.lsn for write in work.wal] == [START, END]
    (reply,) = [message for _, message in work.answers]
    assert isinstance(reply, AppendReply)
    assert reply.flush_lsn == END + len(more)


@pytest.mark.parametrize("offset", [-1, 1])
@pytest.mark.parametrize("wal", [WAL, b""])
def test_a_gap_or_an_overlap_is_refused_rule_11(offset: int, wal: bytes) -> None:
    acceptor = following()

    with pytest.raises(MessageRefused, match="not at the end"):
        acceptor.on_append("b", append(1, START + offset, wal), now_s=0.0)

    assert acceptor.ready() is None


def test_an_append_before_its_elected_is_refused_rule_11() -> None:
    acceptor = following()
    acceptor.on_vote_request("c", vote(2, 1, START), now_s=9.0)
    finish(acceptor)

    with pytest.raises(MessageRefused, match="before elected"):
        acceptor.on_append("c", append(2, START, WAL), now_s=9.0)


def test_an_append_of_a_past_term_is_not_taken_rule_11() -> None:
    acceptor = following(term=3)

    acceptor.on_append("c", append(2, START, WAL), now_s=0.0)

    reply = the_append_reply(acceptor)
    assert reply.term == 3
    assert acceptor.write_lsn == START


def test_damaged_wal_is_refused_and_the_log_waits_for_an_elected_rule_11() -> None:
    acceptor = following()
    damaged = bytes([*WAL[:-1], WAL[-1] ^ 1])

    with pytest.raises(MessageRefused, match="damaged"):
        acceptor.on_append("b", append(1, START, damaged), now_s=0.0)
    with pytest.raises(MessageRefused, match="before elected"):
        acceptor.on_append("b", append(1, START, WAL), now_s=0.0)
    acceptor.on_elected("b", elected(1, START, FIRST), now_s=0.0)
    acceptor.on_append("b", append(1, START, WAL), now_s=0.0)

    assert [write.wal for write in finish(acceptor).wal] == [WAL]


def test_a_part_of_a_record_does_not_count_rule_21() -> None:
    acceptor = following()

    acceptor.on_append("b", append(1, START, WAL[:-1]), now_s=0.0)

    reply = the_append_reply(acceptor)
    assert (reply.flush_lsn, reply.write_lsn) == (START, END - 1)


def test_a_part_of_a_record_is_cut_by_the_next_elected_rule_21() -> None:
    acceptor = following()
    acceptor.on_append("b", append(1, START, WAL[:-1]), now_s=0.0)
    finish(acceptor)

    acceptor.on_elected("b", elected(1, START, FIRST), now_s=0.0)

    assert finish(acceptor).cut_to_lsn == START
    assert acceptor.write_lsn == START


# --- rules 12, 13: commit ---


def test_an_acceptor_that_only_voted_does_not_count_rule_12() -> None:
    acceptor = following()
    acceptor.on_vote_request("c", vote(2, 1, START), now_s=9.0)
    finish(acceptor)

    acceptor.on_append("b", append(1, START, WAL), now_s=9.0)

    reply = the_append_reply(acceptor)
    assert (reply.term, reply.flush_lsn) == (2, INVALID_LSN)


def test_the_commit_lsn_waits_for_the_own_disk_rule_13() -> None:
    acceptor = following()

    acceptor.on_append("b", append(1, START, WAL, commit=END + 999), now_s=0.0)
    assert acceptor.commit_lsn == START
    finish(acceptor)

    assert acceptor.commit_lsn == END


def test_the_commit_lsn_never_goes_back_rule_13() -> None:
    acceptor = following()
    acceptor.on_append("b", append(1, START, WAL, commit=END), now_s=0.0)
    finish(acceptor)

    acceptor.on_append("b", append(1, END, commit=START), now_s=0.0)

    assert acceptor.commit_lsn == END


def test_a_cut_in_the_meantime_holds_the_commit_lsn_down_rule_13() -> None:
    acceptor = following()
    acceptor.on_append("b", append(1, START, WAL), now_s=0.0)
    work = acceptor.ready()
    assert work is not None
    second = TermHistory.of([(1, 1, START), (2, 1, START)])

    # The sync is under way when a new proposer cuts it all, and says that its own WAL there is committed.
    acceptor.on_elected("c", elected(2, START, second, commit=END), now_s=0.0)
    acceptor.on_done(work)

    assert acceptor.commit_lsn == START


@pytest.mark.parametrize(("later_s", "answers_owed"), [(0.05, 0), (0.15, 1)])
def test_not_every_heartbeat_is_answered_rule_14(later_s: float, answers_owed: int) -> None:
    acceptor = following()
    acceptor.on_append("b", append(1, START), now_s=1.0)
    finish(acceptor)

    acceptor.on_append("b", append(1, START), now_s=1.0 + later_s)

    work = acceptor.ready()
    assert len(work.answers if work else ()) == answers_owed


# --- rules 17, 18, 24 ---


def test_a_history_file_is_kept_once_rule_17() -> None:
    acceptor = following()

    acceptor.on_history("b", HistoryFile(1, 1, 2, b"1\t0/2000\tpromoted\n"))
    acceptor.on_history("b", HistoryFile(1, 1, 2, b"1\t0/2000\tpromoted\n"))

    assert finish(acceptor).histories == ((2, b"1\t0/2000\tpromoted\n"),)


def test_wal_of_a_timeline_that_was_not_announced_is_refused_rule_17() -> None:
    acceptor = following()

    with pytest.raises(MessageRefused, match="not announced"):
        acceptor.on_append("b", append(1, START, WAL, tli=2), now_s=1.0)

    assert acceptor.write_lsn == START


def test_the_horizon_is_taken_from_the_proposer_rule_18() -> None:
    acceptor = following()

    acceptor.on_append("b", append(1, START, horizon=START - 5), now_s=0.0)

    assert acceptor.horizon_lsn == START - 5


def test_a_log_that_ends_below_the_commit_lsn_is_damaged_rule_24() -> None:
    state = with_log(end=END, commit=END).state

    with pytest.raises(LogDamaged):
        new_acceptor(state=state, end=START)


def test_the_commit_lsn_is_saved_once_a_segment_rule_24() -> None:
    acceptor = following()
    wal = wal_at(START, count=80)
    assert len(wal) > SEGMENT
    acceptor.on_append("b", append(1, START, commit=START), now_s=0.0)
    assert finish(acceptor).control is not None
    acceptor.on_append("b", append(1, START, wal[: SEGMENT - 1], commit=START + len(wal)), now_s=1.0)
    assert finish(acceptor).control is None
    acceptor.on_append("b", append(1, START + SEGMENT - 1, wal[SEGMENT - 1 :]), now_s=1.0)
    assert finish(acceptor).control is None

    acceptor.on_append("b", append(1, START + len(wal)), now_s=2.0)

    work = finish(acceptor)
    assert work.control is not None
    assert work.control.commit_lsn == START + len(wal)


def test_wal_that_does_not_fit_the_disk_is_refused_and_room_is_taken_again_rule_18() -> None:
    acceptor = with_log()
    acceptor.on_elected("b", elected(2, START, FIRST.with_entry(2, 1, START)), 0.0)
    finish(acceptor)
    wal = wal_at(START)
    acceptor.room_end_lsn = Lsn(START + len(wal) - 1)

    with pytest.raises(MessageRefused, match="full"):
        acceptor.on_append("b", append(2, START, wal), 0.0)
    assert acceptor.write_lsn == START

    acceptor.room_end_lsn = Lsn(START + len(wal))
    acceptor.on_append("b", append(2, START, wal), 0.0)
    assert finish(acceptor).flush_lsn == START + len(wal)


def test_a_restart_reads_from_the_commit_lsn_that_is_on_disk_rule_24() -> None:
    acceptor = with_log(commit=START)
    acceptor.on_elected("b", elected(2, START, FIRST.with_entry(2, 1, START)), 0.0)
    finish(acceptor)
    wal = wal_at(START)
    acceptor.on_append("b", append(2, START, wal), 0.0)
    finish(acceptor)

    acceptor.on_commit(Lsn(START + len(wal)))

    assert acceptor.commit_lsn == START + len(wal)
    assert acceptor.restart_lsn == START


def test_the_history_file_of_a_switch_that_came_to_nothing_is_replaced_rule_17() -> None:
    acceptor = following()
    acceptor.on_history("b", HistoryFile(1, 1, 2, b"1\t0/1\tnever came\n"))
    assert finish(acceptor).histories == ((2, b"1\t0/1\tnever came\n"),)

    acceptor.on_history("b", HistoryFile(1, 1, 2, b"1\t0/2\tcame\n"))
    assert finish(acceptor).histories == ((2, b"1\t0/2\tcame\n"),)
    acceptor.on_history("b", HistoryFile(1, 1, 2, b"1\t0/2\tcame\n"))
    assert acceptor.ready() is None
