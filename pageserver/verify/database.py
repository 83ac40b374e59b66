"""Verifies one database of a live server: its tables and their parts, over parallel connections."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import psycopg
from psycopg import errors

from pageserver.verify.catalog import (
    Connection,
    Database,
    Relation,
    RelationKey,
    Server,
    Table,
    find_pageinspect,
    find_tables,
    has_pageinspect,
    list_relations,
    list_tables,
)
from pageserver.verify.errors import PrimaryUnsuitable, RelationBusy, RelationGone, ServerFailed
from pageserver.verify.forkcheck import ForkCheck
from pageserver.verify.livepages import (
    BufferPages,
    FilePages,
    Flusher,
    LivePages,
    checkpoint,
    connect,
    held,
)
from pageserver.verify.ourpages import Pageserver
from pageserver.verify.report import Report, Section
from walproxy.wire.lsn import Lsn

PART_BLOCKS = 4096
_TRIES_MAX = 30
_PAUSE_S = 0.5
_IDLE_S = 0.02

Advance = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to compare with what.

    Args:
        wait_s: how long the pageserver may take to reach a position that the primary has flushed.
    """

    primary: str
    pageserver: str
    relations: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    jobs: int = 4
    create_extension: bool = False
    wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Job:
    """What every part of one run shares. ``advance`` is told what was read, and how many pages of it."""

    options: Options
    server: Server
    flusher: Flusher
    report: Report
    advance: Advance


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of one fork, from ``start`` on."""

    key: RelationKey
    fork: str
    start: int


@dataclass(frozen=True, slots=True)
class Task:
    """A table with its indexes, or a part of one of them."""

    table: Table
    part: Part | None = None
    tries: int = 1


class DatabaseCheck:
    """The comparison of one database that accepts connections."""

    def __init__(self, job: Job, database: Database, *, with_shared: bool) -> None:
        self._job = job
        self._database = database
        self._with_shared = with_shared
        self._tasks: deque[Task] = deque()
        self._running = 0

    async def run(self, ours: Sequence[Pageserver]) -> bool:
        """Compare with as many connections as `ours` has. False if no relation asked for is in this database.

        Raises:
            PrimaryUnsuitable: pageinspect is missing.
            ServerFailed: a connection broke.
        """
        async with AsyncExitStack() as stack:
            connections = []
            for _ in ours:
                connection = await connect(self._job.options.primary, dbname=self._database.name)
                connections.append(await stack.enter_async_context(connection))
            self._tasks.extend(Task(table) for table in await self._tables(connections[0]))
            if not self._tasks:
                return False
            live = await self._live_pages(connections)
            try:
                async with asyncio.TaskGroup() as group:
                    for worker in zip(connections, live, ours, strict=True):
                        group.create_task(self._work(*worker))
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
        return True

    async def _tables(self, connection: Connection) -> list[Table]:
        names = self._job.options.relations
        if not names:
            return await list_tables(connection, with_shared=self._with_shared)
        found = [table for name in names for table in await find_tables(connection, name)]
        return list(dict.fromkeys(found))

    async def _live_pages(self, connections: Sequence[Connection]) -> Sequence[LivePages]:
        """Through the buffers if pageinspect is there or may be made; from files where it cannot be."""
        first, name = connections[0], self._database.name
        schema = await find_pageinspect(first)
        if schema is None and not await has_pageinspect(first):
            self._job.report.note(f"{name}: read from files, for the server's installation lacks pageinspect")
        elif schema is None and self._database.is_template:
            self._job.report.note(f"{name}: read from files, so as to create no extension in a template")
        elif schema is None and not self._job.options.create_extension:
            raise PrimaryUnsuitable(
                "the extension pageinspect is missing; create it or run with --create-extension",
                database=name,
            )
        elif schema is None:
            schema = "public"
            await first.execute("CREATE EXTENSION IF NOT EXISTS pageinspect WITH SCHEMA public")
            self._job.report.note(f"{name}: created the extension pageinspect")
        if schema is not None:
            return [BufferPages(connection, schema=schema) for connection in connections]
        position = await checkpoint(first)
        return [FilePages(connection, self._job.server, position) for connection in connections]

    async def _work(self, connection: Connection, live: LivePages, ours: Pageserver) -> None:
        while self._tasks or self._running:
            if not self._tasks:
                await asyncio.sleep(_IDLE_S)
                continue
            task = self._tasks.popleft()
            self._running += 1
            try:
                await self._do(task, connection, live, ours)
            except psycopg.Error as error:
                if connection.closed or ours.is_closed:
                    raise ServerFailed("a connection broke", said=str(error).strip()) from error
                self._job.report.not_checked.append(
                    f"{self._database.name}: {task.table}: {str(error).strip()}"
                )
            finally:
                self._running -= 1

    async def _do(self, task: Task, connection: Connection, live: LivePages, ours: Pageserver) -> None:
        table = task.table
        try:
            async with held(connection, table):
                before = await live.position()
                relations = await list_relations(connection, table)
                await self._check_relations(task, relations, before, live, ours)
        except RelationBusy as busy:
            await self._later(task, f"locked: {busy.__cause__}")
        except RelationGone as gone:
            # It may have been renamed or moved and still be there under another name.
            cursor = await connection.execute(
                "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE c.oid = %s",
                (table.oid,),
            )
            row = await cursor.fetchone()
            if row is None:
                self._job.report.vanished.append(f"{self._database.name}: {gone}")
            else:
                await self._later(Task(Table(table.oid, *row), tries=task.tries), "it keeps changing")

    async def _later(self, task: Task, reason: str) -> None:
        if task.tries >= _TRIES_MAX:
            self._job.report.not_checked.append(f"{self._database.name}: {task.table}: {reason}")
            return
        await asyncio.sleep(_PAUSE_S)
        self._tasks.append(replace(task, tries=task.tries + 1))

    async def _check_relations(
        self, task: Task, relations: Sequence[Relation], before: Lsn, live: LivePages, ours: Pageserver
    ) -> None:
        part = task.part
        forks = [
            (relation, fork, blocks)
            for relation in relations
            for fork, blocks in zip(relation.forks, relation.blocks, strict=True)
            if part is None or (relation.key, fork) == (part.key, part.fork)
        ]
        if not forks:
            # Rewritten since its first part was compared. The new one starts from its first block.
            await self._later(Task(task.table, tries=task.tries), "it keeps being rewritten")
        for relation, fork, blocks in forks:
            check = ForkCheck(
                live,
                ours,
                self._job.report,
                ensure_flushed=self._job.flusher.ensure,
                segment_size=self._job.server.segment_size,
                section=Section.RELATIONS,
                database=self._database.name,
                relation=relation,
                fork=fork,
            )
            start = 0 if part is None else part.start
            if start == 0:
                await check.check_size(before, blocks)
            end = min(blocks, start + PART_BLOCKS)
            if end < blocks:
                self._tasks.appendleft(Task(task.table, Part(relation.key, fork, end)))
            pages = await check.check(range(start, end))
            self._job.advance(f"{self._database.name} {relation.name}", pages)


async def check_database(
    job: Job, database: Database, ours: Sequence[Pageserver], *, with_shared: bool
) -> bool:
    """As `DatabaseCheck.run`, for a database that may vanish or turn us away."""
    try:
        return await DatabaseCheck(job, database, with_shared=with_shared).run(ours)
    except errors.InvalidCatalogName:
        job.report.vanished.append(f"database {database.name}")
    except psycopg.OperationalError as error:
        job.report.not_checked.append(f"database {database.name}: {str(error).strip()}")
    return True
