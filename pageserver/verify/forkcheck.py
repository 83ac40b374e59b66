"""Compares the blocks of one fork, by the rule."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from pageserver.verify.anatomy import PageKind, detect_kind, page_lsn
from pageserver.verify.catalog import Relation
from pageserver.verify.compare import Comparison, compare, never_logged
from pageserver.verify.errors import HistoryMissing
from pageserver.verify.excuse import Excuse
from pageserver.verify.explain import Field, explain
from pageserver.verify.history import explain_lsn, explain_unstamped
from pageserver.verify.livepages import LivePages
from pageserver.verify.ourpages import OurPages
from pageserver.verify.report import Difference, Report, Section, What
from pageserver.verify.rule import PAUSES_S, Finding, Step, asked_lsn, decide, record_boundary
from pageserver.verify.visibility import copied_map_matches, visibility_blocks, visibility_matches
from walproxy.wire.lsn import Lsn

BATCH_BLOCKS = 128

_WHAT = {
    Finding.LSN: What.LSN,
    Finding.VISIBILITY: What.VISIBILITY,
    Finding.ABSENT: What.ABSENT,
    Finding.UNREADABLE: What.UNREADABLE,
    Finding.BYTES: What.BYTES,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """One block as both sides have it. ``ours`` is the reason where there is no page."""

    block: int
    asked_lsn: Lsn
    live: bytes
    ours: bytes | str


@dataclass(frozen=True, slots=True)
class Judgement:
    finding: Finding
    comparison: Comparison | None = None
    excuses: frozenset[Excuse] = frozenset()


class ForkCheck:
    """The comparison of one fork.

    Args:
        live, ours: where pages come from; relations are held by the caller if `live` needs it.
        ensure_flushed: has the live server flush, and so send, its WAL up to a position.
        section: where pages are counted.
    """

    def __init__(
        self,
        live: LivePages,
        ours: OurPages,
        report: Report,
        *,
        ensure_flushed: Callable[[Lsn], Awaitable[None]],
        segment_size: int,
        section: Section,
        database: str,
        relation: Relation,
        fork: str,
    ) -> None:
        self._live = live
        self._ours = ours
        self._report = report
        self._ensure_flushed = ensure_flushed
        self._segment_size = segment_size
        self._section = section
        self._database = database
        self._relation = relation
        self._fork = fork
        self._kind = PageKind.VM if fork == "vm" else relation.kind

    async def check_size(self, position: Lsn, blocks: int) -> None:
        """Ours is at most as long as the live fork; what the live one has beyond is up to its pages.

        Args:
            position: an insert position, read before the live fork was measured.
            blocks: its length.
        """
        lsn = record_boundary(position, segment_size=self._segment_size)
        await self._ensure_flushed(lsn)
        ours = await self._ours.size(self._relation.key, self._fork, lsn)
        self._report.counts[self._section].forks += 1
        if ours is not None and ours > blocks:
            self._different(What.LONGER, None, lsn, fields=[Field("blocks", str(blocks), str(ours))])
        if ours is None and self._fork != "vm":
            self._different(What.MISSING, None, lsn)

    async def check(self, blocks: range) -> int:
        """Compare blocks; the number of blocks seen."""
        for start in range(blocks.start, blocks.stop, BATCH_BLOCKS):
            batch = range(start, min(start + BATCH_BLOCKS, blocks.stop))
            await self._check_batch(batch)
        return len(blocks)

    async def _check_batch(self, batch: Sequence[int]) -> None:
        tries, pending = 1, await self._read(batch)
        while pending:
            again = []
            for reading in pending:
                judgement = await self._judge(reading)
                step = decide(judgement.finding, tries=tries, is_refuted=False)
                if step is Step.PROVE:
                    excuse = await self._prove(reading, judgement)
                    if excuse is not None:
                        excuses = judgement.excuses | {excuse}
                        judgement = Judgement(Finding.SAME, judgement.comparison, excuses)
                    step = decide(judgement.finding, tries=tries, is_refuted=excuse is None)
                if step is Step.ACCEPT:
                    self._report.identical(self._section, 1, judgement.excuses)
                elif step is Step.REPORT:
                    self._report_page(reading, judgement)
                else:
                    again.append(reading.block)
            if not again:
                return
            await asyncio.sleep(PAUSES_S[tries - 1])
            tries, pending = tries + 1, await self._read(again)

    async def _read(self, blocks: Sequence[int]) -> list[Reading]:
        """Read the live pages, then ours as of them."""
        position, pages = await self._live.sample(self._relation, self._fork, blocks)
        lsns = [asked_lsn(position, page_lsn(page), segment_size=self._segment_size) for page in pages]
        if max(lsns) > position:
            # A page may have been changed after the position was read, but no page is ahead of the WAL.
            end = await self._live.position()
            at_start = record_boundary(position, segment_size=self._segment_size)
            lsns = [lsn if lsn <= end else at_start for lsn in lsns]
        await self._ensure_flushed(max(lsns))
        found = await self._ours.pages(self._relation.key, self._fork, blocks, lsns)
        return [Reading(*reading) for reading in zip(blocks, lsns, pages, found, strict=True)]

    async def _judge(self, reading: Reading) -> Judgement:
        if isinstance(reading.ours, str):
            size = await self._ours.size(self._relation.key, self._fork, reading.asked_lsn)
            if size is not None and size > reading.block:
                return Judgement(Finding.UNREADABLE)
            if never_logged(reading.live):
                return Judgement(Finding.NEVER_LOGGED, excuses=frozenset({Excuse.EXTENDED_WITHOUT_WAL}))
            return Judgement(Finding.ABSENT)
        comparison = compare(
            reading.live,
            reading.ours,
            kind=self._kind,
            blkno=reading.block,
            increment=self._relation.increment,
        )
        if comparison.is_same:
            return Judgement(Finding.SAME, comparison, comparison.excuses)
        if self._kind is PageKind.VM:
            return Judgement(Finding.VISIBILITY, comparison)
        finding = Finding.LSN if comparison.first_different is None else Finding.BYTES
        return Judgement(finding, comparison, comparison.excuses)

    async def _prove(self, reading: Reading, judgement: Judgement) -> Excuse | None:
        assert isinstance(reading.ours, bytes)
        assert judgement.comparison is not None
        if judgement.finding is Finding.VISIBILITY:
            return await self._match_versions(reading, reading.ours)
        live_lsn, ours_lsn = judgement.comparison.live_lsn, judgement.comparison.ours_lsn
        if live_lsn > reading.asked_lsn:
            return None
        page = self._relation.key, self._fork, reading.block
        lsns = [Lsn(live_lsn)]
        if live_lsn < ours_lsn:
            try:
                lsns = await self._ours.changes(*page, live_lsn, ours_lsn)
            except HistoryMissing:
                return None
        records = [await self._ours.record(lsn, *page) for lsn in lsns]
        kind = self._kind or detect_kind(reading.live, blkno=reading.block)
        return explain_lsn(live_lsn, ours_lsn, records) or explain_unstamped(
            live_lsn, ours_lsn, records, kind=kind, fork=self._fork
        )

    async def _match_versions(self, reading: Reading, ours: bytes) -> Excuse | None:
        """Look for the live visibility map page among our versions up to a position read after it."""
        await self._live.settle(self._relation, visibility_blocks(reading.live, ours, reading.block))
        end = record_boundary(await self._live.position(), segment_size=self._segment_size)
        await self._ensure_flushed(end)
        key = self._relation.key
        lsns = await self._ours.changes(key, self._fork, reading.block, reading.asked_lsn, end)
        versions = [ours]
        for start in range(0, len(lsns), BATCH_BLOCKS):
            batch = lsns[start : start + BATCH_BLOCKS]
            found = await self._ours.pages(key, self._fork, [reading.block] * len(batch), batch)
            versions += [page for page in found if isinstance(page, bytes)]
        if visibility_matches(reading.live, versions):
            return Excuse.VM_LATER_VERSION
        image = await self._ours.last_image(key, self._fork, reading.block, reading.asked_lsn)
        if image is None or not image.is_hollow:
            return None
        since = await self._ours.changes(key, self._fork, reading.block, image.end_lsn - 1, end)
        is_copy = copied_map_matches(reading.live, versions, since)
        return Excuse.VM_COPIED_WITHOUT_BITS if is_copy else None

    def _report_page(self, reading: Reading, judgement: Judgement) -> None:
        what = _WHAT[judgement.finding]
        if isinstance(reading.ours, str):
            fields = [Field("page", "is there", reading.ours)]
            self._different(what, reading.block, reading.asked_lsn, fields=fields)
            return
        offset = None if judgement.comparison is None else judgement.comparison.first_different
        fields = explain(reading.live, reading.ours, offset, kind=self._kind, blkno=reading.block)
        self._different(what, reading.block, reading.asked_lsn, offset=offset, fields=fields)

    def _different(
        self,
        what: What,
        block: int | None,
        lsn: Lsn,
        *,
        offset: int | None = None,
        fields: Sequence[Field] = (),
    ) -> None:
        relation = self._relation
        difference = Difference(
            what=what,
            database=self._database,
            relation=relation.name,
            key=str(relation.key),
            fork=self._fork,
            block=block,
            lsn=lsn,
            offset=offset,
            fields=tuple(fields),
        )
        self._report.different(self._section, difference)
