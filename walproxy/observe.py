"""Observer: reads the committed WAL along, and knows what an operator asks of it."""

import asyncio
from collections import deque
from typing import Final

import structlog

from walcore._native import WalScanner
from walcore.errors import WalCorrupt
from walproxy.errors import NotReady, WalRemoved
from walproxy.ports import NodeView
from walproxy.quorum.state import Cluster
from walproxy.wire.lsn import INVALID_LSN, Lsn, segment_start

_READ_BYTES: Final = 1 << 20
_LOOK_BACK_BYTES: Final = 64 << 20  # At start, to find the last checkpoint record.
_RECENT_BYTES: Final = 256 << 20
_PAUSE_S: Final = 0.5

_log = structlog.get_logger(__name__)


class Observer:
    """Follows the WAL a little behind the commit LSN, in pieces, off the path of commits."""

    def __init__(self, node: NodeView) -> None:
        self._node = node
        self._scanner: WalScanner | None = None
        self._read_lsn = INVALID_LSN
        self._recent: deque[tuple[Lsn, dict[str, int]]] = deque()
        self._begin_lsn = INVALID_LSN  # Since then we have seen every change.
        self._full_page_writes: tuple[bool, Lsn] | None = None
        self._checkpoint: dict[str, object] | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            cluster = self._node.cluster
            if cluster is None or self._node.commit_lsn == INVALID_LSN:
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                await self._follow(cluster)
            except (WalRemoved, NotReady, WalCorrupt) as error:
                # The log was cut, or removed under us: begin anew at what is there now.
                _log.info("reading along begins anew", error=str(error))
                self._scanner = None
                await asyncio.sleep(_PAUSE_S)

    async def _follow(self, cluster: Cluster) -> None:
        if self._scanner is None:
            begin = segment_start(max(self._node.commit_lsn - _LOOK_BACK_BYTES, 0), cluster.segment_size)
            self._read_lsn = self._begin_lsn = max(begin, self._node.start_lsn)
            self._scanner = WalScanner(
                self._read_lsn, segment_size=cluster.segment_size, system_id=cluster.system_id, events=True
            )
        commit_lsn = await self._node.wait_commit(self._read_lsn, 3600)
        scanner = self._scanner
        while self._read_lsn < commit_lsn:
            size = min(_READ_BYTES, commit_lsn - self._read_lsn)
            await asyncio.to_thread(self._take, scanner, size)
            self._note(scanner)
        await asyncio.sleep(_PAUSE_S)

    def _take(self, scanner: WalScanner, size: int) -> None:
        wal = self._node.read(self._read_lsn, size)
        scanner.feed(wal)
        self._read_lsn = Lsn(self._read_lsn + len(wal))

    def _note(self, scanner: WalScanner) -> None:
        self._recent.append((self._read_lsn, scanner.take_counts()))
        while self._recent[0][0] < self._read_lsn - _RECENT_BYTES:
            self._recent.popleft()
        for event in scanner.take_events():
            if event["kind"] == "fpw_change":
                self._set_full_page_writes(event["full_page_writes"], Lsn(event["lsn"]))
            elif event["kind"] == "checkpoint":
                redo_lsn = Lsn(event["redo_lsn"])
                self._checkpoint = {"lsn": str(Lsn(event["lsn"])), "redo_lsn": str(redo_lsn)}
                # It holds the state as of its redo point; a change may stand between that and the record.
                known_lsn = self._full_page_writes[1] if self._full_page_writes else self._begin_lsn
                if redo_lsn >= known_lsn:
                    self._set_full_page_writes(event["full_page_writes"], redo_lsn)

    def _set_full_page_writes(self, is_on: bool, lsn: Lsn) -> None:
        if self._full_page_writes is None or self._full_page_writes[0] != is_on:
            self._full_page_writes = (is_on, lsn)

    def status(self) -> dict[str, object]:
        """Its part of `SHOW walproxy.status`.

        The state of full_page_writes is None after a start until the next checkpoint or change, if the last
        one is further back than we look.
        """
        known = self._full_page_writes
        total = dict.fromkeys(("records", "commits", "record_bytes", "fpi_count", "fpi_bytes"), 0)
        for _, counts in self._recent:
            for name in total:
                total[name] += counts.get(name, 0)
        share = total["fpi_bytes"] / total["record_bytes"] if total["record_bytes"] else None
        return {
            "full_page_writes": None if known is None else {"is_on": known[0], "since_lsn": str(known[1])},
            "checkpoint": self._checkpoint,
            "recent_wal": {**total, "fpi_share": None if share is None else round(share, 4)},
        }
