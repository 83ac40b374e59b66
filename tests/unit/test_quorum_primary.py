"""A primary is followed only if its WAL extends the log. docs/quorum.md rules 15 and 16."""

from dataclasses import replace

import pytest

from walproxy.quorum.errors import PrimaryRefused
from walproxy.quorum.primary import (
    Overlap,
    PrimaryIdentity,
    StreamPlan,
    plan_first_stream,
    plan_stream,
    switch_lsn,
)
from walproxy.quorum.state import Cluster
from walproxy.wire.lsn import INVALID_LSN, Lsn

SEGMENT = 16 << 20
CLUSTER = Cluster(7, SEGMENT, 18)
PRIMARY = PrimaryIdentity(CLUSTER, 1, Lsn(0x5001000), Lsn(0x4000F00), "18.1")


def plan(
    primary: PrimaryIdentity, *, end: int, tli: int = 1, history: bytes = b"", start: int = SEGMENT
) -> StreamPlan:
    return plan_stream(
        primary, cluster=CLUSTER, tli=tli, history=history, local_start_lsn=Lsn(start), end_lsn=Lsn(end)
    )


def test_the_log_begins_with_the_segment_of_the_slot_rule_15() -> None:
    assert plan_first_stream(PRIMARY) == StreamPlan(Lsn(0x4000000), Lsn(0x4000000), 1)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"cluster": replace(CLUSTER, system_id=8)}, "another cluster"),
        ({"cluster": replace(CLUSTER, segment_size=1 << 20)}, "another cluster"),
        ({"cluster": replace(CLUSTER, major=17)}, "another major"),
        ({"flush_lsn": Lsn(0x5000FFF)}, "behind"),
        ({"tli": 3, "history": b"1\t0/5000FFF\tx\n"}, "left our timeline before"),
        ({"tli": 3, "history": b"2\t0/6000000\tx\n"}, "left our timeline before"),
    ],
)
def test_a_primary_that_does_not_extend_the_log_is_refused_rule_16(
    change: dict[str, object], why: str
) -> None:
    primary = replace(PRIMARY, **change)  # type: ignore[arg-type]

    with pytest.raises(PrimaryRefused, match=why) as refused:
        plan(primary, end=0x5001000)

    assert refused.value.advice


def test_a_primary_on_a_timeline_that_was_left_is_refused_rule_16() -> None:
    with pytest.raises(PrimaryRefused, match="timeline that was left"):
        plan(PRIMARY, end=0x5001000, tli=2)


def test_two_timelines_of_one_number_are_told_apart_rule_16() -> None:
    primary = replace(PRIMARY, tli=2, history=b"1\t0/4000000\tone\n")

    with pytest.raises(PrimaryRefused, match="another history"):
        plan(primary, end=0x5001000, tli=2, history=b"1\t0/4000100\ttwo\n")


def test_a_promoted_standby_that_has_all_of_the_log_is_followed_on_the_old_timeline_first_rule_16() -> None:
    primary = replace(PRIMARY, tli=2, history=b"1\t0/5001000\tpromoted\n", flush_lsn=Lsn(0x5002000))

    assert plan(primary, end=0x5001000).tli == 1


@pytest.mark.parametrize(
    ("end", "start", "expected"),
    [
        (0x5001000, SEGMENT, 0x5000000),  # Within the first page of a segment: no further back than it.
        (0x5000000, SEGMENT, 0x4FF0000),  # At a segment's start: the last pages of the one before.
        (0x5100010, SEGMENT, 0x50F2000),  # Eight pages, the one of the end included.
        (0x5100000, SEGMENT, 0x50F0000),
        (0x5001000, 0x5000000, 0x5000000),
        (0x5000000, 0x5000000, 0x5000000),  # A log without a byte: nothing to compare.
    ],
)
def test_the_overlap_begins_at_a_page_rule_16(end: int, start: int, expected: int) -> None:
    found = plan(replace(PRIMARY, flush_lsn=Lsn(end)), end=end, start=start)

    assert (found.start_lsn, found.proven_lsn) == (expected, end)


def test_equal_bytes_are_swallowed_and_what_follows_comes_out_rule_16() -> None:
    overlap = Overlap(Lsn(100), b"abcdef")

    assert overlap.check(Lsn(100), b"abc") == (103, b"")
    assert overlap.check(Lsn(103), b"defgh") == (106, b"gh")
    assert overlap.check(Lsn(108), b"ij") == (108, b"ij")


def test_other_bytes_are_refused_rule_16() -> None:
    overlap = Overlap(Lsn(100), b"abcdef")

    with pytest.raises(PrimaryRefused, match="at=0/67"):
        overlap.check(Lsn(100), b"abcxefgh")


def test_a_history_file_is_read_as_postgres_does() -> None:
    history = b"# made by hand\n\n1\t0/3000060\tno recovery target specified\n\n2 16/0004D848\tagain\n"

    assert switch_lsn(history, 1) == 0x3000060
    assert switch_lsn(history, 2) == 0x16_0004D848
    assert switch_lsn(history, 3) == INVALID_LSN
