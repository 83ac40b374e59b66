"""Looks for forks that we have and the live server has not."""

from collections.abc import Sequence

from pageserver.verify.catalog import Connection, Database
from pageserver.verify.database import Job
from pageserver.verify.ourpages import OurPages
from pageserver.verify.refused import list_folder
from pageserver.verify.relationfile import file_name, folder_path
from pageserver.verify.report import Difference, Section, What
from pageserver.verify.rule import record_boundary
from walproxy.wire.lsn import Lsn


async def check_extra(
    job: Job, home: Connection, ours: OurPages, *, databases: Sequence[Database], is_whole: bool
) -> None:
    """Report every fork of ours whose file the live server does not have.

    Whether it is gone is asked of the file system, not of catalogs: they do not show what is not committed.
    A file that is missing was dropped, and the record of that is in the WAL, before any position read
    afterwards.
    With `is_whole`, databases that the live server no longer has are looked at, too.
    """
    lsn = await _position(job, home)
    wanted = {0, *(database.oid for database in databases)}
    forks = [
        (key, fork)
        for key, fork in await ours.relations(lsn)
        if fork != "fsm" and (is_whole or key.db in wanted)
    ]
    folders = {(key.spc, key.db) for key, _fork in forks}
    tablespace_folder = job.server.tablespace_folder
    there = {
        (spc, db): frozenset(
            await list_folder(home, folder_path(spc, db, tablespace_folder=tablespace_folder))
        )
        for spc, db in folders
    }
    missing = [
        (key, fork) for key, fork in forks if file_name(key.rel, fork, 0) not in there[key.spc, key.db]
    ]
    if not missing:
        return
    lsn = await _position(job, home)
    for key, fork in missing:
        size = await ours.size(key, fork, lsn)
        if size is not None:
            difference = Difference(What.EXTRA, str(key.db), str(key), str(key), fork, None, lsn)
            job.report.different(Section.RELATIONS, difference)


async def _position(job: Job, home: Connection) -> Lsn:
    """A position up to which we must have everything."""
    cursor = await home.execute("SELECT (pg_current_wal_insert_lsn() - '0/0')::int8")
    row = await cursor.fetchone()
    assert row is not None
    lsn = record_boundary(row[0], segment_size=job.server.segment_size)
    await job.flusher.ensure(lsn)
    return lsn
