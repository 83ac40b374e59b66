"""Local WAL files."""

import os
from pathlib import Path

import pytest

from pageserver.errors import DataDamaged, Poisoned
from pageserver.segments import WalFiles

SEGMENT = 1 << 20


@pytest.fixture
def files(tmp_path: Path) -> WalFiles:
    return WalFiles(tmp_path, tli=1, segment_size=SEGMENT)


def test_wal_across_a_boundary_lands_in_two_files_and_is_read_back(files: WalFiles, tmp_path: Path) -> None:
    wal = bytes(range(256)) * 8192

    files.write(SEGMENT + 4096, wal)
    files.sync()

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "000000010000000000000001",
        "000000010000000000000002",
        "000000010000000000000003",
    ]
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {SEGMENT}
    assert b"".join(files.read(SEGMENT + 4096))[: len(wal)] == wal


def test_what_was_not_written_is_zeros(files: WalFiles) -> None:
    files.write(SEGMENT + 8192, b"x")

    assert b"".join(files.read(SEGMENT)) == bytes(8192) + b"x" + bytes(SEGMENT - 8193)


def test_a_missing_or_short_segment_is_damage(files: WalFiles, tmp_path: Path) -> None:
    files.write(SEGMENT, b"x" * (2 * SEGMENT))
    files.check_whole(SEGMENT, 3 * SEGMENT)

    with pytest.raises(DataDamaged, match="missing"):
        files.check_whole(SEGMENT, 3 * SEGMENT + 1)
    with (tmp_path / "000000010000000000000002").open("r+b") as file:
        file.truncate(100)
    with pytest.raises(DataDamaged, match="cut short"):
        files.check_whole(SEGMENT, 3 * SEGMENT)


def test_a_segment_that_was_begun_and_not_allocated_is_allocated(files: WalFiles, tmp_path: Path) -> None:
    path = tmp_path / "000000010000000000000001"
    path.touch()

    files.write(SEGMENT, b"x")

    assert path.stat().st_size == SEGMENT


def test_only_the_growing_file_stays_open(files: WalFiles) -> None:
    files.write(SEGMENT, b"x" * (5 * SEGMENT + 1))

    assert files.open_files == 6
    files.sync()
    assert files.open_files == 1


def test_a_disk_that_refuses_poisons(tmp_path: Path) -> None:
    files = WalFiles(tmp_path / "missing", tli=1, segment_size=SEGMENT)

    with pytest.raises(Poisoned, match="cannot write wal"):
        files.write(SEGMENT, b"x")


def test_what_an_earlier_process_wrote_is_written_again(
    files: WalFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the page cache shows what the disk never got, and no other sync writes it."""
    wal = bytes(range(1, 256)) * 8192
    files.write(SEGMENT + 5000, wal)
    files.close()
    pieces: list[bytes] = []
    pwrite = os.pwrite

    def kept(fd: int, data: memoryview, offset: int) -> int:
        pieces.append(bytes(data))
        return pwrite(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", kept)
    again = WalFiles(tmp_path, tli=1, segment_size=SEGMENT)
    again.adopt(SEGMENT + 5000, SEGMENT + 5000 + len(wal))

    assert b"".join(pieces) == wal
    assert b"".join(again.read(SEGMENT + 5000))[: len(wal)] == wal
    assert again.open_files == 2, "the next sync covers them"
