"""Which files of a base backup are taken."""

import pytest

from pageserver.backupfiles import (
    BackupLabel,
    RelationFile,
    SlruFile,
    StateFile,
    classify,
    parse_backup_label,
)
from pageserver.errors import BootstrapFailed
from walproxy.wire.lsn import Lsn

TAKEN = {
    "base/5/16384": RelationFile(1663, 5, 16384, 0, 0),
    "base/5/16384.3": RelationFile(1663, 5, 16384, 0, 3),
    "base/5/16384_vm": RelationFile(1663, 5, 16384, 2, 0),
    "base/5/16384_vm.1": RelationFile(1663, 5, 16384, 2, 1),
    "base/5/16384_init": RelationFile(1663, 5, 16384, 3, 0),
    "global/1262": RelationFile(1664, 0, 1262, 0, 0),
    "pg_tblspc/16400/PG_15_202209061/5/16401": RelationFile(16400, 5, 16401, 0, 0),
    "pg_xact/0000": SlruFile("pg_xact", 0),
    "pg_multixact/members/1AF03": SlruFile("pg_multixact/members", 0x1AF03),
    "pg_multixact/offsets/00FF": SlruFile("pg_multixact/offsets", 255),
    "pg_commit_ts/000A": SlruFile("pg_commit_ts", 10),
    "backup_label": StateFile("backup_label"),
    "global/pg_control": StateFile("global/pg_control"),
    "base/5/pg_filenode.map": StateFile("base/5/pg_filenode.map"),
    "pg_twophase/000000000000030A": StateFile("pg_twophase/000000000000030A"),
}

LEFT = [
    "base/5/16384_fsm",
    "base/5/t3_16384",
    "base/5/pg_internal.init",
    "base/5/16384.0",
    "base/5/0",
    "base/5/4294967296",
    "base/5/../../etc/passwd",
    "/base/5/16384",
    "../base/5/16384",
    "base//5/16384",
    "base/5/16384/x",
    "base/5/16384\n",
    "base/\u0665/16384",
    "pg_tblspc/16400/PG_15_202209061/../5/16401",
    "pg_tblspc/16400",
    "pg_wal/000000010000000000000001",
    "postgresql.conf",
    "pg_xact/../0000",
    "",
]


@pytest.mark.parametrize("path", TAKEN)
def test_a_file_that_holds_data_is_taken(path: str) -> None:
    assert classify(path) == TAKEN[path]


@pytest.mark.parametrize("path", LEFT)
def test_any_other_path_is_left(path: str) -> None:
    assert classify(path) is None


LABEL = """START WAL LOCATION: 2/12000028 (file 000000030000000200000012)
CHECKPOINT LOCATION: 2/120A68D0
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-22 14:00:00 UTC
LABEL: pageserver
START TIMELINE: 3
"""


def test_a_backup_label_tells_where_redo_begins() -> None:
    assert parse_backup_label(LABEL) == BackupLabel(Lsn(0x2_1200_0028), Lsn(0x2_120A_68D0), 3)


@pytest.mark.parametrize("number", [0, 1, 6])
def test_a_backup_label_without_a_line_is_refused(number: int) -> None:
    lines = LABEL.splitlines(keepends=True)
    del lines[number]

    with pytest.raises(BootstrapFailed, match="lacks a line"):
        parse_backup_label("".join(lines))


def test_an_incremental_backup_is_refused() -> None:
    with pytest.raises(BootstrapFailed, match="incremental"):
        parse_backup_label(LABEL + "INCREMENTAL FROM LSN: 0/1\n")
