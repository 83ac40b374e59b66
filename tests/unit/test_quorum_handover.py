"""Planned hand-overs and sealed logs keep the rules of docs/quorum.md, whose numbers the tests name."""

from dataclasses import replace

import pytest

from tests.sim.toywal import START
from tests.unit.quorum_world import Group, append, elected, primary, trio, vote, wal_at, with_log
from walproxy.quorum.errors import HandoverRefused, LogSealed, MessageRefused, PrimaryRefused
from walproxy.quorum.messages import PROTOCOL_VERSION, StandNow
from walproxy.quorum.role import Role
from walproxy.quorum.terms import Seal, TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn

WAL = wal_at(START)
END = START + len(WAL)
HISTORY_2 = f"1\t0/{END:X}\tpromoted\n".encode()


@pytest.fixture
def group() -> Group:
    """Three members with a record of WAL, a leads."""
    made = trio()
    made.elect("a")
    made.write("a", WAL)
    made.tick("a", at_s=1.1)
    return made


# --- transfer ---


@pytest.mark.parametrize("to", ["b", "c"])
def test_the_place_is_handed_over_at_once_rule_27(group: Group, to: str) -> None:
    group["a"].transfer(to, 1.2)
    group.settle()

    assert group[to].is_proposing
    assert {replica.leader for replica in group.replicas.values()} == {to}
    assert group[to].proposer.commit_lsn == END


def test_without_a_name_the_member_that_holds_most_is_taken_rule_27(group: Group) -> None:
    group.silent = {"b"}
    group.write("a", wal_at(END, prev=START))
    group.silent = set()

    assert group["a"].transfer(None, 1.2) == "c"


def test_no_wal_is_taken_from_then_on_rule_27(group: Group) -> None:
    group.silent = {"b"}
    group["a"].transfer("b", 1.2)

    assert not group["a"].proposer.wants_primary
    with pytest.raises(MessageRefused, match="handed over"):
        group["a"].on_primary_wal(Lsn(END), wal_at(END, prev=START), 1.2)
    assert group["a"].acceptor.write_lsn == END


def test_it_is_told_to_stand_only_when_it_holds_all_of_the_log_rule_27(group: Group) -> None:
    replica = group["a"]
    # Our own log has it, b does not answer yet.
    group.silent = {"b"}
    group.write("a", wal_at(END, prev=START))
    replica.transfer("b", 1.2)
    group.settle()
    assert not [m for _, _, m in group.sent if isinstance(m, StandNow)]

    replica.proposer.on_disconnected("b")
    group.silent = set()
    replica.proposer.on_connected("b", 1.3)
    group.settle()

    assert group["b"].is_proposing
    assert group["b"].proposer.term_start_lsn == replica.acceptor.record_end_lsn > END


def test_if_the_next_one_does_not_come_the_old_one_goes_on_rule_27(group: Group) -> None:
    group.silent = {"b"}
    group["a"].transfer("b", 1.2)
    group.tick("a", at_s=1.9)
    assert not group["a"].proposer.wants_primary

    group.tick("a", at_s=2.2)

    assert group["a"].is_proposing
    assert group["a"].proposer.wants_primary


def test_only_the_proposer_may_tell_another_to_stand_rule_27(group: Group) -> None:
    for sender, term in (("c", 1), ("a", 7)):
        with pytest.raises(MessageRefused, match="not told by the proposer"):
            group["b"].on_request(sender, StandNow(1, term), 1.2)
    assert group["b"].acceptor.state.term == 1


def test_who_does_not_follow_cannot_take_over_rule_27(group: Group) -> None:
    group["a"].proposer.on_disconnected("b")

    with pytest.raises(HandoverRefused, match="b does not follow"):
        group["a"].transfer("b", 1.2)
    with pytest.raises(HandoverRefused, match="the proposer already"):
        group["a"].transfer("a", 1.2)
    with pytest.raises(HandoverRefused, match="not the proposer"):
        group["c"].transfer("a", 1.2)
    assert group["a"].proposer.wants_primary


# --- seal ---


@pytest.fixture
def sealed(group: Group) -> Group:
    group["a"].seal(1.2, 0.5)
    group.settle()
    return group


def test_a_seal_is_the_beginning_of_a_term_and_on_a_majority_rule_25(sealed: Group) -> None:
    proposer = sealed["a"].proposer

    assert (proposer.term, proposer.term_history.sealed_lsn, proposer.commit_lsn) == (2, END, END)
    for name in "abc":
        assert sealed[name].acceptor.state.term_history.sealed_lsn == END


def test_a_part_of_a_record_behind_the_seal_is_cut_off_rule_25(group: Group) -> None:
    group.write("a", wal_at(END, prev=START)[:5])
    group["a"].seal(1.2, 0.5)
    group.settle()

    assert group["a"].proposer.term_history.sealed_lsn == END
    assert {group[name].acceptor.write_lsn for name in "abc"} == {END}


def test_a_primary_of_the_sealed_timeline_is_refused_with_what_to_do_rule_25(sealed: Group) -> None:
    with pytest.raises(LogSealed, match="sealed") as refused:
        sealed["a"].proposer.on_primary(primary(flush=END), 1.3)

    assert "promote" in refused.value.advice
    assert "unseal" in refused.value.advice


def test_wal_behind_a_seal_is_refused_rule_25() -> None:
    history = TermHistory.of([(1, 1, START)]).with_entry(2, 1, END, Seal.SEALED)
    acceptor = with_log()
    acceptor.on_elected("b", elected(2, START, history), 0.0)
    acceptor.on_append("b", append(2, START, WAL), 0.0)

    with pytest.raises(MessageRefused, match="sealed"):
        acceptor.on_append("b", append(2, END, wal_at(END, prev=START)), 0.0)
    assert acceptor.write_lsn == END


def test_a_seal_outlives_its_proposer_rule_25(sealed: Group) -> None:
    sealed.silent = {"a"}
    for name in ("b", "c"):
        sealed[name].on_leader_lost("a", 1.3, 0.5)

    sealed.tick("b", at_s=1.4)

    assert sealed["b"].is_proposing
    assert sealed["b"].proposer.term_history.sealed_lsn == END


def test_a_timeline_that_begins_at_the_seal_lifts_it_rule_25(sealed: Group) -> None:
    proposer = sealed["a"].proposer
    promoted = primary(flush=END + 500, tli=2, history=HISTORY_2)

    assert proposer.on_primary(promoted, 1.3) is not None
    proposer.on_timeline(2, Lsn(END), HISTORY_2)
    sealed.settle()
    sealed.write("a", wal_at(END, prev=START))

    assert proposer.term_history.sealed_lsn == INVALID_LSN
    assert {sealed[name].acceptor.state.term_history.last_tli for name in "abc"} == {2}
    assert proposer.commit_lsn > END


@pytest.mark.parametrize(
    ("left_at", "why"), [(END - 1, "before the end"), (END + 8, "beyond the sealed end")]
)
def test_a_timeline_that_begins_elsewhere_is_refused_rule_25(sealed: Group, left_at: int, why: str) -> None:
    history = f"1\t0/{left_at:X}\tpromoted\n".encode()

    with pytest.raises(PrimaryRefused, match=why) as refused:
        sealed["a"].proposer.on_primary(primary(flush=END + 500, tli=2, history=history), 1.3)

    assert refused.value.advice
    assert sealed["a"].proposer.term_history.sealed_lsn == END


def test_the_deposed_primary_is_refused_when_the_next_one_was_taken_rule_25(sealed: Group) -> None:
    proposer = sealed["a"].proposer
    proposer.on_primary(primary(flush=END + 500, tli=2, history=HISTORY_2), 1.3)
    proposer.on_timeline(2, Lsn(END), HISTORY_2)
    sealed.settle()

    with pytest.raises(PrimaryRefused, match="timeline that was left") as refused:
        proposer.on_primary(primary(flush=END + 500), 1.4)
    assert "pg_rewind" in refused.value.advice


def test_a_seal_can_be_taken_back_rule_25(sealed: Group) -> None:
    sealed["a"].unseal(1.3, 0.5)
    sealed.settle()
    proposer = sealed["a"].proposer

    assert proposer.term_history.sealed_lsn == INVALID_LSN
    assert proposer.on_primary(primary(flush=END), 1.4) is not None
    sealed.write("a", wal_at(END, prev=START))
    assert proposer.commit_lsn > END


def test_a_seal_that_reached_no_majority_is_not_committed_rule_25(group: Group) -> None:
    group.silent = {"b", "c"}
    group["a"].seal(1.2, 0.5)
    group.settle()

    assert not group["a"].is_proposing


def test_without_an_upgrade_of_all_nothing_is_sealed_rule_1(group: Group) -> None:
    peer = group["a"].proposer.peer("b")
    assert peer.greeting is not None
    peer.greeting = replace(peer.greeting, version=PROTOCOL_VERSION - 1)

    with pytest.raises(HandoverRefused, match=r"upgrade these first.*b"):
        group["a"].seal(1.2, 0.5)
    with pytest.raises(HandoverRefused, match=r"upgrade these first.*b"):
        group["a"].transfer("b", 1.2)
    assert group["a"].is_proposing


# --- the switch point ---


def test_after_an_election_no_switch_point_before_the_term_start_is_accepted_rule_16() -> None:
    """The locally known commit LSN is a lower bound only: more may have been acknowledged."""
    members = [with_log(name, end=END, commit=START) for name in "abc"]
    group = Group(members)
    group.wal, group.wal_start = bytearray(WAL), START
    group.connect()
    replica = group["a"]
    replica.tick(1.0, 0.5)
    while not replica.is_proposing:
        assert sum(group._settle(member) for member in group.replicas.values())
    group.silent = {"b", "c"}
    group.settle()
    assert (replica.acceptor.commit_lsn, replica.proposer.term_start_lsn) == (START, END)

    for left_at in (int(START), END - 1):
        history = f"1\t0/{left_at:X}\tpromoted\n".encode()
        with pytest.raises(PrimaryRefused, match="before the end of the log"):
            replica.proposer.on_primary(primary(flush=END + 500, tli=2, history=history), 1.1)
    assert replica.proposer.on_primary(primary(flush=END + 500, tli=2, history=HISTORY_2), 1.1) is not None


def test_whoever_gave_its_vote_leaves_the_other_the_time_to_win_rule_4(group: Group) -> None:
    """The one that handed over would stand at once again: its own time to stand is long past."""
    for name in ("a", "c"):
        group[name].on_request("b", vote(2, 1, END), 1.2)
        assert group[name].acceptor.state.voted_for == "b"

        assert group[name].proposer.role is Role.FOLLOWING
        assert group[name].proposer.deadline_s >= 1.7
