"""Promises: what was promised so far, and what a member must not do then; docs/quorum.md, "Invariants"."""

from dataclasses import dataclass

from tests.explore.member import START
from walproxy.quorum.membership import Membership


@dataclass(frozen=True)
class Promised:
    """Who was elected with which log, and what was committed."""

    elections: tuple[tuple[int, str, bytes], ...] = ()
    commits: tuple[tuple[int, int], ...] = ()  # (term, end)
    committed: bytes = b""
    memberships: tuple[Membership, ...] = ()


@dataclass(frozen=True)
class View:
    """A proposer."""

    name: str
    term: int
    term_start: int
    commit: int  # By its own counting.
    log: bytes
    membership: Membership


@dataclass(frozen=True)
class Log:
    """What a member has on disk, and how much of it it serves."""

    name: str
    durable: bytes
    commit: int


def look(view: View, promised: Promised) -> tuple[Promised, bool]:
    """What is promised now, and whether that proposer has committed more. Raises AssertionError."""
    elections, commits, committed = promised.elections, promised.commits, promised.committed
    heads = {term: (name, head) for term, name, head in elections}
    head = view.log[: view.term_start - START]
    if view.term not in heads:
        elections = tuple(sorted((*elections, (view.term, view.name, head))))
        for term, end in commits:
            if term < view.term:
                wanted = committed[: end - START]
                assert head[: len(wanted)] == wanted, "I3: elected without committed wal"
    else:
        assert heads[view.term] == (view.name, head), "I1: two proposers of one term"
    commits_more = view.commit > dict(commits).get(view.term, 0)
    if commits_more:
        size = view.commit - START
        wal = view.log[:size]
        assert len(wal) == size, "I4: commits more than it has"
        both = min(size, len(committed))
        assert wal[:both] == committed[:both], "I2: two bytes at one lsn"
        committed += wal[both:]
        commits = tuple(sorted({**dict(commits), view.term: view.commit}.items()))
        for term, (_, later) in heads.items():
            assert term <= view.term or later[:size] == wal, "I3: committed after a later election without it"
    memberships = promised.memberships
    if view.membership not in memberships:
        generations = {membership.generation for membership in memberships}
        assert view.membership.generation not in generations, "rule 19: two memberships of one generation"
        memberships = tuple(sorted((*memberships, view.membership), key=lambda known: known.generation))
    return Promised(elections, commits, committed, memberships), commits_more


def hold(view: View, logs: list[Log]) -> None:
    """What that proposer has committed is on a quorum. Raises AssertionError."""
    wal = view.log[: view.commit - START]
    holders = [log.name for log in logs if log.durable[: len(wal)] == wal]
    assert view.membership.has_quorum(holders), "I3: committed, but not on a quorum"


def serve(log: Log, promised: Promised) -> None:
    """What that member serves is committed. Raises AssertionError."""
    if log.commit:
        size = log.commit - START
        assert size <= len(promised.committed), "I4: serves what is not committed"
        assert log.durable[:size] == promised.committed[:size], "I2, I4: serves other bytes"
