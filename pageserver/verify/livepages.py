"""Pages of the live server: through its buffers with pageinspect, or from its files after a checkpoint."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import LiteralString, Protocol

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from pageserver.verify.anatomy import PAGE_BYTES
from pageserver.verify.catalog import Connection, Relation, RelationKey, Server, Table
from pageserver.verify.errors import RelationBusy, RelationGone
from pageserver.verify.relationfile import SEGMENT_BLOCKS, file_name, folder_path
from walproxy.wire.lsn import Lsn

_SETTLED_BLOCKS_MAX = 1024
_FLUSH_PAUSES_S = (0.002, 0.004, 0.008, 0.016, 0.032)
_SETTLE_S = 0.05

_POSITION = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8"
_FLUSHED = "SELECT (pg_current_wal_flush_lsn() - '0/0')::int8"
_COMMIT = "SELECT pg_logical_emit_message(true, 'pageserver verify', '')"
_SETTINGS: tuple[LiteralString, ...] = (
    "SET search_path = ''",
    "SET statement_timeout = 0",
    "SET lock_timeout = '1s'",
    "SET idle_in_transaction_session_timeout = 0",
    "SET default_transaction_isolation = 'read committed'",
    "SET synchronous_commit = local",
)


class LivePages(Protocol):
    """One way to read pages of the live server."""

    async def position(self) -> Lsn:
        """The insert position of the WAL now."""

    async def size(self, relation: Relation, fork: str) -> int:
        """Blocks of a fork; 0 if it does not exist."""

    async def sample(self, relation: Relation, fork: str, blocks: Sequence[int]) -> tuple[Lsn, list[bytes]]:
        """An insert position, and pages read after it, one a block.

        Raises:
            RelationGone: a block is no longer there.
        """

    async def settle(self, relation: Relation, blocks: Sequence[int]) -> None:
        """Wait until whoever was changing these blocks of the main fork has inserted the record of it."""


async def connect(conninfo: str, *, dbname: str | None = None) -> Connection:
    """Connect to the live server for reading pages. Raises psycopg.OperationalError."""
    target = make_conninfo(conninfo, dbname=dbname) if dbname else conninfo
    connection: Connection = await psycopg.AsyncConnection.connect(
        target, autocommit=True, application_name="pageserver verify", prepare_threshold=2
    )
    for setting in _SETTINGS:
        await connection.execute(setting)
    if connection.info.server_version >= 170000:
        await connection.execute("SET transaction_timeout = 0")
    return connection


@asynccontextmanager
async def held(connection: Connection, table: Table) -> AsyncIterator[None]:
    """Hold a table and its indexes under ACCESS SHARE.

    Planning a query locks a relation of any kind and all its indexes until the transaction ends, which LOCK
    TABLE does not; EXPLAIN does not run it.

    Raises:
        RelationBusy: a stronger lock is in the way.
        RelationGone: no relation of that name.
    """
    plan = sql.SQL("EXPLAIN SELECT 1 FROM ONLY {}").format(sql.Identifier(table.schema, table.name))
    async with connection.transaction():
        try:
            await connection.execute(plan, prepare=False)
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            raise RelationBusy(str(table)) from error
        except (errors.UndefinedTable, errors.InvalidSchemaName) as error:
            raise RelationGone(str(table)) from error
        yield


async def _number(connection: Connection, query: LiteralString) -> int:
    cursor = await connection.execute(query)
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def read_position(connection: Connection) -> Lsn:
    """The insert position of the WAL now."""
    return Lsn(await _number(connection, _POSITION))


async def checkpoint(connection: Connection) -> Lsn:
    """Have the server write out its buffers; the position before."""
    before = await read_position(connection)
    await connection.execute("CHECKPOINT")
    return before


class Flusher:
    """Has the primary flush its WAL, so that it is sent. Shared by all who wait for a position."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = asyncio.Lock()
        self._flushed_lsn = Lsn(0)

    async def ensure(self, lsn: Lsn) -> None:
        """Return when WAL is flushed up to `lsn`.

        What has no commit behind it stays in the buffers until the WAL writer comes round. If it does not
        soon, a logical message of no content is committed behind it, which is all that is ever written to
        the primary.
        """
        async with self._lock:
            for pause_s in _FLUSH_PAUSES_S:
                if await self._is_flushed(lsn):
                    return
                await asyncio.sleep(pause_s)
            if not await self._is_flushed(lsn):
                await self._connection.execute(_COMMIT)

    async def _is_flushed(self, lsn: Lsn) -> bool:
        if self._flushed_lsn < lsn:
            self._flushed_lsn = Lsn(await _number(self._connection, _FLUSHED))
        return self._flushed_lsn >= lsn


class BufferPages:
    """Pages as the server's own buffers hold them, by pageinspect. Relations must be held meanwhile."""

    def __init__(self, connection: Connection, *, schema: str) -> None:
        self._connection = connection
        self._get_raw_page = sql.SQL(
            "SELECT {}(%(name)s, %(fork)s, b.n)"
            " FROM unnest(%(blocks)s::int8[]) WITH ORDINALITY AS b(n, i) ORDER BY b.i"
        ).format(sql.Identifier(schema, "get_raw_page"))

    async def position(self) -> Lsn:
        return await read_position(self._connection)

    async def size(self, relation: Relation, fork: str) -> int:
        cursor = await self._connection.execute(
            "SELECT pg_relation_size(to_regclass(%s), %s)", (relation.quoted, fork)
        )
        row = await cursor.fetchone()
        if row is None or row[0] is None:
            raise RelationGone(relation.name)
        return int(row[0]) // PAGE_BYTES

    async def sample(self, relation: Relation, fork: str, blocks: Sequence[int]) -> tuple[Lsn, list[bytes]]:
        values = {"name": relation.quoted, "fork": fork, "blocks": list(blocks)}
        pages = self._connection.cursor(binary=True)
        try:
            async with self._connection.pipeline():
                position = await self._connection.execute(_POSITION)
                await pages.execute(self._get_raw_page, values)
            row = await position.fetchone()
            rows = await pages.fetchall()
        except (errors.InvalidParameterValue, errors.UndefinedTable) as error:
            raise RelationGone(relation.name) from error
        assert row is not None
        return Lsn(row[0]), [bytes(page) for (page,) in rows]

    async def settle(self, relation: Relation, blocks: Sequence[int]) -> None:
        """Read the blocks themselves: that waits for the lock under which they are changed and logged."""
        size = await self.size(relation, "main")
        known = [block for block in blocks if block < size][:_SETTLED_BLOCKS_MAX]
        if known:
            await self.sample(relation, "main", known)


class FilePages:
    """Pages as the server's files hold them, for databases and servers that pageinspect does not reach.

    Args:
        checkpointed_lsn: a position read before a checkpoint began that has ended. What was changed before
            it is in the files, so it is the position that goes with every page.
    """

    def __init__(self, connection: Connection, server: Server, checkpointed_lsn: Lsn) -> None:
        self._connection = connection
        self._server = server
        self._checkpointed_lsn = checkpointed_lsn

    async def position(self) -> Lsn:
        return await read_position(self._connection)

    async def size(self, relation: Relation, fork: str) -> int:
        blocks = 0
        while True:
            path = self._path(relation.key, fork, blocks)
            cursor = await self._connection.execute("SELECT size FROM pg_stat_file(%s, true)", (path,))
            row = await cursor.fetchone()
            if row is None or row[0] is None:
                return blocks
            blocks += int(row[0]) // PAGE_BYTES
            if blocks % SEGMENT_BLOCKS or not row[0]:
                return blocks

    async def sample(self, relation: Relation, fork: str, blocks: Sequence[int]) -> tuple[Lsn, list[bytes]]:
        names = [self._path(relation.key, fork, block) for block in blocks]
        offsets = [block % SEGMENT_BLOCKS * PAGE_BYTES for block in blocks]
        pages = self._connection.cursor(binary=True)
        await pages.execute(
            "SELECT pg_read_binary_file(f.name, f.at, 8192, true)"
            " FROM unnest(%s::text[], %s::int8[]) WITH ORDINALITY AS f(name, at, i) ORDER BY f.i",
            (names, offsets),
        )
        found = [bytes(page or b"") for (page,) in await pages.fetchall()]
        if any(len(page) < PAGE_BYTES for page in found):
            raise RelationGone(relation.name)
        return self._checkpointed_lsn, found

    async def settle(self, relation: Relation, blocks: Sequence[int]) -> None:  # noqa: ARG002  # Nothing to wait on.
        await asyncio.sleep(_SETTLE_S)

    def _path(self, key: RelationKey, fork: str, block: int) -> str:
        folder = folder_path(key.spc, key.db, tablespace_folder=self._server.tablespace_folder)
        return f"{folder}/{file_name(key.rel, fork, block)}"
