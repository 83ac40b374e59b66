"""The commit position: how far a quorum holds the log."""

from collections.abc import Mapping

from walcore._native import held_lsn
from walproxy.quorum.membership import Membership, majority
from walproxy.wire.lsn import INVALID_LSN, Lsn


def quorum_lsn(flush_lsns: Mapping[str, Lsn], membership: Membership) -> Lsn:
    """The largest LSN that a majority of every member set has flushed.

    Args:
        flush_lsns: by member; one that is missing has flushed nothing in this term.
        membership: while it changes, both of its sets must agree (docs/quorum.md rule 20).
    """
    return min([_held_lsn(flush_lsns, members) for members in membership.sets])


def _held_lsn(flush_lsns: Mapping[str, Lsn], members: tuple[str, ...]) -> Lsn:
    return Lsn(held_lsn([flush_lsns.get(name, INVALID_LSN) for name in members], majority(len(members))))


def commit_lsn(flush_lsns: Mapping[str, Lsn], membership: Membership, term_start_lsn: Lsn) -> Lsn:
    """The end of the WAL that the proposer may call committed; INVALID_LSN if it may not say.

    WAL of an earlier term is never committed by counting its copies alone: a quorum must first hold
    everything
    up to where the current term starts. Source: docs/quorum.md rule 12; Raft (Ongaro and Ousterhout, 2014),
    section 5.4.2.
    """
    reached = quorum_lsn(flush_lsns, membership)
    return reached if reached >= term_start_lsn else INVALID_LSN
