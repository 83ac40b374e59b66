"""Term histories of two logs and how far these agree (docs/quorum.md rule 9)."""

from walproxy.quorum.terms import TermHistory, common_lsn
from walproxy.wire.lsn import INVALID_LSN, Lsn

ROOT = (1, 1, 100)


def test_a_log_that_stands_where_the_leader_was_elected_is_whole() -> None:
    leader = TermHistory.of([ROOT, (3, 1, 200)])

    assert common_lsn(leader, TermHistory.of([ROOT]), Lsn(150)) == 150
    assert common_lsn(leader, TermHistory.of([ROOT]), Lsn(200)) == 200


def test_a_log_goes_with_the_leaders_up_to_the_leaders_next_term() -> None:
    """Beyond, the other log has WAL of term 1 that the leader lacks."""
    leader = TermHistory.of([ROOT, (3, 1, 200)])

    assert common_lsn(leader, TermHistory.of([ROOT]), Lsn(250)) == 200


def test_a_log_goes_with_the_leaders_up_to_its_own_next_term_only() -> None:
    """From 150 on it has WAL of term 2, the leader WAL of term 1, and was elected without anyone of term 2."""
    leader = TermHistory.of([ROOT, (3, 1, 200)])
    log = TermHistory.of([ROOT, (2, 1, 150)])

    assert common_lsn(leader, log, Lsn(180)) == 150
    assert common_lsn(leader, log, Lsn(250)) == 150


def test_an_entry_past_the_end_of_a_log_is_none_of_its_own() -> None:
    leader = TermHistory.of([ROOT, (2, 1, 150), (3, 1, 200)])

    assert common_lsn(leader, TermHistory.of([ROOT, (3, 1, 200)]), Lsn(140)) == 140


def test_logs_that_began_in_different_terms_have_nothing_in_common() -> None:
    leader = TermHistory.of([ROOT])

    assert common_lsn(leader, TermHistory.of([(2, 1, 100)]), Lsn(150)) == INVALID_LSN
