"""Reading segments in parallel gives what reading them in one go gives, and stops where that stops."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.synthetic_wal import WalWriter
from walcore._native import WalDump, WalInspector
from walproxy.inspect.waldump import run as waldump
from walproxy.inspect.waldump.asked import arguments_for
from walproxy.wire.lsn import segment_name

SEGMENT = 1 << 20
START = 5 * SEGMENT


def wal_of(payloads: Sequence[int]) -> WalWriter:
    """Whole segments; a record for each length given, and again from the first, to the end of the third segment."""
    writer = WalWriter(START)
    while True:
        for length in payloads:
            if writer.end_lsn + length + 8192 > START + 3 * SEGMENT:
                writer.record_up_to(START + 3 * SEGMENT)
                return writer
            writer.record(b"x" * length)


def segments(wal: bytes) -> list[str | bytes]:
    return [wal[at : at + SEGMENT] for at in range(0, len(wal), SEGMENT)]


def in_one_go(wal: bytes) -> tuple[bytes, int]:
    inspector = WalInspector(START, segment_size=SEGMENT)
    return inspector.waldump(wal, last=True), inspector.record_end_lsn


def in_parallel(wal: bytes, step: int) -> tuple[bytes, int]:
    dump, text = WalDump(START, segment_size=SEGMENT, text=True), b""
    while True:
        before = dump.next_lsn
        first = (before - START) // SEGMENT
        text += dump.read(START + first * SEGMENT, segments(wal)[first:], length=step)
        if dump.next_lsn == before or dump.next_lsn >= START + len(wal):
            return text, dump.next_lsn


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9000), min_size=1, max_size=5), st.integers(1, SEGMENT))
def test_records_are_the_same_whatever_is_read_at_a_time(payloads: list[int], step: int) -> None:
    wal = bytes(wal_of(payloads).wal)

    assert in_parallel(wal, step) == in_one_go(wal)


def test_a_record_longer_than_a_segment_is_read_over_several() -> None:
    writer = WalWriter(START)
    writer.record(b"before")
    writer.record(b"x" * (SEGMENT * 3 // 2))
    writer.record_up_to(START + 3 * SEGMENT)
    wal = bytes(writer.wal)

    assert in_parallel(wal, 1 << 30) == in_one_go(wal)
    assert len(in_one_go(wal)[0].splitlines()) > 2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 3 * SEGMENT - 1), st.integers(0, 7))
@example(SEGMENT + 24, 0)
def test_a_flipped_bit_gives_the_same_records_or_stops_the_reading(at: int, bit: int) -> None:
    """As pg_waldump, does not ask of each segment that it is of the same cluster: the records say so."""
    whole = bytes(wal_of([100, 3000, 40]).wal)
    wal = bytearray(whole)
    wal[at] ^= 1 << bit

    text = in_parallel(bytes(wal), SEGMENT)[0]

    assert in_one_go(whole)[0].startswith(text)
    assert text.startswith(in_one_go(bytes(wal))[0])


def test_a_stale_segment_is_not_taken_for_what_follows() -> None:
    """Its pages are good, its records too; but the first does not point back to what was read before."""
    first = WalWriter(START)
    first.fill(START + SEGMENT - 8192)
    first.record_up_to(START + SEGMENT)
    for prev_lsn in (first.prev_lsn, first.prev_lsn - 8192):
        then = WalWriter(START + SEGMENT, prev_lsn=prev_lsn)
        then.fill(START + 2 * SEGMENT - 8192)
        then.record_up_to(START + 2 * SEGMENT)
        wal = bytes(first.wal + then.wal)

        text, end_lsn = in_parallel(wal, 1 << 30)

        assert (text, end_lsn) == in_one_go(wal)
        assert end_lsn == START + SEGMENT * (2 if prev_lsn == first.prev_lsn else 1)


def test_a_limit_and_a_filter_choose_in_order() -> None:
    wal = bytes(wal_of([50, 500]).wal)
    lines = in_one_go(wal)[0].splitlines(keepends=True)
    for limit in (1, 700, len(lines), len(lines) + 1):
        dump = WalDump(START, segment_size=SEGMENT, text=True, limit=limit)
        assert dump.read(START, segments(wal), length=1 << 30) == b"".join(lines[:limit])
        assert dump.done == (limit <= len(lines))

    dump = WalDump(START, segment_size=SEGMENT, text=True, rmgrs=[10])
    assert dump.read(START, segments(wal), length=1 << 30) == b""
    assert (dump.shown, dump.next_lsn) == (0, START + len(wal))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["wal", "--format=pg_waldump", "-z"], ["wal", "-z"]),
        (["--format", "pg_waldump", "wal"], ["wal"]),
        (["wal", "--format=table"], None),
        (["wal", "--format=pg_waldump", "--continue"], None),
    ],
)
def test_a_command_line_for_pg_waldump_is_known(arguments: list[str], expected: list[str] | None) -> None:
    assert arguments_for(arguments) == expected


def test_options_may_be_cut_short_and_stand_anywhere(tmp_path: Path) -> None:
    wal = bytes(wal_of([100]).wal)
    for number in range(3):
        name = segment_name(1, START + number * SEGMENT, SEGMENT)
        (tmp_path / name).write_bytes(wal[number * SEGMENT :][:SEGMENT])
    first = segment_name(1, START, SEGMENT)

    def ours(*arguments: str) -> tuple[int, bytes, str]:
        out, complaints = io.BytesIO(), list[str]()
        code = waldump.run(arguments, {"PGDATA": "/nowhere"}, out, complaints.append)
        return code, out.getvalue(), "".join(complaints)

    whole = ours(f"{tmp_path}/{first}")
    assert (whole[0], whole[2]) == (0, "")
    assert len(whole[1]) > 100_000
    assert ours(first, "--pa", str(tmp_path)) == whole
    assert ours("-p", str(tmp_path), first, "--stat")[1].startswith(b"WAL statistics between 0/500028 and 0/")
    assert "option --st not a unique prefix" in ours("--st", "x")[2]
    code, _, complaint = ours("-p", str(tmp_path), "-s", "0/700000")
    missing = segment_name(1, START + len(wal), SEGMENT)
    assert code == 1
    assert complaint == f'pg_waldump: error: could not find file "{missing}": No such file or directory\n'
