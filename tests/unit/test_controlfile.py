"""Control files of every major."""

import struct
from dataclasses import replace

import pytest

from pageserver.controlfile import ControlFile, parse_control_file
from pageserver.errors import BootstrapFailed
from walcore._native import crc32c
from walproxy.wire.lsn import Lsn

# major: (pg_control_version, catalog_version_no, where the checksum is)
VERSIONS = {
    15: (1300, 202209061, 288),
    16: (1300, 202307071, 288),
    17: (1700, 202406281, 288),
    18: (1800, 202506291, 292),
}


def control_file(major: int, *, segment_size: int = 16 << 20, checksums: int = 1, hints: int = 0) -> bytes:
    control_version, catalog_version, crc_at = VERSIONS[major]
    data = bytearray(8192)
    struct.pack_into("<QII", data, 0, 7710996795382860720, control_version, catalog_version)
    struct.pack_into("<Q", data, 32, 0x120A68D0)
    struct.pack_into("<QIIB", data, 40, 0x12000028, 3, 2, 1)
    struct.pack_into("<IB", data, 172, 1, hints)
    struct.pack_into("<IIII", data, 216, 8192, 131072, 8192, segment_size)
    struct.pack_into("<I", data, 252, checksums)
    struct.pack_into("<I", data, crc_at, crc32c(bytes(data[:crc_at])))
    return bytes(data)


EXPECTED = ControlFile(
    system_id=7710996795382860720,
    major=15,
    catalog_version=202209061,
    checkpoint_lsn=Lsn(0x120A68D0),
    redo_lsn=Lsn(0x12000028),
    tli=3,
    full_page_writes=True,
    wal_level=1,
    wal_log_hints=False,
    data_checksums=True,
    segment_size=16 << 20,
)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_control_file_of_each_major_is_read(version: int) -> None:
    expected = replace(EXPECTED, major=version, catalog_version=VERSIONS[version][1])

    assert parse_control_file(control_file(version)) == expected


@pytest.mark.parametrize(
    ("checksums", "hints", "logged"), [(0, 0, False), (1, 0, True), (0, 1, True), (1, 1, True)]
)
def test_hint_bits_are_logged_with_checksums_or_wal_log_hints(
    checksums: int, hints: int, logged: bool
) -> None:
    control = parse_control_file(control_file(18, checksums=checksums, hints=hints))

    assert control.hint_bits_logged is logged


def test_every_flipped_bit_is_noticed() -> None:
    data = control_file(18)

    for bit in range(296 * 8):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BootstrapFailed):
            parse_control_file(bytes(bad))


@pytest.mark.parametrize("segment_size", [0, 1 << 19, 3 << 20, 1 << 31])
def test_an_impossible_segment_size_is_refused(segment_size: int) -> None:
    with pytest.raises(BootstrapFailed, match="segment size"):
        parse_control_file(control_file(16, segment_size=segment_size))


def test_a_cut_off_file_is_refused() -> None:
    with pytest.raises(BootstrapFailed, match="cut short"):
        parse_control_file(control_file(18)[:200])
