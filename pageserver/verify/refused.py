"""Verifies a database that refuses connections, by its files."""

from pageserver.verify.catalog import Connection, Database
from pageserver.verify.database import Job
from pageserver.verify.errors import RelationGone
from pageserver.verify.forkcheck import ForkCheck
from pageserver.verify.livepages import FilePages, checkpoint
from pageserver.verify.ourpages import OurPages
from pageserver.verify.relationfile import (
    DEFAULT_TABLESPACE,
    GLOBAL_TABLESPACE,
    Folder,
    folder_path,
    relations_in,
)
from pageserver.verify.report import Section


async def check_refused(job: Job, database: Database, home: Connection, ours: OurPages) -> None:
    """Compare every file of a database after a checkpoint. Pages tell what they are themselves."""
    position = await checkpoint(home)
    live = FilePages(home, job.server, position)
    for folder in await database_folders(job, home, database.oid):
        for relation in relations_in(folder, await list_folder(home, folder.path)):
            for fork in relation.forks:
                check = ForkCheck(
                    live,
                    ours,
                    job.report,
                    ensure_flushed=job.flusher.ensure,
                    segment_size=job.server.segment_size,
                    section=Section.REFUSED,
                    database=database.name,
                    relation=relation,
                    fork=fork,
                )
                try:
                    before = await live.position()
                    blocks = await live.size(relation, fork)
                    await check.check_size(before, blocks)
                    pages = await check.check(range(blocks))
                except RelationGone:
                    job.report.vanished.append(f"{database.name}: {relation.name} {fork}")
                else:
                    job.advance(f"{database.name} {relation.name}", pages)


async def database_folders(job: Job, home: Connection, db: int) -> list[Folder]:
    """The folders that a database may have, one a tablespace."""
    cursor = await home.execute("SELECT oid::int8 FROM pg_tablespace WHERE oid <> %s", (GLOBAL_TABLESPACE,))
    spaces = sorted(spc for (spc,) in await cursor.fetchall())
    assert DEFAULT_TABLESPACE in spaces
    name = job.server.tablespace_folder
    return [Folder(spc, db, folder_path(spc, db, tablespace_folder=name)) for spc in spaces]


async def list_folder(home: Connection, path: str) -> list[str]:
    """Names in a folder of the server's; none if there is no such folder."""
    cursor = await home.execute("SELECT name FROM pg_ls_dir(%s, true, false) AS name", (path,))
    return [str(name) for (name,) in await cursor.fetchall()]
