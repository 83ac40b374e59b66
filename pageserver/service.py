"""Pages over SQL: the functions that clients call, and what they are told when a page cannot be had."""

import asyncio
import functools
import re
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from typing import Any, Final, NoReturn

from pageserver import history
from pageserver.backupfiles import FORK_NUMBERS, SLRU_KINDS
from pageserver.errors import LsnNotReached, LsnTooOld, ReadRefused
from pageserver.otherstate import OtherState
from pageserver.timeline import Timeline
from walcore.errors import LayerCorrupt, NoSuchBlock, NoSuchRelation, PageUnreadable, WalcoreError
from walproxy.wire.datum import BOOL, BYTEA, FLOAT8, INT8, INT8_ARRAY, PG_LSN, PG_LSN_ARRAY, TEXT
from walproxy.wire.errors import FEATURE_NOT_SUPPORTED, SqlError
from walproxy.wire.function import Argument, Column, Function, Row
from walproxy.wire.lsn import Lsn

Relation = tuple[int, int, int]
PageKey = tuple[int, int, int, int, int]

# Source: src/backend/utils/errcodes.txt.
_CANNOT_CONNECT_NOW = "57P03"
_INVALID_PARAMETER_VALUE = "22023"
_UNDEFINED_TABLE = "42P01"
_DATA_CORRUPTED = "XX001"
_QUERY_CANCELED = "57014"
_SNAPSHOT_TOO_OLD = "72000"

_BLOCK_MAX = 0xFFFF_FFFE
_PAGES_MAX = 512
"""Of one call: an answer is built in memory, for each client."""
_SLOW_READ_S = 0.005
_READS_IN_THREADS = 100
"""After a slow read: so many more are not made where other clients would have to wait."""
_RELATION = re.compile(r"(\d{1,10})/(\d{1,10})/(\d{1,10})", re.ASCII)
_FORK_NAMES: Final = {number: name for name, number in FORK_NUMBERS.items()}


class PageService:
    """Answers the SQL functions from a timeline. Reads run in an executor; the native call releases the GIL.

    Args:
        lsn_wait_timeout_s: how long a read waits for WAL that is about to arrive.
    """

    def __init__(self, executor: Executor, *, lsn_wait_timeout_s: float) -> None:
        self._timeline: asyncio.Future[Timeline] = asyncio.get_running_loop().create_future()
        self._executor = executor
        self._reads_in_threads = 0
        self._lsn_wait_timeout_s = lsn_wait_timeout_s

    @property
    def timeline(self) -> Timeline | None:
        """What pages come from; None until there is a base backup."""
        return self._timeline.result() if self._timeline.done() else None

    def begin(self, timeline: Timeline) -> None:
        """Serve from this one. Clients that wait for the base backup go on."""
        self._timeline.set_result(timeline)

    def functions(self) -> dict[str, Function]:
        """What is served, by name."""
        rel, fork = Argument("rel", TEXT), Argument("fork", TEXT)
        lsn, lsn_or_last = Argument("lsn", PG_LSN), Argument("lsn", PG_LSN, is_optional=True)
        page = Column("page", BYTEA)
        served = (
            Function(
                "get_raw_page",
                (rel, fork, Argument("block", INT8), lsn_or_last),
                (Column("get_raw_page", BYTEA),),
                self.get_raw_page,
            ),
            Function(
                "get_raw_pages",
                (rel, fork, Argument("blocks", INT8_ARRAY), Argument("lsns", PG_LSN_ARRAY)),
                (Column("blkno", INT8), page, Column("error", TEXT)),
                self.get_raw_pages,
                is_set=True,
            ),
            Function(
                "relation_size",
                (rel, fork, lsn_or_last),
                (Column("relation_size", INT8),),
                self.relation_size,
            ),
            Function(
                "relations",
                (lsn, Argument("db", INT8, is_optional=True)),
                (Column("rel", TEXT), Column("fork", TEXT), Column("blocks", INT8)),
                self.relations,
                is_set=True,
            ),
            Function(
                "get_slru_page",
                (Argument("kind", TEXT), Argument("pageno", INT8), lsn_or_last),
                (Column("get_slru_page", BYTEA),),
                self.get_slru_page,
            ),
            Function(
                "wait_for_lsn",
                (lsn, Argument("timeout_s", FLOAT8, is_optional=True)),
                (Column("wait_for_lsn", PG_LSN),),
                self.wait_for_lsn,
            ),
            Function(
                "page_chain",
                (rel, fork, Argument("block", INT8), lsn),
                (
                    Column("lsn", PG_LSN),
                    Column("kind", TEXT),
                    Column("rmgr", TEXT),
                    Column("has_image", BOOL),
                    Column("bytes", INT8),
                ),
                self.page_chain,
                is_set=True,
            ),
            Function("wal_record", (lsn,), (Column("wal_record", TEXT),), self.wal_record),
        )
        other = OtherState(self._ready, self._run_or_refuse)
        return {function.name: function for function in (*served, *other.functions())}

    def get_raw_page(
        self, rel: str, fork: str, block: int, lsn: int | None
    ) -> Sequence[Row] | Awaitable[Sequence[Row]]:
        """One page, as pageinspect's function gives it, at any LSN.

        Rebuilding a page takes microseconds, handing it to a thread and back takes more: it is done here,
        unless pages were slow of late.
        """
        key = (*_relation(rel), _fork(fork), _block(block))
        timeline = self.timeline
        if self._reads_in_threads == 0 and timeline is not None:
            at_lsn = timeline.read_lsn(lsn)
            if timeline.consistency_lsn <= at_lsn <= timeline.ingested_lsn:
                begin_s = time.perf_counter()
                (page,) = timeline.reader.pages([key], [at_lsn])
                if time.perf_counter() - begin_s > _SLOW_READ_S:
                    self._reads_in_threads = _READS_IN_THREADS
                return _only_page(page)
        self._reads_in_threads = max(0, self._reads_in_threads - 1)
        return self._get_raw_page_later(key, lsn)

    async def _get_raw_page_later(self, key: PageKey, lsn: int | None) -> Sequence[Row]:
        timeline, at_lsn = await self._ready(lsn)
        (page,) = await self._run(timeline.reader.pages, [key], [at_lsn])
        return _only_page(page)

    async def get_raw_pages(
        self, rel: str, fork: str, blocks: list[int | None], lsns: list[int | None]
    ) -> Sequence[Row]:
        """Many pages of one fork, each at its LSN, or all at one. A page that fails fails alone."""
        relation, fork_number = _relation(rel), _fork(fork)
        if len(blocks) > _PAGES_MAX:
            raise SqlError(_INVALID_PARAMETER_VALUE, f"more than {_PAGES_MAX} blocks in one call")
        if len(lsns) not in {1, len(blocks)}:
            raise SqlError(
                _INVALID_PARAMETER_VALUE,
                "give one lsn for all blocks, or one for each",
                hint="Use array[lsn].",
            )
        if None in blocks:
            raise SqlError(_INVALID_PARAMETER_VALUE, "a block number is null")
        keys = [(*relation, fork_number, _block(block)) for block in blocks if block is not None]
        if not keys:
            return ()
        timeline = await self._wait_for_highest(lsns)
        at_lsns = [timeline.read_lsn(lsn) for lsn in lsns]
        pages = await self._run(timeline.reader.pages, keys, at_lsns)
        rows: list[Row] = []
        for key, page in zip(keys, pages, strict=True):
            if isinstance(page, bytes):
                rows.append((key[4], page, None))
            else:
                rows.append((key[4], None, str(page)))
        return rows

    async def relation_size(self, rel: str, fork: str, lsn: int | None) -> Sequence[Row]:
        """Blocks of a fork at an LSN; NULL if it does not exist then."""
        relation, fork_number = _relation(rel), _fork(fork)
        timeline, at_lsn = await self._ready(lsn)
        return ((await self._run(timeline.reader.size, *relation, fork_number, at_lsn),),)

    async def relations(self, lsn: int, db: int | None) -> Sequence[Row]:
        """Every fork that exists at an LSN."""
        timeline, at_lsn = await self._ready(lsn)
        found = await self._run(functools.partial(timeline.reader.relations, at_lsn, db=db))
        return [(f"{spc}/{db}/{rel}", _FORK_NAMES[fork], blocks) for spc, db, rel, fork, blocks in found]

    async def get_slru_page(self, kind: str, pageno: int, lsn: int | None) -> Sequence[Row]:
        """One page of a transaction status log; NULL if it does not exist then."""
        if kind not in SLRU_KINDS:
            raise SqlError(
                _INVALID_PARAMETER_VALUE,
                f'no such slru: "{kind}"',
                hint=f"Known are {', '.join(SLRU_KINDS)}.",
            )
        if not 0 <= pageno <= _BLOCK_MAX:
            raise SqlError(_INVALID_PARAMETER_VALUE, f"invalid page number: {pageno}")
        timeline, at_lsn = await self._ready(lsn)
        return ((await self._run(timeline.reader.slru_page, kind, pageno, at_lsn),),)

    async def page_chain(self, rel: str, fork: str, block: int, lsn: int) -> Sequence[Row]:
        """What a read of a page at an LSN uses, oldest first."""
        key = (*_relation(rel), _fork(fork), _block(block))
        timeline, at_lsn = await self._ready(lsn)
        rows: Sequence[Row] = await self._run(history.page_chain, timeline, key, at_lsn)
        return rows

    async def wal_record(self, lsn: int) -> Sequence[Row]:
        """The record that ends at an LSN, as JSON; NULL if none does or its WAL is not here."""
        timeline, at_lsn = await self._ready(lsn)
        return ((await self._run(history.record_ending_at, timeline, at_lsn),),)

    async def wait_for_lsn(self, lsn: int, timeout_s: float | None) -> Sequence[Row]:
        """Return the last ingested LSN once it has reached that LSN."""
        limit_s = self._lsn_wait_timeout_s if timeout_s is None else max(0.0, timeout_s)
        deadline_s = time.monotonic() + limit_s
        timeline = await self._begun(limit_s)
        try:
            await timeline.wait_for(timeline.read_lsn(lsn), deadline_s - time.monotonic())
        except LsnNotReached as error:
            _refuse(error)
        return ((timeline.ingested_lsn,),)

    async def _begun(self, timeout_s: float) -> Timeline:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(self._timeline)
        except TimeoutError:
            raise SqlError(
                _CANNOT_CONNECT_NOW,
                "the page server has no pages yet: it takes its base backup",
                hint="Try again later; SHOW pageserver.status tells how far it is.",
            ) from None

    async def _ready(self, lsn: int | None) -> tuple[Timeline, Lsn]:
        """The timeline, once it can answer at an LSN, and the record end that is meant."""
        timeline = self.timeline or await self._begun(self._lsn_wait_timeout_s)
        at_lsn = timeline.read_lsn(lsn)
        try:
            timeline.check_readable(at_lsn)
            if at_lsn > timeline.ingested_lsn:
                await timeline.wait_for(at_lsn, self._lsn_wait_timeout_s)
        except ReadRefused as error:
            _refuse(error)
        return timeline, at_lsn

    async def _wait_for_highest(self, lsns: list[int | None]) -> Timeline:
        timeline = self.timeline or await self._begun(self._lsn_wait_timeout_s)
        at_lsns = [timeline.read_lsn(lsn) for lsn in lsns]
        try:
            timeline.check_readable(min(at_lsns))
            await timeline.wait_for(max(at_lsns), self._lsn_wait_timeout_s)
        except ReadRefused as error:
            _refuse(error)
        return timeline

    async def _run(self, call: Any, *args: Any) -> Any:  # noqa: ANN401 - whatever the native call gives
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *args)

    async def _run_or_refuse(self, call: Any, *args: Any) -> Any:  # noqa: ANN401 - the same
        try:
            return await self._run(call, *args)
        except WalcoreError as error:
            _refuse(error)


def _only_page(page: bytes | Exception) -> Sequence[Row]:
    if not isinstance(page, bytes):
        _refuse(page)
    return ((page,),)


def _refuse(error: Exception) -> NoReturn:
    """Tell the client why there is no answer, and what to do."""
    match error:
        case LsnNotReached():
            raise SqlError(_QUERY_CANCELED, str(error)) from error
        case LsnTooOld():
            raise SqlError(_SNAPSHOT_TOO_OLD, str(error)) from error
        case NoSuchRelation():
            raise SqlError(_UNDEFINED_TABLE, str(error)) from error
        case NoSuchBlock():
            raise SqlError(_INVALID_PARAMETER_VALUE, str(error)) from error
        case PageUnreadable():
            hint = "Only this page is affected. It can be read at an earlier LSN, or from its next image on."
            raise SqlError(_DATA_CORRUPTED, f"page unreadable: {error}", hint=hint) from error
        case LayerCorrupt():
            hint = "Stop the page server, empty its data_dir and start it again."
            raise SqlError(_DATA_CORRUPTED, f"a layer is damaged: {error}", hint=hint) from error
        case WalcoreError():
            raise SqlError(_DATA_CORRUPTED, str(error)) from error
        case _:
            raise error


@functools.lru_cache(maxsize=4096)
def _relation(text: str) -> Relation:
    match = _RELATION.fullmatch(text)
    if match is None or max(numbers := tuple(map(int, match.groups()))) > _BLOCK_MAX + 1:
        raise SqlError(
            _INVALID_PARAMETER_VALUE,
            f'not a relation: "{text}"',
            hint="Write tablespace/database/relfilenode, as in '1663/5/16384'; names are not served yet.",
        )
    spc, db, rel = numbers
    return spc, db, rel


def _fork(name: str) -> int:
    if name == "fsm":
        raise SqlError(
            FEATURE_NOT_SUPPORTED,
            "free space maps are not covered by wal and not served",
            hint="They are advisory.",
        )
    number = FORK_NUMBERS.get(name)
    if number is None:
        raise SqlError(_INVALID_PARAMETER_VALUE, "invalid fork name", hint="Known are main, vm and init.")
    return number


def _block(number: int) -> int:
    if not 0 <= number <= _BLOCK_MAX:
        raise SqlError(_INVALID_PARAMETER_VALUE, f"invalid block number: {number}")
    return number
