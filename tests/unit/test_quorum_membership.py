"""Membership: which one a node takes over, and how one becomes the next. docs/quorum.md rules 2, 18, 19 and 20."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from tests.sim.toywal import SEGMENT, START
from tests.unit.quorum_world import TRIO, Group, elected, finish, new_acceptor, trio, vote, wal_at, with_log
from walproxy.quorum.change import begun, continued
from walproxy.quorum.errors import ChangeInvalid, ChangeRefused, IdentityRefused, MessageRefused, NotAMember
from walproxy.quorum.membership import NOBODY, Contact, Membership
from walproxy.quorum.messages import Append, Greeting, VoteReply, decode, encode
from walproxy.quorum.role import Role
from walproxy.quorum.state import ControlState, decode_control, encode_control
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import Lsn


def contacts(names: Iterable[str], **ids: bytes) -> tuple[Contact, ...]:
    """Each with its own id, as `quorum_world` gives it, unless another is named."""
    return tuple(Contact(name, f"host={name}", ids.get(name, name.encode())) for name in names)


def led() -> Group:
    """Three members, a proposes, all have some WAL."""
    group = trio()
    group.elect("a")
    group.write("a", wal_at(START))
    return group


def join(group: Group, name: str, membership: Membership = NOBODY) -> None:
    """A node that waits, connected with all others in both directions."""
    newcomer = Group([new_acceptor(name, membership=membership)])[name]
    group.replicas[name] = newcomer


def meet(group: Group, name: str) -> None:
    for peer, replica in group.replicas.items():
        if peer != name and name in replica.peers_to_dial:
            replica.proposer.on_connected(name, group.now_s)
        if peer != name and peer in group[name].peers_to_dial:
            group[name].proposer.on_connected(peer, group.now_s)
    group.settle()


def beat(group: Group, times: int = 12, leader: str = "a") -> None:
    """Heartbeats, until a change has gone as far as it can."""
    for _ in range(times):
        group.tick(leader, at_s=group.now_s + 0.2)


def role_of(group: Group, name: str) -> Role:
    return group[name].proposer.role


def change(group: Group, wanted: str, *newcomers: str) -> None:
    names = dict.fromkeys((*group["a"].acceptor.state.membership.everyone, *wanted))
    group["a"].change_members(tuple(wanted), contacts(names), group.now_s)
    group.settle()
    for name in newcomers:
        meet(group, name)


# --- what a node takes over ---


def greeting_of(name: str, membership: Membership, node_id: bytes = b"") -> Greeting:
    said = new_acceptor(name).greeting()
    return replace(
        said, generation=membership.generation, membership=membership, node_id=node_id or name.encode()
    )


def test_the_membership_of_a_higher_generation_is_taken_over_rule_19() -> None:
    acceptor = with_log()
    joint = Membership(2, TRIO.members, ("a", "b", "d"))

    acceptor.on_greeting("b", greeting_of("b", joint))

    assert acceptor.durable_generation == 1
    assert finish(acceptor).control is not None
    assert acceptor.state.membership == joint
    assert acceptor.durable_generation == 2


def test_only_a_newer_membership_is_taken_over_rule_19() -> None:
    acceptor = with_log()
    joint = Membership(2, TRIO.members, ("a", "b", "d"))

    acceptor.adopt(Membership(1, ("a", "x", "y")))
    assert acceptor.state.membership == TRIO

    acceptor.adopt(joint)

    work = finish(acceptor)
    assert work.control is not None
    assert work.control.membership == joint

    acceptor.adopt(TRIO)
    assert acceptor.state.membership == joint


def test_a_stranger_s_membership_is_not_taken_over_rule_19() -> None:
    acceptor = with_log()
    foreign = Membership(9, ("a", "x"), contacts=contacts("ax", a=b"another a"))

    with pytest.raises(NotAMember):
        acceptor.on_greeting("x", greeting_of("x", foreign))

    assert acceptor.state.membership == TRIO


def test_a_newcomer_s_membership_is_taken_over_if_it_names_our_own_disk_rule_19() -> None:
    acceptor = with_log()
    later = Membership(9, ("a", "x"), contacts=contacts("ax"))

    acceptor.on_greeting("x", greeting_of("x", later))

    assert acceptor.state.membership == later


def test_a_member_that_was_removed_learns_it_and_stands_no_more_rule_19() -> None:
    group = led()
    group["c"].on_leader_lost("a", group.now_s, 0.5)
    group["c"].acceptor.adopt(Membership(5, ("a", "b"), term=1, contacts=contacts("ab")))
    group.silent = {"c"}
    group.settle()

    group["c"].tick(99.0, 0.5)

    assert not group["c"].acceptor.is_member
    assert group["c"].peers_to_dial == ()
    assert group["c"].proposer.role is Role.FOLLOWING
    assert not group["c"].proposer.wants_primary


def test_the_former_disk_of_a_member_is_none_of_the_group_rule_2() -> None:
    acceptor = with_log()
    acceptor.adopt(Membership(5, TRIO.members, term=1, contacts=contacts("abc", b=b"new disk")))

    with pytest.raises(NotAMember):
        acceptor.on_greeting("b", greeting_of("b", TRIO))
    acceptor.on_greeting("b", greeting_of("b", acceptor.state.membership, b"new disk"))

    former = with_log("b")
    former.adopt(acceptor.state.membership)
    assert not former.is_member


def test_who_has_no_vote_gets_none_rule_20() -> None:
    acceptor = with_log()
    acceptor.adopt(Membership(2, ("a", "b"), ("a", "b", "c"), is_learning=True))

    acceptor.on_vote_request("c", replace(vote(5, 1, 1 << 30), generation=2), 0.0)

    (reply,) = [message for _, message in finish(acceptor).answers if isinstance(message, VoteReply)]
    assert (reply.is_granted, reply.why) == (False, "no voter")


# --- the steps ---


def test_newcomers_learn_then_both_sets_decide_then_the_new_one_rule_20() -> None:
    learning = begun(TRIO, ("d", "b", "a"), contacts("abcd"), term=4)
    joint = continued(learning, 4, {})
    settled = continued(joint, 6, {})

    assert learning.sets == (("a", "b", "c"),)
    assert set(learning.learners) == {"d"}
    assert joint.sets == (("a", "b", "c"), ("a", "b", "d"))
    assert (settled.sets, settled.everyone) == ((("a", "b", "d"),), ("a", "b", "d"))
    assert [c.name for c in settled.contacts] == ["a", "b", "d"]


def test_removal_alone_needs_no_learning_rule_20() -> None:
    assert begun(TRIO, ("a", "b"), contacts("abc"), term=1).sets == (("a", "b", "c"), ("a", "b"))


def test_a_later_proposer_s_step_has_a_higher_generation_rule_19() -> None:
    steps = [begun(TRIO, ("a", "b"), contacts("abc"), term) for term in (1, 2, 5)]
    second = continued(steps[0], 5, {})

    generations = [step.generation for step in steps]
    assert generations == sorted(set(generations))
    # What follows a step that is in force is above all that was given out in its place before.
    assert second.generation > steps[2].generation


def test_the_last_member_stays_rule_20() -> None:
    with pytest.raises(ChangeInvalid, match="last member"):
        begun(Membership(1, ("a",)), (), contacts("a"), term=1)


def test_one_change_at_a_time_but_newcomers_may_be_taken_back_rule_20() -> None:
    learning = begun(TRIO, ("a", "b", "d"), contacts("abcd"), term=1)

    with pytest.raises(ChangeRefused, match="another change"):
        begun(learning, ("a", "b", "c", "d"), contacts("abcd"), term=1)
    with pytest.raises(ChangeRefused, match="another change"):
        begun(continued(learning, 1, {}), TRIO.members, contacts("abcd"), term=1)
    assert begun(learning, TRIO.members, contacts("abcd"), term=1).sets == (TRIO.members,)


def test_the_rest_of_a_membership_survives_control_file_and_wire() -> None:
    membership = Membership(7, ("a",), ("a", "b"), is_learning=True, term=3, contacts=contacts("ab"))
    state = ControlState("a", b"a", membership)

    assert decode_control(encode_control(state)) == state
    assert decode_control(encode_control(replace(state, membership=NOBODY))).membership == NOBODY
    said = greeting_of("a", membership)
    assert decode(encode(said)) == said


# --- a group ---


def test_a_node_is_added_without_an_election_and_votes_at_the_end_rule_20() -> None:
    group = led()
    join(group, "d")

    change(group, "abcd", "d")
    beat(group)

    assert {replica.acceptor.state.membership.members for replica in group.replicas.values()} == {
        tuple("abcd")
    }
    assert group["a"].proposer.is_in_force
    assert group["a"].proposer.term == 1
    assert group["d"].acceptor.is_voter
    assert group["d"].acceptor.commit_lsn == group["a"].acceptor.commit_lsn


def test_a_newcomer_has_no_vote_before_it_has_caught_up_rule_20() -> None:
    group = led()
    join(group, "d")
    group.silent = {"d"}

    change(group, "abd", "d")
    beat(group)
    before = group["a"].proposer.commit_lsn
    group.write("a", wal_at(group["a"].acceptor.write_lsn, prev=START))

    assert group["a"].acceptor.state.membership.is_learning
    assert group["a"].proposer.commit_lsn > before


def test_without_a_majority_of_the_old_set_the_new_one_is_not_given_out_rule_20() -> None:
    group = led()
    join(group, "d")
    join(group, "e")
    change(group, "ade", "d", "e")
    for _ in range(12):
        if not group["a"].acceptor.state.membership.is_learning:
            break
        beat(group, 1)
    assert group["a"].acceptor.state.membership.sets == (("a", "b", "c"), ("a", "d", "e"))
    group.silent = {"b", "c"}

    beat(group, 3)

    assert group["a"].acceptor.state.membership.is_changing


def test_replies_of_before_do_not_put_a_membership_in_force_rule_20() -> None:
    group = led()
    assert group["a"].proposer.is_in_force

    group["a"].acceptor.adopt(Membership(2, TRIO.members, ("a", "b"), term=1, contacts=contacts("abc")))
    finish(group["a"].acceptor)

    assert not group["a"].proposer.is_in_force


def test_a_membership_that_is_not_on_our_own_disk_is_not_in_force_rule_20() -> None:
    group = led()
    proposer = group["a"].proposer
    proposer.peers["b"].generation = proposer.peers["c"].generation = 2

    group["a"].acceptor.adopt(Membership(2, TRIO.members, ("b", "c"), term=1, contacts=contacts("abc")))

    assert not proposer.is_in_force
    finish(group["a"].acceptor)
    assert proposer.is_in_force


def test_votes_of_before_a_change_do_not_count_rule_20() -> None:
    group = trio()
    replica = group.elect("a")
    replica.proposer.step_aside(2.0, 0.5)
    group.silent = {"b", "c"}
    group.tick("a", at_s=9.0)
    assert role_of(group, "a") is Role.ASKING
    asked = replica.proposer.term

    replica.acceptor.adopt(Membership(2, TRIO.members, ("a", "b"), term=1, contacts=contacts("abc")))
    group.settle()

    assert role_of(group, "a") is Role.FOLLOWING
    replica.proposer.role = Role.ASKING
    reply = VoteReply(1, asked, True, True, 1, 1, Lsn(START))
    for name in ("a", "b", "c"):
        replica.proposer.on_vote_reply(name, reply, 9.0, 0.5)
    assert role_of(group, "a") is Role.ASKING
    for name in ("a", "b"):
        replica.proposer.on_vote_reply(name, replace(reply, generation=2), 9.0, 0.5)
    assert role_of(group, "a") is Role.STANDING


def test_a_proposer_that_removes_itself_leaves_it_to_the_others_rule_20() -> None:
    group = led()

    change(group, "bc")
    beat(group)

    assert not group["a"].is_proposing
    assert not group["a"].acceptor.is_member
    assert {group[name].acceptor.state.membership.members for name in "bc"} == {("b", "c")}
    for name in ("b", "c"):
        group[name].on_leader_lost("a", group.now_s, 0.5)
    group.tick("b", at_s=group.now_s + 2)
    assert group["b"].is_proposing


def test_a_set_without_a_majority_that_is_up_is_refused_rule_20() -> None:
    group = led()
    group.silent = {"b"}
    beat(group, 8)

    with pytest.raises(ChangeRefused, match="no majority of the new members is up"):
        change(group, "ab")


def test_only_who_proposes_changes_the_members_rule_20() -> None:
    group = led()

    with pytest.raises(ChangeRefused, match="does not propose"):
        group["b"].change_members(("a", "b"), contacts("abc"), 1.0)


def test_another_proposer_carries_the_change_on_rule_20() -> None:
    group = led()
    join(group, "d")
    change(group, "abd", "d")
    group.silent = {"a"}
    for name in ("b", "c"):
        group[name].on_leader_lost("a", group.now_s, 0.5)
    group.tick("b", at_s=group.now_s + 0.5)
    assert group["b"].is_proposing
    group.silent = set()

    beat(group, leader="b")

    assert group["b"].acceptor.state.membership.members == ("a", "b", "d")
    assert group["b"].proposer.is_in_force


def test_wal_is_not_kept_for_a_silent_newcomer_rule_18() -> None:
    group = led()
    join(group, "d")
    change(group, "abcd", "d")
    proposer = group["a"].proposer
    proposer._window_bytes_max = -1  # It never counts as near.
    group.silent = {"d"}
    proposer.peers["d"].held_lsn = Lsn(START)

    beat(group, 1)
    assert proposer.horizon_lsn() == START
    beat(group, 8)

    assert proposer.horizon_lsn() > START


def test_wal_is_not_kept_for_newcomers_in_more_than_half_the_room_rule_18() -> None:
    group = led()
    join(group, "d")
    change(group, "abcd", "d")
    proposer = group["a"].proposer
    proposer.peers["d"].held_lsn = Lsn(START)
    assert proposer.horizon_lsn() == START

    group["a"].acceptor.room_end_lsn = Lsn(group["a"].acceptor.write_lsn + 1)

    assert proposer.horizon_lsn() > START


def test_a_newcomer_whose_wal_was_let_go_begins_again_rule_18() -> None:
    history = TermHistory.of([(1, 1, START)])
    learner = with_log("d", history=history, end=START + 100, commit=START + 50)
    learner.adopt(Membership(2, TRIO.members, (*TRIO.members, "d"), is_learning=True))
    start = START + 2 * SEGMENT
    later = elected(1, start, history, commit=start + 10, generation=2)

    learner.on_elected("a", later, 0.0)
    assert learner.commit_lsn <= learner.durable_flush_lsn
    work = finish(learner)

    assert work.new_log is not None
    assert (work.new_log.start_lsn, learner.commit_lsn, learner.write_lsn) == (start, start, start)


def test_a_removal_from_the_log_before_does_not_move_the_start_of_one_that_begins_again_rule_18() -> None:
    history = TermHistory.of([(1, 1, START)])
    learner = with_log("d", history=history, end=START + 100, commit=START + 50)
    learner.adopt(Membership(2, TRIO.members, (*TRIO.members, "d"), is_learning=True))
    start = START + 2 * SEGMENT
    learner.on_elected("a", elected(1, start, history, commit=start + 10, generation=2), 0.0)

    learner.on_removed(Lsn(START + SEGMENT))

    after = finish(learner).control_after_cut
    assert after is not None
    assert after.local_start_lsn == learner.state.local_start_lsn == start
    learner.on_removed(Lsn(start + SEGMENT))
    assert learner.state.local_start_lsn == start + SEGMENT


def test_a_member_with_a_vote_does_not_begin_again_rule_18() -> None:
    history = TermHistory.of([(1, 1, START)])
    voter = with_log("b", history=history, end=START + 100, commit=START + 50)
    start = START + 2 * SEGMENT

    with pytest.raises(MessageRefused, match="another end"):
        voter.on_elected("a", elected(1, start, history, commit=start + 10), 0.0)


def test_a_proposer_lets_a_newcomer_begin_where_wal_still_is_rule_18() -> None:
    group = led()
    join(group, "d")
    change(group, "abcd", "d")
    proposer, log = group["a"].proposer, group["a"].acceptor
    proposer.on_disconnected("d")
    log.on_removed(Lsn(START + SEGMENT))
    proposer.on_connected("d", group.now_s)

    proposer.on_greeting("d", group["d"].acceptor.greeting(), group.now_s)

    assert proposer.peers["d"].is_streaming
    assert proposer.peers["d"].next_lsn == START + SEGMENT


def test_an_append_of_a_former_member_is_refused_rule_1() -> None:
    acceptor = with_log()
    acceptor.adopt(Membership(2, ("a", "b"), contacts=contacts("ab")))

    with pytest.raises(MessageRefused, match="generation"):
        acceptor.on_append("c", Append(1, 1, 1, START, Lsn(0), Lsn(0)), 0.0)
    with pytest.raises(IdentityRefused):
        acceptor.on_greeting("c", greeting_of("c", TRIO))
