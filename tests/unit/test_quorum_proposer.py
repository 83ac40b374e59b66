"""The proposer keeps the rules of docs/quorum.md, whose numbers the tests name."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.sim.toywal import SEGMENT, START
from tests.unit.quorum_world import FIRST, TRIO, Group, new_acceptor, primary, trio, wal_at, with_log
from walproxy.quorum.errors import MessageRefused, PrimaryRefused
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import (
    Append,
    AppendReply,
    Elected,
    Feedback,
    Greeting,
    HistoryFile,
    SlotHorizon,
    VoteRequest,
)
from walproxy.quorum.role import Role
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn

WAL = wal_at(START)
END = START + len(WAL)


def votes_asked(group: Group, name: str) -> list[VoteRequest]:
    return [m for sender, _, m in group.sent if sender == name and isinstance(m, VoteRequest)]


def commits(group: Group) -> Mapping[str, int]:
    return {name: replica.acceptor.commit_lsn for name, replica in group.replicas.items()}


# --- election ---


def test_a_winner_is_followed_by_all_rules_3_to_8() -> None:
    group = trio()

    winner = group.elect("a")

    assert winner.proposer.term == 1
    assert {replica.leader for replica in group.replicas.values()} == {"a"}
    assert {replica.acceptor.state.term_history for replica in group.replicas.values()} == {FIRST}


def test_it_asks_before_it_stands_rule_4() -> None:
    group = trio()

    group.elect("a")

    assert [request.is_pre for request in votes_asked(group, "a")] == [True, True, False, False]


def test_whoever_hears_a_proposer_lets_nobody_stand_rule_4() -> None:
    group = trio()
    group.elect("a")

    group.replicas["c"].acceptor.on_leader_lost("a")
    group.replicas["c"].proposer.on_leader_lost(1.0, 0.0)
    group.tick("c", at_s=1.5)

    assert group["c"].proposer.role is not Role.PROPOSING
    assert {replica.acceptor.state.term for replica in group.replicas.values()} == {1}
    assert group["a"].is_proposing


def test_a_lost_proposer_is_replaced_without_waiting_rule_4() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"a"}

    for name in ("b", "c"):
        group[name].on_leader_lost("a", 1.0, 0.5)
    group.tick("b", at_s=1.08)

    assert group["b"].is_proposing
    assert group["c"].leader == "b"


def test_a_returning_member_does_not_disturb_rule_4() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"c"}
    for at_s in (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0):
        group.tick("c", "a", at_s=at_s)
    assert votes_asked(group, "c")

    group.silent = set()
    group.tick("a", at_s=5.1)
    group.tick("c", at_s=5.2)

    assert group["a"].is_proposing
    assert group["c"].leader == "a"
    assert group["a"].proposer.term == 1


def test_the_own_vote_is_durable_before_others_are_asked_rule_6() -> None:
    group = trio()
    replica = group["a"]
    replica.proposer.on_primary(primary(), 0.0)
    replica.tick(1.0, 0.5)
    ready = replica.ready(1.0)
    assert ready is not None
    assert ready.disk is not None
    for name in ("b", "c"):
        group[name].on_request("a", VoteRequest(1, 1, True, 0, INVALID_LSN), 1.0)
        answer = group[name].ready(1.0)
        assert answer is not None
        assert answer.disk is not None
        for to, message in group[name].on_done(answer.disk, 1.0, 0.5):
            group[to].on_answer(name, message, 1.0, 0.5)

    replica.on_done(ready.disk, 1.0, 0.5)
    standing = replica.ready(1.0)

    assert replica.proposer.role is Role.STANDING
    assert standing is not None
    assert standing.disk is not None
    assert standing.disk.control is not None
    assert standing.disk.control.voted_for == "a"
    assert not [message for _, message in standing.requests if isinstance(message, VoteRequest)]


def test_a_log_that_is_behind_does_not_win_rule_7() -> None:
    group = Group([with_log("a"), with_log("b", end=END), with_log("c", end=END)])
    group.connect()

    group.tick("a", at_s=1.0)
    assert not group["a"].is_proposing
    group.tick("b", at_s=1.1)

    assert group["b"].is_proposing


def test_the_term_starts_at_the_end_of_the_winners_log_rule_8() -> None:
    group = Group([with_log("a"), with_log("b", end=END), with_log("c")])
    group.wal, group.wal_start = bytearray(WAL), START
    group.connect()

    group.tick("b", at_s=1.0)

    assert group["b"].proposer.term_start_lsn == END
    for replica in group.replicas.values():
        assert replica.acceptor.state.term_history == FIRST.with_entry(2, 1, END)
        assert replica.acceptor.write_lsn == END


def test_without_a_log_nobody_stands_before_the_primary_is_known_rule_15() -> None:
    group = trio()

    group.tick("a", at_s=1.0)

    assert group["a"].proposer.role is Role.FOLLOWING
    assert group["a"].proposer.wants_primary
    assert not votes_asked(group, "a")


def test_one_member_alone_is_a_quorum() -> None:
    group = Group([new_acceptor(membership=Membership(1, ("a",)))])

    group.elect("a", at_s=0.0)
    group.write("a", WAL)

    assert commits(group) == {"a": END}


# --- commit ---


def test_wal_on_a_majority_is_committed_rule_12() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"c"}

    group.write("a", WAL)

    assert group["a"].proposer.commit_lsn == END


def test_wal_on_a_minority_is_not_committed_rule_12() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"b", "c"}

    group.write("a", WAL)

    assert group["a"].proposer.commit_lsn == START


def test_wal_of_an_older_term_alone_is_not_counted_rule_12() -> None:
    group = Group([with_log("a", end=END), with_log("b", end=END), with_log("c")])
    group.wal, group.wal_start = bytearray(WAL), START
    group.connect()
    leader = group["a"].proposer
    group.tick("a", at_s=1.0)
    assert leader.commit_lsn == END, "the quorum has taken the new term: all before it counts"

    stale = AppendReply(1, leader.term, Lsn(END - 8), Lsn(END - 8), INVALID_LSN)
    for peer in leader.peers.values():
        peer.flush_lsn = INVALID_LSN
    leader.commit_lsn = INVALID_LSN
    for name in ("b", "c"):
        leader.on_append_reply(name, stale, 1.0)

    assert leader.commit_lsn == INVALID_LSN


def test_the_commit_lsn_reaches_all_rule_13() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)

    group.tick("a", at_s=1.01)

    assert commits(group) == {"a": END, "b": END, "c": END}


def test_a_commit_lsn_goes_with_the_next_wal_and_needs_no_message_of_its_own() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    group.sent.clear()

    group.write("a", wal_at(END, prev=START))

    appends = [m for _, to, m in group.sent if isinstance(m, Append) and to == "b"]
    assert [append.commit_lsn for append in appends[:1]] == [END]


def test_while_wal_comes_no_message_is_of_a_commit_alone() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    group.now_s = 1.008
    group.write("a", wal_at(END, prev=START))
    group.sent.clear()

    group.tick("a", at_s=1.012)
    early = [message for _, _, message in group.sent if isinstance(message, Append)]
    group.tick("a", at_s=1.03)

    assert early == []
    assert set(commits(group).values()) == {group["a"].proposer.commit_lsn}
    assert group["a"].proposer.commit_lsn > END


# --- keeping the lead ---


def test_a_proposer_without_a_majority_steps_aside_rule_14() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"b", "c"}

    group.tick("a", at_s=1.9)
    assert group["a"].is_proposing
    group.tick("a", at_s=3.1)

    assert not group["a"].is_proposing


def test_a_higher_term_ends_the_lead_rule_14() -> None:
    group = trio()
    group.elect("a")

    group["a"].on_answer("b", AppendReply(1, 7, INVALID_LSN, INVALID_LSN, INVALID_LSN), 1.1, 0.5)

    assert not group["a"].is_proposing


def test_a_silent_group_gets_heartbeats_rule_14() -> None:
    group = trio()
    group.elect("a")
    group.sent.clear()

    group.tick("a", at_s=group["a"].proposer.deadline_s)

    assert [to for _, to, m in group.sent if isinstance(m, Append)] == ["b", "c"]
    assert {m.wal for _, _, m in group.sent if isinstance(m, Append)} == {b""}


def test_little_is_said_to_a_member_that_stands_still_rule_14() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"c"}
    for step in range(400):
        if step == 100:  # 20 s.
            group.sent.clear()
        log = group["a"].acceptor
        group.write("a", wal_at(log.write_lsn, prev=log.last_record_lsn, seed=step))
        group.tick("a", "b", at_s=1.0 + step / 5)

    said = {
        to: sum(isinstance(m, Append) and not m.wal for _, other, m in group.sent if other == to)
        for to in "bc"
    }
    assert group["a"].is_proposing
    assert said["b"] > 200
    assert said["c"] < 40


def test_who_does_not_follow_is_greeted_again_rule_14() -> None:
    group = trio()
    group.silent = {"c"}
    group.elect("a")
    group.silent = set()

    group.tick("a", at_s=1.5)

    assert group["c"].leader == "a"


def test_a_member_that_was_away_catches_up_from_the_proposers_log() -> None:
    group = trio()
    group.elect("a")
    group.silent = {"c"}
    lsn, prev = int(START), 0
    for seed in range(20):
        wal = wal_at(lsn, prev=prev, seed=seed)
        group.write("a", wal)
        lsn, prev = lsn + len(wal), lsn

    group.silent = set()
    group["a"].proposer.on_disconnected("c")
    group["a"].proposer.on_connected("c", 1.0)
    group.settle()

    assert group["c"].acceptor.write_lsn == lsn
    assert commits(group)["c"] == lsn


def test_a_new_member_begins_with_wal_that_nobody_lets_go_rules_15_and_18() -> None:
    group = trio()
    group.elect("a")
    log = group["a"].acceptor
    log.horizon_lsn = Lsn(START + 2 * SEGMENT + 5)
    newcomer = replace(new_acceptor("c").greeting(), flush_lsn=INVALID_LSN)
    group["a"].proposer.on_connected("c", 1.0)
    group.settle()
    group.sent.clear()
    group.silent = {"c"}

    group["a"].proposer.on_greeting("c", newcomer, 1.0)
    group["a"].proposer.peer("c").is_streaming = False
    group["a"].proposer.on_greeting("c", newcomer, 1.0)
    group.settle()

    starts = [m.start_lsn for _, to, m in group.sent if to == "c" and isinstance(m, Elected)]
    assert starts == [START + 2 * SEGMENT]


def test_wal_under_way_to_one_peer_is_bounded() -> None:
    group = trio()
    group["a"].proposer._window_bytes_max = 100
    group.elect("a")
    group.silent = {"c"}
    group.sent.clear()

    lsn, prev = int(START), 0
    for seed in range(20):
        wal = wal_at(lsn, prev=prev, seed=seed)
        group.write("a", wal)
        lsn, prev = lsn + len(wal), lsn

    under_way = sum(len(m.wal) for _, to, m in group.sent if to == "c" and isinstance(m, Append))
    assert under_way <= 100
    assert commits(group)["a"] > START + 100


def test_an_answer_that_is_none_is_refused() -> None:
    group = trio()

    with pytest.raises(MessageRefused):
        group["a"].on_answer("b", VoteRequest(1, 1, True, 0, INVALID_LSN), 0.0, 0.5)
    with pytest.raises(MessageRefused):
        group["a"].on_request("b", AppendReply(1, 1, INVALID_LSN, INVALID_LSN, INVALID_LSN), 0.0)


# --- the primary ---


def test_a_primary_that_is_behind_is_refused_and_nothing_happens_rule_16() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    group.sent.clear()

    with pytest.raises(PrimaryRefused, match="behind") as refused:
        group["a"].proposer.on_primary(primary(flush=END - 1), 1.0)

    group.settle()
    assert "base backup" in refused.value.advice
    assert group["a"].is_proposing
    assert group["a"].acceptor.write_lsn == END
    assert not [m for _, _, m in group.sent if isinstance(m, Elected)]


def test_damaged_wal_from_the_primary_goes_to_nobody_rule_11() -> None:
    group = trio()
    group.elect("a")
    group.sent.clear()

    with pytest.raises(MessageRefused, match="damaged"):
        group["a"].on_primary_wal(START, bytes([*WAL[:-1], WAL[-1] ^ 1]), 1.0)
    group.settle()

    assert not [m for _, _, m in group.sent if isinstance(m, Append) and m.wal]
    assert {replica.acceptor.write_lsn for replica in group.replicas.values()} == {START}
    group.write("a", WAL)
    assert {replica.acceptor.write_lsn for replica in group.replicas.values()} == {END}


def test_a_new_connection_to_the_primary_cuts_partial_records_everywhere_rule_21() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL[:-3])
    assert group["c"].acceptor.write_lsn == END - 3

    group["a"].proposer.on_primary(primary(flush=END), 1.0)
    group.settle()

    assert {replica.acceptor.write_lsn for replica in group.replicas.values()} == {START}
    group.wal.clear()
    group.write("a", WAL)
    assert {replica.acceptor.record_end_lsn for replica in group.replicas.values()} == {END}


def test_a_new_timeline_is_an_entry_of_the_history_rule_17() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    history = b"1\t0/%X\tpromoted\n" % END

    plan = group["a"].proposer.on_timeline(2, Lsn(END), history)
    group.settle()
    more = wal_at(END, prev=START)
    group.write("a", more)

    assert (plan.start_lsn, plan.tli) == (END, 2)
    switched = TermHistory.of([(1, 1, START), (1, 2, END)])
    for replica in group.replicas.values():
        assert replica.acceptor.state.term_history == switched
        assert replica.acceptor.write_lsn == END + len(more)
    assert {to for _, to, m in group.sent if isinstance(m, HistoryFile)} == {"b", "c"}


def test_a_timeline_that_was_left_elsewhere_is_refused_rule_17() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)

    with pytest.raises(PrimaryRefused, match="elsewhere"):
        group["a"].proposer.on_timeline(2, Lsn(END - 8), b"")


# --- retention ---


def reply(flush: int, *slots: SlotHorizon) -> AppendReply:
    return AppendReply(1, 1, Lsn(flush), Lsn(flush), INVALID_LSN, slots=slots)


def test_the_horizon_is_the_least_that_anyone_needs_rule_18() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    leader = group["a"].proposer
    assert leader.horizon_lsn() == END

    more = wal_at(END, prev=START)
    end = END + len(more)
    group.write("a", more)
    leader.on_append_reply("b", reply(end, SlotHorizon("standby", Lsn(END + 3))), 1.0)

    assert leader.horizon_lsn() == END + 3


def test_a_consumer_that_moved_to_another_node_counts_where_it_is_furthest_rule_18() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    leader = group["a"].proposer

    leader.on_append_reply("b", reply(END, SlotHorizon("pageserver", Lsn(START + 1))), 1.0)
    leader.on_append_reply("c", reply(END, SlotHorizon("pageserver", Lsn(END))), 1.0)

    assert leader.horizon_lsn() == END


def test_an_own_slot_that_is_gone_holds_nothing_rule_18() -> None:
    group = trio()
    group.elect("a")
    log = group["a"].acceptor
    log.on_downstreams(Feedback(), (SlotHorizon("standby", Lsn(START + 1)),))
    group.write("a", WAL)
    assert group["a"].proposer.horizon_lsn() == START + 1

    log.on_downstreams(Feedback(), ())

    assert group["a"].proposer.horizon_lsn() == END


def test_what_a_member_holds_beyond_our_log_does_not_count_rule_18() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    leader = group["a"].proposer
    leader.peer("b").held_lsn = Lsn(END + 999)

    leader.on_disconnected("b")
    leader.on_connected("b", 1.0)
    leader.on_greeting("b", group["b"].acceptor.greeting(), 1.0)

    assert leader.peer("b").held_lsn <= END


def test_a_member_that_was_never_heard_from_holds_everything_rule_18() -> None:
    group = trio()
    group.silent = {"c"}
    group.elect("a")

    group.write("a", WAL)

    assert group["a"].proposer.horizon_lsn() == INVALID_LSN


def test_the_needs_of_a_member_outlive_its_connection_rule_18() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)
    leader = group["a"].proposer
    leader.on_append_reply("b", reply(END, SlotHorizon("standby", Lsn(START + 1))), 1.0)
    before = leader.horizon_lsn()

    leader.on_disconnected("b")
    leader.on_connected("b", 1.0)

    assert leader.horizon_lsn() == before


# --- membership ---


def test_while_the_membership_changes_both_sets_must_agree_rule_20() -> None:
    joint = Membership(2, ("a", "b", "c"), ("a", "d", "e"))
    group = Group(new_acceptor(name, membership=joint) for name in joint.everyone)
    group.connect()
    group.elect("a")

    group.silent = {"d", "e"}
    group.write("a", WAL)
    assert group["a"].proposer.commit_lsn == START
    group.silent = {"b", "e"}
    group["a"].proposer.on_disconnected("d")
    group["a"].proposer.on_connected("d", 1.0)
    group.settle()

    assert group["a"].proposer.commit_lsn == END


def test_the_greeting_says_where_the_log_stands() -> None:
    group = trio()
    group.elect("a")
    group.write("a", WAL)

    greeting = group["b"].acceptor.greeting()

    assert isinstance(greeting, Greeting)
    assert (greeting.flush_lsn, greeting.term, greeting.membership) == (END, 1, TRIO)
