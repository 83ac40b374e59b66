"""The small files of a base backup, on their way into the first layer."""

import struct
from pathlib import Path

import pytest

from pageserver.basestate import add_state, parse_origins
from pageserver.errors import BootstrapFailed
from walcore import PageUnreadable
from walcore._native import BaseWriter, Layer, Reader, crc32c

LSN = 0x2000028


def origins_file(*origins: tuple[int, int]) -> bytes:
    body = struct.pack("<I", 0x1257DADE) + b"".join(struct.pack("<HxxxxxxQ", *origin) for origin in origins)
    return body + crc32c(body).to_bytes(4, "little")


def control_file(*, next_xid: int) -> bytes:
    file = bytearray(296)
    struct.pack_into("<Q", file, 40 + 24, next_xid)
    struct.pack_into("<B", file, 200, 1)
    return bytes(file)


def layer(tmp_path: Path, files: dict[str, bytes]) -> Reader:
    path = tmp_path / "base"
    writer = BaseWriter(str(path), lsn=LSN, system_id=1)
    add_state(writer, files, files.__getitem__, tablespaces={16400: "/srv/fast", 16500: ""}, major=18)
    writer.finish()
    return Reader(
        [Layer.open(str(path))],
        wal_dir=str(tmp_path),
        tli=1,
        segment_size=1 << 24,
        major=18,
        hint_bits_logged=[(0, False)],
    )


def test_every_small_file_is_answered_for(tmp_path: Path) -> None:
    reader = layer(
        tmp_path,
        {
            "global/pg_control": control_file(next_xid=(5 << 32) + 10),
            "global/pg_filenode.map": b"shared",
            "base/5/PG_VERSION": b"18\n",
            "base/5/pg_filenode.map": b"five",
            "pg_tblspc/16400/PG_18_202506291/7/PG_VERSION": b"18\n",
            "pg_tblspc/16400/PG_18_202506291/7/pg_filenode.map": b"seven",
            "pg_logical/replorigin_checkpoint": origins_file((1, 0x123), (9, 0x456)),
        },
    )

    assert reader.relation_map(1664, 0, LSN) == b"shared"
    assert reader.relation_map(1663, 5, LSN) == b"five"
    assert reader.relation_map(16400, 7, LSN) == b"seven"
    assert reader.relation_map(1663, 7, LSN) is None
    assert reader.databases(LSN) == [(1663, 5), (16400, 7)]
    assert reader.tablespaces(LSN) == [(16400, b"/srv/fast"), (16500, b"")]
    control = reader.control(LSN)
    assert control["origins"] == {1: 0x123, 9: 0x456}
    assert control["now"]["next_xid"] == (5 << 32) + 10
    assert control["parameters"]["track_commit_timestamp"] is True


def test_a_prepared_transaction_that_had_ended_is_none(tmp_path: Path) -> None:
    page = bytearray(8192)
    # Transaction 9 is committed, 8 is in progress.
    page[9 // 4] = 1 << 9 % 4 * 2
    status = tmp_path / "0000"
    status.write_bytes(page)
    writer = BaseWriter(str(tmp_path / "base"), lsn=LSN, system_id=1)
    writer.add_slru("pg_xact", [(0, str(status))])
    writer.add_control(control_file(next_xid=(5 << 32) + 10), [], 18)
    writer.add_prepared(8, b"eight")
    writer.add_prepared(9, b"nine")
    writer.finish()
    reader = Reader(
        [Layer.open(str(tmp_path / "base"))],
        wal_dir=str(tmp_path),
        tli=1,
        segment_size=1 << 24,
        major=18,
        hint_bits_logged=[(0, False)],
    )

    assert reader.prepared(LSN) == [((5 << 32) + 8, b"eight")]


def test_counters_that_ingest_was_not_told_are_refused(tmp_path: Path) -> None:
    BaseWriter(str(tmp_path / "base"), lsn=LSN, system_id=1).finish()
    reader = Reader(
        [Layer.open(str(tmp_path / "base"))],
        wal_dir=str(tmp_path),
        tli=1,
        segment_size=1 << 24,
        major=18,
        hint_bits_logged=[(0, False)],
    )

    with pytest.raises(PageUnreadable, match="counters are not known"):
        reader.control(LSN)


def test_a_damaged_file_of_origins_is_refused() -> None:
    file = origins_file((1, 2))

    assert parse_origins(file) == [(1, 2)]
    for wrong in (b"", file[:-1], file[:-1] + b"\0", file[:4] + file[8:]):
        with pytest.raises(BootstrapFailed, match="origins"):
            parse_origins(wrong)
