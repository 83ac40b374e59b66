"""The primary's settings as the WAL tells them."""

from typing import Any

import pytest

from pageserver.manifest import FullPageWrites
from pageserver.primary import PrimarySettings


def settings(*, is_on: bool = True, checksums: bool = False) -> PrimarySettings:
    return PrimarySettings(checksums, FullPageWrites(is_on, 100), [(100, checksums)])


def fpw_change(lsn: int, *, is_on: bool) -> dict[str, Any]:
    return {"kind": "fpw_change", "lsn": lsn, "end_lsn": lsn + 32, "full_page_writes": is_on}


def checkpoint(lsn: int, redo_lsn: int, *, is_on: bool) -> dict[str, Any]:
    return {"kind": "checkpoint", "lsn": lsn, "redo_lsn": redo_lsn, "full_page_writes": is_on}


def parameter_change(lsn: int, *, wal_log_hints: bool) -> dict[str, Any]:
    return {"kind": "parameter_change", "lsn": lsn, "wal_log_hints": wal_log_hints}


def test_a_change_counts_from_its_record_on() -> None:
    found = settings()

    found.follow([fpw_change(200, is_on=False), fpw_change(300, is_on=False)])

    assert found.full_page_writes == FullPageWrites(is_on=False, lsn=200)


def test_a_checkpoint_speaks_of_its_redo_point() -> None:
    found = settings()

    found.follow([checkpoint(300, 200, is_on=False)])

    assert found.full_page_writes == FullPageWrites(is_on=False, lsn=200)


def test_a_change_between_redo_point_and_checkpoint_record_stands() -> None:
    found = settings()

    found.follow([fpw_change(250, is_on=False), checkpoint(300, 200, is_on=True)])

    assert found.full_page_writes == FullPageWrites(is_on=False, lsn=250)


@pytest.mark.parametrize("checksums", [False, True])
def test_hint_bits_are_logged_with_wal_log_hints_or_checksums(checksums: bool) -> None:
    found = settings(checksums=checksums)

    found.follow([parameter_change(200, wal_log_hints=True), parameter_change(300, wal_log_hints=False)])

    assert found.hint_steps == ([(100, True)] if checksums else [(100, False), (200, True), (300, False)])
