"""What of a base backup's small files goes into the first layer: counters, relation maps, prepared transactions."""

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pageserver.backupfiles import DEFAULT_TABLESPACE, GLOBAL_TABLESPACE
from pageserver.errors import BootstrapFailed
from walcore._native import BaseWriter, crc32c

CONTROL_FILE: Final = "global/pg_control"
ORIGINS_FILE: Final = "pg_logical/replorigin_checkpoint"
# Source: REPLICATION_STATE_MAGIC in src/backend/replication/logical/origin.c.
_ORIGINS_MAGIC = 0x1257DADE
_ORIGIN = struct.Struct("<HxxxxxxQ")
_DATABASE = re.compile(
    r"(?:global|base/(?P<db>\d{1,10})|pg_tblspc/(?P<spc>\d{1,10})/[^/]+/(?P<tdb>\d{1,10}))"
    r"/(?P<file>PG_VERSION|pg_filenode\.map)",
    re.ASCII,
)
_PREPARED = re.compile(r"pg_twophase/(?:[0-9A-F]{8})?([0-9A-F]{8})", re.ASCII)


def add_state(
    writer: BaseWriter,
    names: Iterable[str],
    read: Callable[[str], bytes],
    *,
    tablespaces: Mapping[int, str],
    major: int,
) -> None:
    """Add the small files of a base backup to its layer.

    Args:
        writer: of the layer.
        names: paths of the files that there are.
        read: gives the bytes of one.
        tablespaces: where each is linked to; empty: in place.
        major: version of the server.

    Raises:
        BootstrapFailed: the file of replication origins is damaged.
    """
    names = sorted(names)
    origins = parse_origins(read(ORIGINS_FILE)) if ORIGINS_FILE in names else []
    writer.add_control(read(CONTROL_FILE), origins, major)
    for spc, path in tablespaces.items():
        writer.add_tablespace(spc, path.encode())
    for name in names:
        if match := _PREPARED.fullmatch(name):
            writer.add_prepared(int(match[1], 16), read(name))
        elif match := _DATABASE.fullmatch(name):
            spc, db = database_of(match)
            if match["file"] == "pg_filenode.map":
                writer.add_relation_map(spc, db, read(name))
            elif db:
                writer.add_database(spc, db)


def database_of(match: re.Match[str]) -> tuple[int, int]:
    """Tablespace and database of a path below `base`, `pg_tblspc` or `global`."""
    if match["spc"] is not None:
        return int(match["spc"]), int(match["tdb"])
    if match["db"] is not None:
        return DEFAULT_TABLESPACE, int(match["db"])
    return GLOBAL_TABLESPACE, 0


def parse_origins(data: bytes) -> list[tuple[int, int]]:
    """Read ``pg_logical/replorigin_checkpoint``: number and position of each replication origin.

    Raises:
        BootstrapFailed: it is not what was written.

    Source:
        ``CheckPointReplicationOrigin`` in ``src/backend/replication/logical/origin.c``.
    """
    body, stored = data[:-4], data[-4:]
    magic = int.from_bytes(body[:4], "little")
    is_whole = len(body) >= 4 and (len(body) - 4) % _ORIGIN.size == 0
    if not is_whole or magic != _ORIGINS_MAGIC or crc32c(body).to_bytes(4, "little") != stored:
        raise BootstrapFailed("the file of replication origins is damaged", bytes=len(data))
    return list(_ORIGIN.iter_unpack(body[4:]))
