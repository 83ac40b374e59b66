"""What the live server says there is to compare."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from pageserver.verify.anatomy import PageKind
from pageserver.verify.errors import PrimaryUnsuitable, RelationGone

Connection = AsyncConnection[TupleRow]


@dataclass(frozen=True, slots=True)
class Server:
    """Facts of the live server that hold as long as it runs."""

    system_id: int
    major: int
    catalog_version: int
    segment_size: int

    @property
    def tablespace_folder(self) -> str:
        """Name of the folder of this major within a tablespace (``TABLESPACE_VERSION_DIRECTORY``)."""
        return f"PG_{self.major}_{self.catalog_version}"


@dataclass(frozen=True, slots=True)
class Database:
    oid: int
    name: str
    accepts_connections: bool
    is_template: bool


@dataclass(frozen=True, slots=True)
class Table:
    """Whatever a query can name and so lock: a table, materialised view, TOAST table or sequence."""

    oid: int
    schema: str
    name: str

    @property
    def quoted(self) -> str:
        return ".".join('"' + part.replace('"', '""') + '"' for part in (self.schema, self.name))

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class RelationKey:
    """Tablespace, database and relfilenode: what a record names a relation by."""

    spc: int
    db: int
    rel: int

    def __str__(self) -> str:
        return f"{self.spc}/{self.db}/{self.rel}"


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation with storage.

    ``kind`` is None if the pages must tell it; ``increment`` is that of a sequence; ``blocks`` are the sizes
    of the forks, where a catalog listed it.
    """

    key: RelationKey
    name: str
    kind: PageKind | None
    forks: tuple[str, ...]
    quoted: str = ""
    increment: int | None = None
    blocks: tuple[int, ...] = ()


_SERVER = """
SELECT s.system_identifier, current_setting('server_version_num')::int / 10000, s.catalog_version_no,
       pg_size_bytes(current_setting('wal_segment_size')), current_setting('is_superuser') = 'on',
       pg_is_in_recovery()
FROM pg_control_system() s
"""

_DATABASES = """
SELECT oid::int8, datname, datallowconn, datistemplate FROM pg_database
WHERE datconnlimit <> -2 ORDER BY pg_database_size(oid) DESC
"""

_TABLES = """
SELECT c.oid::int8, n.nspname, c.relname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm', 't', 'S') AND c.relpersistence <> 't' AND (%(shared)s OR NOT c.relisshared)
ORDER BY c.relpages DESC, c.oid
"""

_NAMED = """
SELECT DISTINCT t.oid::int8, n.nspname, t.relname
FROM pg_class c
LEFT JOIN pg_index i ON i.indexrelid = c.oid
JOIN pg_class t ON t.oid = coalesce(i.indrelid, c.oid)
    OR (c.relkind IN ('r', 'm') AND t.oid = c.reltoastrelid)
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE c.oid = to_regclass(%(name)s) AND t.relkind IN ('r', 'm', 't', 'S') AND t.relpersistence <> 't'
"""

_RELATIONS = """
SELECT c.oid::int8, n.nspname, c.relname, c.relkind::text, c.relpersistence = 'u', am.amname,
       CASE WHEN c.relisshared THEN 1664 ELSE coalesce(nullif(c.reltablespace, 0), d.dattablespace) END::int8,
       CASE WHEN c.relisshared THEN 0 ELSE d.oid END::int8,
       pg_relation_filenode(c.oid)::int8, s.seqincrement, pg_relation_size(c.oid, 'main') / 8192,
       pg_relation_size(c.oid, 'vm') / 8192, pg_relation_size(c.oid, 'init') / 8192
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_database d ON d.datname = current_database()
LEFT JOIN pg_am used ON used.oid = c.relam
LEFT JOIN pg_am am ON am.amhandler = used.amhandler AND am.oid < 16384
LEFT JOIN pg_sequence s ON s.seqrelid = c.oid
WHERE c.oid = %(oid)s OR c.oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = %(oid)s)
ORDER BY c.oid <> %(oid)s, c.oid
"""

_AVAILABLE = "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pageinspect')"

_PAGEINSPECT = """
SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'pageinspect'
"""


async def read_server(connection: Connection) -> Server:
    """Ask the server who it is.

    Raises:
        PrimaryUnsuitable: not a superuser, or a standby.
    """
    cursor = await connection.execute(_SERVER)
    row = await cursor.fetchone()
    assert row is not None
    system_id, major, catalog_version, segment_size, is_superuser, is_standby = row
    if is_standby:
        raise PrimaryUnsuitable("the server is a standby; verify compares with the primary")
    if not is_superuser:
        raise PrimaryUnsuitable("reading pages takes a superuser; give one in --primary")
    return Server(system_id % 2**64, major, catalog_version, segment_size)


async def list_databases(connection: Connection) -> list[Database]:
    """All databases, largest first, but those whose DROP was interrupted: they are garbage."""
    cursor = await connection.execute(_DATABASES)
    return [Database(*row) for row in await cursor.fetchall()]


async def list_tables(connection: Connection, *, with_shared: bool) -> list[Table]:
    """Everything lockable with storage that outlives its session, largest first."""
    cursor = await connection.execute(_TABLES, {"shared": with_shared})
    return [Table(*row) for row in await cursor.fetchall()]


async def find_tables(connection: Connection, name: str) -> list[Table]:
    """The table that `name` means, or that the index `name` is of, and its TOAST table; or nothing.

    Without a schema it is looked for in ``pg_catalog`` and ``public``.
    """
    async with connection.transaction():
        await connection.execute("SET LOCAL search_path = public")
        cursor = await connection.execute(_NAMED, {"name": name})
        return [Table(*row) for row in await cursor.fetchall()]


async def list_relations(connection: Connection, table: Table) -> list[Relation]:
    """A table and its indexes as they are now.

    Raises:
        RelationGone: it no longer has the name that it was locked by.
    """
    cursor = await connection.execute(_RELATIONS, {"oid": table.oid})
    rows = await cursor.fetchall()
    if not rows or (rows[0][1], rows[0][2]) != (table.schema, table.name):
        raise RelationGone(str(table))
    return [_relation(row) for row in rows if row[3] != "I"]


async def find_pageinspect(connection: Connection) -> str | None:
    """The schema that pageinspect is installed in; None if it is not."""
    cursor = await connection.execute(_PAGEINSPECT)
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def has_pageinspect(connection: Connection) -> bool:
    """Whether the server's installation has pageinspect to create."""
    cursor = await connection.execute(_AVAILABLE)
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


def _relation(row: tuple[Any, ...]) -> Relation:
    oid, schema, name, relkind, is_unlogged, method, spc, db, rel, increment, *sizes = row
    size_of = dict(zip(("main", "vm", "init"), sizes, strict=True))
    table = Table(oid, schema, name)
    forks = ("init",) if is_unlogged else ("main", "vm") if relkind in "rmt" else ("main",)
    return Relation(
        key=RelationKey(spc, db, rel),
        name=str(table),
        kind=_kind(relkind, method),
        forks=forks,
        quoted=table.quoted,
        increment=increment,
        blocks=tuple(int(size_of[fork]) for fork in forks),
    )


def _kind(relkind: str, method: str | None) -> PageKind:
    """How the pages of a relation are laid out, by the built-in access method with its handler, whatever its name.

    Others log generic records.
    """
    if relkind == "S":
        return PageKind.SEQUENCE
    built_in = {kind.value: kind for kind in PageKind if kind not in (PageKind.SEQUENCE, PageKind.VM)}
    return built_in.get(method or "", PageKind.GENERIC)
