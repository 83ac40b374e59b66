"""Which files of a base backup the pageserver takes, and what they hold.

Paths come from outside: a file is taken only if its whole path has one of the forms below, and where it is
kept is made of the numbers in it, or of those forms.
"""

import re
from dataclasses import dataclass
from typing import Final

from pageserver.errors import BootstrapFailed
from walproxy.wire.lsn import Lsn, parse_lsn

DEFAULT_TABLESPACE: Final = 1663
GLOBAL_TABLESPACE: Final = 1664
SLRU_KINDS: Final = ("pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts")
FORK_NUMBERS: Final = {"main": 0, "fsm": 1, "vm": 2, "init": 3}

_OID_MAX = 0xFFFF_FFFF
_FILE = r"(?P<rel>[1-9]\d{0,9})(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<segment>[1-9]\d{0,4}))?"
_VERSION_DIR = r"PG_\d{2}_\d{9}"
_RELATION = re.compile(
    rf"(?:base/(?P<db>\d{{1,10}})|global|pg_tblspc/(?P<spc>\d{{1,10}})/{_VERSION_DIR}/(?P<tdb>\d{{1,10}}))/{_FILE}",
    re.ASCII,
)
_SLRU = re.compile(rf"(?P<kind>{'|'.join(SLRU_KINDS)})/(?P<segment>[0-9A-F]{{4,6}}|[0-9A-F]{{15}})")
_STATE = re.compile(
    r"PG_VERSION|backup_label|tablespace_map|global/pg_control|global/pg_filenode\.map"
    r"|base/\d{1,10}/(?:PG_VERSION|pg_filenode\.map)"
    rf"|pg_tblspc/\d{{1,10}}/{_VERSION_DIR}/\d{{1,10}}/(?:PG_VERSION|pg_filenode\.map)"
    r"|pg_twophase/(?:[0-9A-F]{8}|[0-9A-F]{16})|pg_logical/replorigin_checkpoint",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class RelationFile:
    """One segment file of one fork. Sorts in the order in which a layer is written."""

    spc: int
    db: int
    rel: int
    fork: int
    segment: int


@dataclass(frozen=True, slots=True, order=True)
class SlruFile:
    """One segment file of an SLRU."""

    kind: str
    segment: int


@dataclass(frozen=True, slots=True)
class StateFile:
    """A small file that is kept as it is: control file, relation maps, prepared transactions."""

    path: str


def classify(path: str) -> RelationFile | SlruFile | StateFile | None:
    """Say what a file of the data directory holds; None for what the pageserver has no use for.

    Free space maps are advisory and not covered by WAL: they are never stored.
    """
    if _STATE.fullmatch(path):
        return StateFile(path)
    if match := _SLRU.fullmatch(path):
        return SlruFile(match["kind"], int(match["segment"], 16))
    match = _RELATION.fullmatch(path)
    if match is None or match["fork"] == "fsm":
        return None
    if match["spc"] is not None:
        spc, db = int(match["spc"]), int(match["tdb"])
    elif match["db"] is not None:
        spc, db = DEFAULT_TABLESPACE, int(match["db"])
    else:
        spc, db = GLOBAL_TABLESPACE, 0
    rel = int(match["rel"])
    if max(spc, db, rel) > _OID_MAX:
        return None
    return RelationFile(spc, db, rel, FORK_NUMBERS[match["fork"] or "main"], int(match["segment"] or 0))


@dataclass(frozen=True, slots=True)
class BackupLabel:
    """Where redo of a base backup begins."""

    start_lsn: Lsn
    checkpoint_lsn: Lsn
    tli: int


def parse_backup_label(text: str) -> BackupLabel:
    """Read ``backup_label``.

    Raises:
        BootstrapFailed: a line that must be there is not.

    Source:
        ``build_backup_content`` in ``src/backend/access/transam/xlogbackup.c``.
    """
    start = re.search(r"^START WAL LOCATION: (\S+) \(file [0-9A-F]{24}\)$", text, re.MULTILINE)
    checkpoint = re.search(r"^CHECKPOINT LOCATION: (\S+)$", text, re.MULTILINE)
    tli = re.search(r"^START TIMELINE: (\d{1,10})$", text, re.MULTILINE)
    if start is None or checkpoint is None or tli is None:
        raise BootstrapFailed("backup label lacks a line", text=repr(text[:200]))
    if "INCREMENTAL FROM" in text:
        raise BootstrapFailed("the base backup is incremental; a full one is needed")
    return BackupLabel(parse_lsn(start[1]), parse_lsn(checkpoint[1]), int(tli[1]))
