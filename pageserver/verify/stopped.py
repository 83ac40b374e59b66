"""Verifies the data directory of a stopped server, at its shutdown checkpoint."""

import asyncio
import os
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from pageserver.controlfile import ControlFile, parse_control_file
from pageserver.errors import BootstrapFailed
from pageserver.verify.anatomy import PAGE_BYTES
from pageserver.verify.catalog import Relation, RelationKey
from pageserver.verify.clog import check_stopped_clog
from pageserver.verify.database import Advance
from pageserver.verify.errors import DirectoryUnsuitable, RelationGone, ServerFailed, WrongCluster
from pageserver.verify.forkcheck import ForkCheck
from pageserver.verify.ourpages import ForkKey, OurPages, Pageserver
from pageserver.verify.relationfile import (
    DEFAULT_TABLESPACE,
    GLOBAL_TABLESPACE,
    SEGMENT_BLOCKS,
    Folder,
    file_name,
    folder_path,
    relations_in,
)
from pageserver.verify.report import Difference, Report, Section, What
from walproxy.wire.lsn import Lsn

_SHUT_DOWN = 1
_STATES = (
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
)


class StoppedPages:
    """Pages as the files of a stopped server hold them."""

    def __init__(self, root: Path, control: ControlFile) -> None:
        self._root = root
        self._control = control
        self._tablespace_folder = f"PG_{control.major}_{control.catalog_version}"

    async def position(self) -> Lsn:
        """Where the shutdown checkpoint starts: the end of all that could change a page."""
        return self._control.checkpoint_lsn

    async def size(self, relation: Relation, fork: str) -> int:
        blocks = 0
        while True:
            try:
                length = self._path(relation.key, fork, blocks).stat().st_size
            except FileNotFoundError:
                return blocks
            blocks += length // PAGE_BYTES
            if length < SEGMENT_BLOCKS * PAGE_BYTES:
                return blocks

    async def sample(self, relation: Relation, fork: str, blocks: Sequence[int]) -> tuple[Lsn, list[bytes]]:
        pages = []
        for block in blocks:
            with self._path(relation.key, fork, block).open("rb") as file:
                page = os.pread(file.fileno(), PAGE_BYTES, block % SEGMENT_BLOCKS * PAGE_BYTES)
            if len(page) < PAGE_BYTES:
                raise RelationGone(relation.name)
            pages.append(page)
        return self._control.checkpoint_lsn, pages

    async def settle(self, relation: Relation, blocks: Sequence[int]) -> None:
        """Nobody is changing anything."""

    def folders(self) -> Iterator[Folder]:
        """Every folder with relations."""
        yield Folder(GLOBAL_TABLESPACE, 0, "global")
        for db in _numbers(self._root / "base"):
            yield Folder(DEFAULT_TABLESPACE, db, f"base/{db}")
        for spc in _numbers(self._root / "pg_tblspc"):
            for db in _numbers(self._root / "pg_tblspc" / str(spc) / self._tablespace_folder):
                path = folder_path(spc, db, tablespace_folder=self._tablespace_folder)
                yield Folder(spc, db, path)

    def relations(self) -> list[Relation]:
        """Everything in those folders that can be redone."""
        return [
            relation
            for folder in self.folders()
            for relation in relations_in(folder, _names(self._root / folder.path))
        ]

    def _path(self, key: RelationKey, fork: str, block: int) -> Path:
        folder = folder_path(key.spc, key.db, tablespace_folder=self._tablespace_folder)
        return self._root / folder / file_name(key.rel, fork, block)


async def verify_stopped(
    root: Path, conninfo: str, report: Report, *, jobs: int, wait_s: float, advance: Advance
) -> None:
    """Compare the files of a stopped server with a pageserver, and fill in `report`.

    Raises:
        VerifyError: there is no result.
    """
    started_s = time.monotonic()
    control = read_control_file(root)
    ours: list[Pageserver] = []
    try:
        ours += [await Pageserver.connect(conninfo, wait_s=wait_s) for _ in range(jobs)]
        status = await ours[0].status()
        if str(status.get("system_id")) != str(control.system_id):
            raise WrongCluster(
                "not the same cluster", pgdata=control.system_id, pageserver=status.get("system_id")
            )
        await check_stopped(StoppedPages(root, control), ours, report, control=control, advance=advance)
        await check_stopped_clog(report, root, ours[0], control.checkpoint_lsn)
    except psycopg.Error as error:
        raise ServerFailed("the pageserver failed us", said=str(error).strip()) from error
    finally:
        for pageserver in ours:
            await pageserver.close()
        report.elapsed_s = time.monotonic() - started_s


async def check_stopped(
    live: StoppedPages, ours: Sequence[OurPages], report: Report, *, control: ControlFile, advance: Advance
) -> None:
    """Compare every fork of both sides."""
    relations = live.relations()
    queue = [(relation, fork) for relation in relations for fork in relation.forks]
    there: set[ForkKey] = {(relation.key, fork) for relation, fork in queue}
    report.databases.extend(sorted({str(relation.key.db) for relation in relations}, key=int))

    async def work(source: OurPages) -> None:
        while queue:
            relation, fork = queue.pop()
            check = ForkCheck(
                live,
                source,
                report,
                ensure_flushed=_is_flushed,
                segment_size=control.segment_size,
                section=Section.RELATIONS,
                database=str(relation.key.db),
                relation=relation,
                fork=fork,
            )
            blocks = await live.size(relation, fork)
            await check.check_size(control.checkpoint_lsn, blocks)
            advance(relation.name, await check.check(range(blocks)))

    try:
        async with asyncio.TaskGroup() as group:
            for source in ours:
                group.create_task(work(source))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    lsn = control.checkpoint_lsn
    for key, fork in await ours[0].relations(lsn):
        if (key, fork) not in there and fork != "fsm":
            report.different(
                Section.RELATIONS,
                Difference(What.EXTRA, str(key.db), str(key), str(key), fork, None, lsn),
            )


def read_control_file(root: Path) -> ControlFile:
    """Of a server that was shut down.

    Raises:
        DirectoryUnsuitable: no data directory, or its server runs or crashed.
    """
    try:
        data = (root / "global" / "pg_control").read_bytes()
        control = parse_control_file(data)
    except (OSError, BootstrapFailed) as error:
        raise DirectoryUnsuitable("not a data directory", path=root, reason=error) from error
    (state,) = struct.unpack_from("<I", data, 16)
    if state != _SHUT_DOWN:
        shown = _STATES[state] if state < len(_STATES) else state
        raise DirectoryUnsuitable("the server was not shut down cleanly", path=root, state=shown)
    return control


async def _is_flushed(lsn: Lsn) -> None:  # noqa: ARG001  # A stopped server has flushed all it has.
    return


def _numbers(folder: Path) -> list[int]:
    return sorted(int(name) for name in _names(folder) if name.isdecimal())


def _names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
