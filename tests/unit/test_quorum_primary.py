"""A primary is followed only if its WAL extends the log. docs/quorum.md rules 15 and 16."""

from dataclasses import replace

import pytest

from walproxy.quorum.errors import PrimaryRefused
from walproxy.quorum.primary import (
    Overlap,
    PrimaryIdentity,
    Proof,
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


def compared(ours: bytes, *, record_end: int = 0) -> Proof:
    """A proof once the primary has sent `ours` again, from 0x5000000 on, and our records end at `record_end`."""
    overlap = Overlap(Lsn(0x5000000), ours)
    proof = Proof(Lsn(0x5000000 + len(ours)), is_needed=True, harmless_lsn=Lsn(0x4000F00))
    assert not proof.is_given
    proof.on_received(Lsn(overlap.end_lsn - 1), overlap, record_end_lsn=overlap.end_lsn)
    assert not proof.is_given
    proof.on_received(overlap.end_lsn, overlap, record_end_lsn=Lsn(record_end or overlap.end_lsn))
    return proof


def test_a_primary_that_has_sent_the_end_of_our_log_has_our_log_rule_16() -> None:
    assert compared(b"p" * 100 + bytes(100)).is_given


def test_headers_of_pages_and_zeros_prove_nothing_but_a_record_more_does_rule_16() -> None:
    blank = (b"header".ljust(24, b"!") + bytes(8168)) * 3
    assert not compared(blank).is_given
    assert not compared(b"").is_given
    assert compared(blank, record_end=0x5000000 + len(blank) + 40).is_given
    assert compared(b"", record_end=0x5000040).is_given


def test_what_is_told_before_the_proof_was_told_before_rule_16() -> None:
    assert Proof(Lsn(500), is_needed=True, harmless_lsn=Lsn(300)).harmless_lsn == 300
    assert Proof(Lsn(500), is_needed=True, harmless_lsn=Lsn(700)).harmless_lsn == 500
    assert Proof(Lsn(500), is_needed=False, harmless_lsn=Lsn(0)).is_given


def test_the_comparison_begins_with_the_last_record_if_only_zeros_follow_it_rule_16() -> None:
    def start(last_record_lsn: int) -> int:
        return plan_stream(
            PRIMARY,
            cluster=CLUSTER,
            tli=1,
            history=b"",
            local_start_lsn=Lsn(SEGMENT),
            end_lsn=Lsn(0x5000000),
            last_record_lsn=Lsn(last_record_lsn),
        ).start_lsn

    usual = start(0)
    assert 0x4000000 < usual < 0x5000000
    assert start(0x4100030) == 0x4100000
    assert start(usual + 5) == usual
    assert start(0x3FFFF00) == usual, "another segment, which the slot need not hold"
