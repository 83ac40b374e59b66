"""The fast functions of the quorum against slow and obvious ones."""

from hypothesis import given
from hypothesis import strategies as st

from walproxy.quorum.commit import commit_lsn, quorum_lsn
from walproxy.quorum.membership import Membership
from walproxy.quorum.terms import TermEntry, TermHistory, common_lsn
from walproxy.recent import RecentWal
from walproxy.wire.lsn import INVALID_LSN, Lsn

lsns = st.integers(0, 30).map(Lsn)
names = st.sampled_from("abcdefg")
sets = st.lists(names, min_size=1, max_size=5, unique=True).map(tuple)
memberships = st.builds(Membership, st.just(1), sets, sets | st.just(()))
flushes = st.dictionaries(names, lsns)


def slow_quorum_lsn(flush_lsns: dict[str, Lsn], membership: Membership) -> Lsn:
    def agreed(lsn: int) -> bool:
        return all(
            2 * sum(flush_lsns.get(name, 0) >= lsn for name in members) > len(members)
            for members in membership.sets
        )

    return max((lsn for lsn in flush_lsns.values() if agreed(lsn)), default=INVALID_LSN)


@given(flushes, memberships)
def test_the_quorum_lsn_agrees_with_counting(flush_lsns: dict[str, Lsn], membership: Membership) -> None:
    assert quorum_lsn(flush_lsns, membership) == slow_quorum_lsn(flush_lsns, membership)


@given(flushes, memberships, lsns)
def test_nothing_is_committed_before_the_start_of_the_term_rule_12(
    flush_lsns: dict[str, Lsn], membership: Membership, start: Lsn
) -> None:
    reached = commit_lsn(flush_lsns, membership, start)

    assert reached in {INVALID_LSN, slow_quorum_lsn(flush_lsns, membership)}
    assert reached == INVALID_LSN or reached >= start


@given(memberships, st.sets(names), st.sets(names))
def test_two_quorums_have_a_member_in_common_rule_20(
    membership: Membership, one: set[str], other: set[str]
) -> None:
    if membership.has_quorum(one) and membership.has_quorum(other):
        assert one & other & set(membership.everyone)


@st.composite
def two_logs(draw: st.DrawFn) -> tuple[TermHistory, list[int], TermHistory, list[int]]:
    """Two logs as lists of who wrote each byte, grown as proposers would grow them, and their histories.

    Byte n is at LSN n + 1; a proposer takes one of the logs as it stands, and both follow some of the time.
    """
    logs: list[tuple[list[TermEntry], list[int]]] = [([], []), ([], [])]
    for term in range(1, draw(st.integers(1, 5)) + 1):
        source = draw(st.integers(0, 1))
        entries, wal = logs[source]
        entry = TermEntry(term, 1, Lsn(len(wal) + 1))
        grown = ([*entries, entry], wal + [term] * draw(st.integers(0, 4)))
        follows = draw(st.booleans())
        logs[source] = grown
        if follows:
            length = draw(st.integers(len(wal), len(grown[1])))
            logs[1 - source] = (grown[0], grown[1][:length])
    (first, one), (second, other) = logs
    return TermHistory(tuple(first)), one, TermHistory(tuple(second)), other


@given(two_logs())
def test_the_common_point_is_where_two_logs_part_rule_9(
    logs: tuple[TermHistory, list[int], TermHistory, list[int]],
) -> None:
    leader, leader_wal, history, wal = logs
    same = 0
    while same < min(len(leader_wal), len(wal)) and leader_wal[same] == wal[same]:
        same += 1

    found = common_lsn(leader, history, Lsn(len(wal) + 1))

    if found == INVALID_LSN:
        assert same == 0
    else:
        assert found - 1 <= len(wal)
        # The log up to there is the leader's, or the leader's history says it will be.
        assert found - 1 <= same or leader_wal == wal[: len(leader_wal)]
        # Nothing that both have is thrown away.
        assert found - 1 >= same


@given(two_logs(), lsns)
def test_a_cut_history_is_the_beginning_of_the_whole(
    logs: tuple[TermHistory, list[int], TermHistory, list[int]], end: Lsn
) -> None:
    history = logs[0]

    assert history.extends(history.up_to(end))
    assert all(entry.start_lsn <= end for entry in history.up_to(end).entries)


@given(
    st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=8),
    st.integers(1, 20),
    st.integers(0, 80),
    st.data(),
)
def test_recent_wal_gives_the_bytes_or_nothing(
    chunks: list[bytes], bytes_max: int, stored: int, data: st.DataObject
) -> None:
    start, log = 100, b""
    recent = RecentWal(bytes_max=bytes_max)
    for chunk in chunks:
        recent.add(Lsn(start + len(log)), chunk, term=1, stored_lsn=Lsn(start + stored))
        log += chunk
    from_at = data.draw(st.integers(0, len(log) - 1))
    to_at = data.draw(st.integers(from_at + 1, len(log)))

    got = recent.get(Lsn(start + from_at), Lsn(start + to_at), term=1)

    assert got in {None, log[from_at:to_at]}
    if from_at >= stored:
        assert got is not None, "what is not on disk must be in memory"
