"""The steps of a change of the members, each a membership of its own, and when each may be made.

Source: docs/quorum.md rules 19 and 20.
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.commit import commit_lsn
from walproxy.quorum.errors import ChangeInvalid, ChangeRefused
from walproxy.quorum.membership import Contact, Membership
from walproxy.quorum.peer import Peer
from walproxy.quorum.state import ControlState
from walproxy.wire.lsn import INVALID_LSN, Lsn


def _after(old: Membership, term: int) -> int:
    """The generation that follows `old`, given out by the proposer of `term`.

    Two proposers never give out different memberships under one number, and the later one's is higher.
    """
    return old.generation + 1 + term - old.term


def begun(old: Membership, wanted: tuple[str, ...], contacts: tuple[Contact, ...], term: int) -> Membership:
    """The first step towards the members `wanted`; newcomers learn first.

    Args:
        old: in force.
        wanted: the names that there will be, in any order.
        contacts: of all members, old and wanted.
        term: of the proposer that gives it out; not before that of `old`.

    Raises:
        ChangeInvalid: it makes no sense, whoever is up.
        ChangeRefused: another change is on.
    """
    if not wanted:
        raise ChangeInvalid("the last member cannot be removed")
    if len(contacts) != len({*old.everyone, *wanted}):
        raise ChangeInvalid("every member has an address")
    wanted = tuple(sorted(wanted))
    old_set, wanted_set = set(old.members), set(wanted)
    if old.is_changing and not (old.is_learning and wanted_set == old_set):
        raise ChangeRefused(
            "another change of the members is on: let it end first",
            members=",".join(old.members),
            becoming=",".join(old.new_members),
        )
    step = replace(old, generation=_after(old, term), term=term, contacts=contacts)
    if wanted_set == old_set:  # Other addresses, or newcomers that are wanted no more.
        return _settled(step, old.members)
    return replace(step, new_members=wanted, is_learning=not wanted_set <= old_set)


def continued(old: Membership, term: int, node_ids: Mapping[str, bytes]) -> Membership:
    """The step after `old`, of a change that is on: both sets decide, or the new one alone.

    Args:
        old: in force, and changing.
        term: of the proposer that gives it out.
        node_ids: as members gave them; those that were not known when the change began are filled in.
    """
    assert old.is_changing
    contacts = tuple(
        replace(contact, node_id=contact.node_id or node_ids.get(contact.name, b""))
        for contact in old.contacts
    )
    step = replace(old, generation=_after(old, term), term=term, is_learning=False, contacts=contacts)
    return step if old.is_learning else _settled(step, old.new_members)


def _settled(step: Membership, members: tuple[str, ...]) -> Membership:
    return replace(
        step,
        members=members,
        new_members=(),
        is_learning=False,
        contacts=tuple(contact for contact in step.contacts if contact.name in members),
    )


def with_known_ids(ours: ControlState, contacts: tuple[Contact, ...]) -> tuple[Contact, ...]:
    """The contacts with the node ids of those that are members now: a newcomer's name may have been another's."""
    ids = dict(ours.peer_ids) | {ours.name: ours.node_id}
    return tuple(
        replace(contact, node_id=contact.node_id or ids.get(contact.name, b""))
        if contact.name in ours.membership.members
        else contact
        for contact in contacts
    )


def check_majority_is_up(now: Membership, wanted: tuple[str, ...], heard: Collection[str]) -> None:
    """Newcomers count as up: they have been spoken to. Raises ChangeRefused."""
    up = (set(heard) | set(wanted) - set(now.members)) & set(wanted)
    if not Membership(1, wanted).has_quorum(up):
        raise ChangeRefused(
            "no majority of the new members is up: commits would stop",
            members=",".join(wanted),
            up=",".join(sorted(up)),
        )


def is_in_force(
    log: Acceptor, peers: Mapping[str, Peer], term: int, term_start_lsn: Lsn, known_commit_lsn: Lsn
) -> bool:
    """A majority of each set has the membership on disk, and under it and in this term all that is committed.

    From then on no majority of an earlier membership can act. Source: docs/quorum.md rule 20.
    """
    membership = log.state.membership
    generation = membership.generation
    if log.durable_generation != generation or membership.term > term:
        return False
    flushed = {n: p.flush_lsn for n, p in peers.items() if p.generation == generation or n == log.name}
    reached = commit_lsn(flushed, membership, term_start_lsn)
    return reached != INVALID_LSN and reached >= known_commit_lsn


def may_decide(learning: Membership, near: Collection[str]) -> bool:
    """The new set could decide at once: its newcomers, and a majority, are near the end of the log."""
    return learning.learners <= set(near) and Membership(1, learning.new_members).has_quorum(near)


def unheeded_learners(log: Acceptor, silent: Collection[str]) -> frozenset[str]:
    """Learners that WAL is not kept for: those that are silent, and all when half our room is used.

    Source: docs/quorum.md rule 18.
    """
    learners, room_end = log.state.membership.learners, log.room_end_lsn
    start = log.state.local_start_lsn
    if room_end is not None and log.write_lsn - start > (room_end - start) // 2:
        return learners
    return learners & set(silent)
