"""Verifies a live server."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from pageserver.verify.catalog import Connection, Server, list_databases, read_server
from pageserver.verify.clog import check_clog
from pageserver.verify.database import Advance, Job, Options, check_database
from pageserver.verify.errors import PrimaryUnsuitable, ServerFailed, WrongCluster
from pageserver.verify.extra import check_extra
from pageserver.verify.livepages import Flusher, connect
from pageserver.verify.ourpages import Pageserver
from pageserver.verify.refused import check_refused
from pageserver.verify.report import Report


async def verify(options: Options, report: Report, *, advance: Advance) -> None:
    """Compare a live server with a pageserver, and fill in `report`.

    Raises:
        VerifyError: there is no result.
    """
    started_s = time.monotonic()
    try:
        async with AsyncExitStack() as stack:
            home = await stack.enter_async_context(await connect(options.primary))
            server = await read_server(home)
            flusher = Flusher(await stack.enter_async_context(await connect(options.primary)))
            ours = [await stack.enter_async_context(_pageserver(options)) for _ in range(options.jobs)]
            await _check_identity(server, ours[0])
            await _check_all(Job(options, server, flusher, report, advance), home, ours)
    except psycopg.Error as error:
        raise ServerFailed("a server failed us", said=str(error).strip()) from error
    finally:
        report.elapsed_s = time.monotonic() - started_s


async def _check_all(job: Job, home: Connection, ours: Sequence[Pageserver]) -> None:
    names, relations = job.options.databases, job.options.relations
    databases = await list_databases(home)
    if unknown := set(names) - {database.name for database in databases}:
        raise PrimaryUnsuitable("no such database", names=sorted(unknown))
    chosen = [database for database in databases if not names or database.name in names]
    with_shared, found = True, False
    for database in chosen:
        if database.accepts_connections:
            job.report.databases.append(database.name)
            found |= await check_database(job, database, ours, with_shared=with_shared)
            with_shared = False
        elif not relations:
            job.report.databases.append(database.name)
            await check_refused(job, database, home, ours[0])
    if relations and not found:
        raise PrimaryUnsuitable("no such relation with storage", names=list(relations))
    if not relations and not names:
        await check_clog(job, home, ours[0])
    if not relations:
        await check_extra(job, home, ours[0], databases=chosen, is_whole=not names)


async def _check_identity(server: Server, ours: Pageserver) -> None:
    status = await ours.status()
    system_id = status.get("system_id")
    if str(system_id) != str(server.system_id):
        raise WrongCluster("not the same cluster", primary=server.system_id, pageserver=system_id)


@asynccontextmanager
async def _pageserver(options: Options) -> AsyncIterator[Pageserver]:
    pageserver = await Pageserver.connect(options.pageserver, wait_s=options.wait_s)
    try:
        yield pageserver
    finally:
        await pageserver.close()
