"""Compares the status of every transaction: pg_xact, two bits each, with neither LSN nor checksum."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from pageserver.verify.anatomy import PAGE_BYTES, differing
from pageserver.verify.catalog import Connection
from pageserver.verify.database import Job
from pageserver.verify.excuse import Excuse
from pageserver.verify.explain import Field
from pageserver.verify.livepages import checkpoint, read_position
from pageserver.verify.ourpages import OurPages
from pageserver.verify.refused import list_folder
from pageserver.verify.report import Difference, Report, Section, What
from pageserver.verify.rule import PAUSES_S, TRIES_MAX, record_boundary
from walproxy.wire.lsn import Lsn

FOLDER = "pg_xact"
_PAGES_PER_SEGMENT = 32
_XIDS_PER_BYTE = 4
_XIDS_PER_PAGE = PAGE_BYTES * _XIDS_PER_BYTE
_SEGMENT = re.compile(r"[0-9A-F]{4,6}", re.ASCII)
_STATUSES = ("in progress", "committed", "aborted", "sub-committed")
_COMMITTED, _SUB_COMMITTED = 1, 3


def first_wrong_xid(live: bytes, before: bytes, after: bytes) -> int | None:
    """The first transaction of a page, counted from 0, whose status is not one it had in a range of WAL.

    A status is set once. So each is that of either end of the range, or sub-committed before committed.
    """
    for at in differing(live, before):
        for pair in range(_XIDS_PER_BYTE):
            status, first, last = (page[at] >> 2 * pair & 3 for page in (live, before, after))
            is_on_its_way = status == _SUB_COMMITTED and last == _COMMITTED
            if status not in (first, last) and not is_on_its_way:
                return at * _XIDS_PER_BYTE + pair
    return None


async def check_clog(job: Job, home: Connection, ours: OurPages) -> None:
    """Compare the files of a live server after a checkpoint with ours, from before it to after the reading.

    An abort may be logged before and noted after a checkpoint: what differs is read again after another one.
    """
    segment_size = job.server.segment_size
    wanted: set[int] | None = None
    for tries in range(1, TRIES_MAX + 1):
        start = record_boundary(await checkpoint(home), segment_size=segment_size)
        pages = {
            number: page async for number, page in _live_pages(home) if wanted is None or number in wanted
        }
        end = record_boundary(await read_position(home), segment_size=segment_size)
        await job.flusher.ensure(end)
        is_last = tries == TRIES_MAX
        wrong = [
            number
            for number, page in pages.items()
            if not await _check_page(job.report, ours, number, page, start=start, end=end, is_last=is_last)
        ]
        if not wrong or is_last:
            return
        wanted = set(wrong)
        await asyncio.sleep(PAUSES_S[tries - 1])


async def check_stopped_clog(report: Report, root: Path, ours: OurPages, lsn: Lsn) -> None:
    """Compare the files of a stopped server with ours, at its shutdown checkpoint."""
    for name in segments(entry.name for entry in (root / FOLDER).iterdir()):
        for number, page in _pages_of(name, (root / FOLDER / name).read_bytes()):
            await _check_page(report, ours, number, page, start=lsn, end=lsn, is_last=True)


def segments(names: Iterable[str]) -> list[str]:
    """The segment files among the names of a folder, in order."""
    return sorted((name for name in names if _SEGMENT.fullmatch(name)), key=lambda name: int(name, 16))


async def _check_page(
    report: Report, ours: OurPages, number: int, live: bytes, *, start: Lsn, end: Lsn, is_last: bool
) -> bool:
    """Count a page if it is the same, or if `is_last`; whether it was."""
    before = await ours.slru_page(FOLDER, number, start)
    if before == live:
        report.identical(Section.CLOG, 1)
        return True
    after = await ours.slru_page(FOLDER, number, end)
    fields: tuple[Field, ...] = (Field("page", "is there", "is not there"),)
    offset = None
    if after is not None:
        # A page that began within the range was all in progress before it.
        before = before or bytes(PAGE_BYTES)
        xid = first_wrong_xid(live, before, after)
        if xid is None:
            report.identical(Section.CLOG, 1, (Excuse.CLOG_LATER_VERSION,))
            return True
        offset, pair = divmod(xid, _XIDS_PER_BYTE)
        shown = (_STATUSES[page[offset] >> 2 * pair & 3] for page in (live, after))
        fields = (Field(f"xid {number * _XIDS_PER_PAGE + xid}", *shown),)
    if is_last:
        difference = Difference(
            What.STATUS, "", FOLDER, FOLDER, "main", number, start, offset=offset, fields=fields
        )
        report.different(Section.CLOG, difference)
    return False


async def _live_pages(home: Connection) -> AsyncIterator[tuple[int, bytes]]:
    for name in segments(await list_folder(home, FOLDER)):
        cursor = home.cursor(binary=True)
        # A segment may be truncated away meanwhile: its length is then 0.
        await cursor.execute(
            "SELECT pg_read_binary_file(%s, 0, %s, true)",
            (f"{FOLDER}/{name}", _PAGES_PER_SEGMENT * PAGE_BYTES),
        )
        row = await cursor.fetchone()
        for page in _pages_of(name, bytes(row[0] or b"") if row else b""):
            yield page


def _pages_of(name: str, data: bytes) -> Iterable[tuple[int, bytes]]:
    first = int(name, 16) * _PAGES_PER_SEGMENT
    for start in range(0, len(data) - PAGE_BYTES + 1, PAGE_BYTES):
        yield first + start // PAGE_BYTES, data[start : start + PAGE_BYTES]
