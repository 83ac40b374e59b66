"""Pages as we rebuild them: the pageserver's SQL functions."""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg import errors

from pageserver.verify.catalog import Connection, RelationKey
from pageserver.verify.errors import HistoryMissing, PageserverBehind
from pageserver.verify.history import PageRecord
from walproxy.wire.lsn import Lsn, parse_lsn

ForkKey = tuple[RelationKey, str]


class OurPages(Protocol):
    """Whoever rebuilds pages at an LSN."""

    async def reach(self, lsn: Lsn) -> None:
        """Return when everything up to `lsn` is ingested.

        Raises:
            PageserverBehind: it does not get there in time.
        """

    async def pages(
        self, key: RelationKey, fork: str, blocks: Sequence[int], lsns: Sequence[Lsn]
    ) -> list[bytes | str]:
        """One entry a block: the page, or why there is none."""

    async def size(self, key: RelationKey, fork: str, lsn: Lsn) -> int | None:
        """Blocks of a fork; None if it does not exist at that LSN."""

    async def relations(self, lsn: Lsn, *, db: int | None = None) -> dict[ForkKey, int]:
        """Every fork that exists at an LSN, with its blocks."""

    async def slru_page(self, kind: str, number: int, lsn: Lsn) -> bytes | None:
        """One page of a transaction status log; None if it does not exist at that LSN."""

    async def changes(self, key: RelationKey, fork: str, block: int, low: int, high: int) -> list[Lsn]:
        """Ends of the records that redo applies to a page, of those with ``low < end <= high``, ascending.

        Raises:
            HistoryMissing: it does not go back that far.
        """

    async def record(self, lsn: int, key: RelationKey, fork: str, block: int) -> PageRecord | None:
        """The record that ends at an LSN, as far as a page is concerned; None if it is not known."""

    async def last_image(self, key: RelationKey, fork: str, block: int, lsn: int) -> PageRecord | None:
        """The last record up to an LSN that brought an image of a page; None if it is not known."""


@dataclass(frozen=True, slots=True)
class _Change:
    """One step of a chain: a record, or an image that we made."""

    lsn: Lsn
    is_record: bool
    has_image: bool


class Pageserver:
    """A connection to a pageserver. Used by one task at a time."""

    def __init__(self, connection: Connection, *, wait_s: float) -> None:
        self._connection = connection
        self._wait_s = wait_s
        self._reached_lsn = Lsn(0)

    @classmethod
    async def connect(cls, conninfo: str, *, wait_s: float) -> "Pageserver":
        """Connect. Raises psycopg.OperationalError."""
        connection = await psycopg.AsyncConnection.connect(
            conninfo, autocommit=True, application_name="pageserver verify", prepare_threshold=None
        )
        return cls(connection, wait_s=wait_s)

    async def close(self) -> None:
        await self._connection.close()

    @property
    def is_closed(self) -> bool:
        return self._connection.closed

    async def status(self) -> dict[str, Any]:
        cursor = await self._connection.execute("SHOW pageserver.status")
        row = await cursor.fetchone()
        assert row is not None
        return dict(json.loads(row[0]))

    async def reach(self, lsn: Lsn) -> None:
        if lsn <= self._reached_lsn:
            return
        try:
            cursor = await self._connection.execute("SELECT wait_for_lsn(%s, %s)", (str(lsn), self._wait_s))
            row = await cursor.fetchone()
        except errors.QueryCanceled as error:
            raise PageserverBehind(
                "the pageserver does not follow", lsn=lsn, waited_s=self._wait_s, said=str(error).strip()
            ) from error
        assert row is not None
        self._reached_lsn = parse_lsn(str(row[0]))

    async def pages(
        self, key: RelationKey, fork: str, blocks: Sequence[int], lsns: Sequence[Lsn]
    ) -> list[bytes | str]:
        await self.reach(max(lsns))
        cursor = self._connection.cursor(binary=True)
        await cursor.execute(
            "SELECT * FROM get_raw_pages(%s, %s, %s::int8[], %s::pg_lsn[])",
            (str(key), fork, list(blocks), [str(lsn) for lsn in lsns]),
        )
        rows = await cursor.fetchall()
        found = [bytes(page) if page is not None else str(error) for _, page, error in rows]
        assert len(found) == len(blocks), "one row a block"
        return found

    async def size(self, key: RelationKey, fork: str, lsn: Lsn) -> int | None:
        await self.reach(lsn)
        cursor = await self._connection.execute(
            "SELECT relation_size(%s, %s, %s)", (str(key), fork, str(lsn))
        )
        row = await cursor.fetchone()
        return None if row is None or row[0] is None else int(row[0])

    async def slru_page(self, kind: str, number: int, lsn: Lsn) -> bytes | None:
        await self.reach(lsn)
        cursor = self._connection.cursor(binary=True)
        await cursor.execute("SELECT get_slru_page(%s, %s, %s)", (kind, number, str(lsn)))
        row = await cursor.fetchone()
        return None if row is None or row[0] is None else bytes(row[0])

    async def relations(self, lsn: Lsn, *, db: int | None = None) -> dict[ForkKey, int]:
        await self.reach(lsn)
        if db is None:
            cursor = await self._connection.execute("SELECT * FROM relations(%s)", (str(lsn),))
        else:
            cursor = await self._connection.execute("SELECT * FROM relations(%s, %s)", (str(lsn), db))
        return {
            (RelationKey(*map(int, rel.split("/"))), fork): int(blocks)
            for rel, fork, blocks in await cursor.fetchall()
        }

    async def changes(self, key: RelationKey, fork: str, block: int, low: int, high: int) -> list[Lsn]:
        found: list[Lsn] = []
        async for chain in self._chains(key, fork, block, high):
            found = [change.lsn for change in chain if change.is_record and change.lsn > low] + found
            if chain[0].lsn <= low:
                break
        return found

    async def last_image(self, key: RelationKey, fork: str, block: int, lsn: int) -> PageRecord | None:
        try:
            async for chain in self._chains(key, fork, block, lsn):
                for change in reversed(chain):
                    if change.is_record and change.has_image:
                        return await self.record(change.lsn, key, fork, block)
        except HistoryMissing:
            pass
        return None

    async def _chains(
        self, key: RelationKey, fork: str, block: int, lsn: int
    ) -> AsyncIterator[list[_Change]]:
        """What reads use, newest first: each chain starts at an image, and the next one ends before it."""
        await self.reach(Lsn(lsn))
        while True:
            try:
                cursor = await self._connection.execute(
                    "SELECT * FROM page_chain(%s, %s, %s, %s)", (str(key), fork, block, str(Lsn(lsn)))
                )
            except errors.SnapshotTooOld as error:
                raise HistoryMissing(str(error)) from error
            chain = [
                _Change(parse_lsn(end), kind == "wal", has_image)
                for end, kind, _rmgr, has_image, _bytes in await cursor.fetchall()
            ]
            if not chain:
                return
            yield chain
            lsn = chain[0].lsn - 1

    async def record(self, lsn: int, key: RelationKey, fork: str, block: int) -> PageRecord | None:
        await self.reach(Lsn(lsn))
        cursor = await self._connection.execute("SELECT wal_record(%s)", (str(Lsn(lsn)),))
        row = await cursor.fetchone()
        if row is None or row[0] is None:
            return None
        record = json.loads(row[0])
        named = [
            reference
            for reference in record["blocks"]
            if (reference["relation"], reference["fork"], reference["block"]) == (str(key), fork, block)
        ]
        images = [reference["image"] for reference in named if reference.get("image", {}).get("apply")]
        return PageRecord(
            end_lsn=lsn,
            name=f"{record['rmgr']}/{record['record']}",
            names_page=bool(named),
            has_image=bool(images),
            hole_bytes=images[0]["hole_length"] if images else 0,
        )
