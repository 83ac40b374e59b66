"""One timeline: the WAL that came in, the layers that index it, the view that pages are rebuilt from."""

import asyncio
import heapq
import itertools
import threading
from dataclasses import dataclass, replace
from typing import Any

import structlog

from pageserver.errors import LsnNotReached, LsnTooOld
from pageserver.layers import layer_name, load_sizes, open_layer, store_sizes
from pageserver.layout import Layout
from pageserver.manifest import FullPageWrites, LayerEntry, Manifest, replace_manifest, sync_dir
from pageserver.segments import WalFiles
from walcore._native import Ingest, Layer, Reader, WalScanner
from walproxy.wire.lsn import INVALID_LSN, Lsn, segment_start

logger = structlog.get_logger()

_WAL_PAGE_BYTES = 8192
_SHORT_HEADER, _LONG_HEADER = 24, 40


@dataclass(frozen=True, slots=True)
class LayerLimits:
    """When the open layer is frozen: at so much WAL, or so much memory."""

    wal_bytes_max: int
    open_bytes_max: int


class Timeline:
    """Takes WAL in order, keeps it, and answers for every page at every LSN from the consistency point on.

    `append`, `freeze` and `restart_stream` block, and run in one thread; `sync` and `write_frozen` block and
    may run beside them. All else belongs to the event loop. Readers use a view that is replaced as a whole.

    Invariant: `durable_lsn` and `ingested_lsn` are record ends; the manifest's end is at most `durable_lsn`.
    """

    def __init__(self, layout: Layout, manifest: Manifest, limits: LayerLimits) -> None:
        self.manifest = manifest
        self.full_page_writes = manifest.full_page_writes
        self.received_lsn = INVALID_LSN
        self.durable_lsn = Lsn(manifest.end_lsn)
        self._layout = layout
        self._limits = limits
        self._hint_steps = list(manifest.hint_steps)
        self._files = WalFiles(layout.wal, tli=manifest.tli, segment_size=manifest.segment_size)
        self._layers = [open_layer(layout.layers, entry) for entry in manifest.layers]
        self._frozen: Layer | None = None
        self._view_lock = threading.Lock()
        self._ingest = self._new_ingest()
        self._scanner = self._new_scanner(self.start_lsn)
        self._tail = b""
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self.reader = self._new_reader()

    @classmethod
    def open(cls, layout: Layout, manifest: Manifest, limits: LayerLimits) -> "Timeline":
        """Open what a manifest names, sweep out the rest, and index the local WAL after the last layer.

        Raises:
            DataDamaged: a file that the manifest needs is missing or not what was written.
        """
        keep = frozenset({manifest.sizes.name, *(entry.name for entry in manifest.layers)})
        if swept := layout.sweep(keep):
            logger.info("leftover files removed", files=swept)
        timeline = cls(layout, manifest, limits)
        timeline._recover()
        return timeline

    @property
    def ingested_lsn(self) -> Lsn:
        """End of the last record that is indexed; pages can be read up to here."""
        return Lsn(self._ingest.ingested_lsn)

    @property
    def consistency_lsn(self) -> Lsn:
        """Nothing below can be read."""
        return Lsn(self.manifest.consistency_lsn)

    @property
    def start_lsn(self) -> Lsn:
        """Where the stream must go on: the start of the first segment, or a record end."""
        ingested_lsn = self.ingested_lsn
        if ingested_lsn == self.manifest.start_lsn:
            return segment_start(ingested_lsn, self.manifest.segment_size)
        return ingested_lsn

    @property
    def hint_bits_logged(self) -> bool:
        """Data checksums or wal_log_hints are on."""
        return self._hint_steps[-1][1]

    @property
    def open_bytes(self) -> int:
        """Memory of the open layer."""
        return self._ingest.open_bytes

    @property
    def wal_bytes(self) -> int:
        """Local WAL."""
        return self._files.total_bytes()

    def restart_stream(self) -> Lsn:
        """Forget bytes that came after the last whole record; the next ones start at the LSN returned."""
        start_lsn = self.start_lsn
        self._scanner = self._new_scanner(start_lsn)
        self._tail = b""
        self.received_lsn = start_lsn
        return start_lsn

    def append(self, wal: bytes) -> None:
        """Take the next bytes of the stream: check them, write the whole records among them, and index those.

        Bytes of a record that is not whole yet are held back: nothing unchecked reaches disk or index.

        Raises:
            WalCorrupt: the bytes are damaged; nothing of this call's was kept. Call `restart_stream`.
            Poisoned: the disk refused.
        """
        self._scanner.feed(wal)
        held_lsn = self.received_lsn - len(self._tail)
        self.received_lsn = Lsn(self.received_lsn + len(wal))
        wal = self._tail + wal
        whole_bytes = max(0, min(self._scanner.record_end_lsn, self.received_lsn) - held_lsn)
        self._tail = wal[whole_bytes:]
        if whole_bytes:
            whole = wal[:whole_bytes]
            self._files.write(held_lsn, whole)
            self._index(held_lsn, whole)

    def sync(self) -> Lsn:
        """Make what was appended before the call durable. Returns the new `durable_lsn`.

        Raises:
            Poisoned: the disk refused.
        """
        lsn = self.ingested_lsn
        self._files.sync()
        self.durable_lsn = max(self.durable_lsn, lsn)
        return self.durable_lsn

    @property
    def wants_freeze(self) -> bool:
        """Whether the open layer is full and no other is being written."""
        if self._frozen is not None:
            return False
        return (
            self.ingested_lsn - self.manifest.end_lsn >= self._limits.wal_bytes_max
            or self._ingest.open_bytes >= self._limits.open_bytes_max
        )

    @property
    def is_overfull(self) -> bool:
        """Whether ingest must wait for the layer that is being written."""
        return self._frozen is not None and (
            self._ingest.open_bytes >= self._limits.open_bytes_max
            or self.ingested_lsn - self._frozen.end_lsn >= self._limits.wal_bytes_max
        )

    def freeze(self) -> "Frozen":
        """Close the open layer and begin a new one. Not beside `append`."""
        assert self._frozen is None
        with self._view_lock:
            layer = self._ingest.freeze()
            self._frozen = layer
            self.reader = self._new_reader()
        return Frozen(
            layer,
            end_lsn=self.ingested_lsn,
            sizes=self._ingest.sizes(),
            hint_steps=tuple(self._hint_steps),
            full_page_writes=self.full_page_writes,
        )

    def write_frozen(self, frozen: "Frozen") -> tuple[Manifest, Layer]:
        """Write a frozen layer and the manifest that names it. In a thread; `append` may go on.

        Raises:
            Poisoned: the disk refused.
        """
        self.sync()
        directory = self._layout.layers
        name = layer_name(self.manifest.end_lsn, frozen.end_lsn)
        path = directory / name
        temporary = path.with_name(name + ".new")
        temporary.unlink(missing_ok=True)
        frozen.layer.write(str(temporary))
        temporary.rename(path)
        sync_dir(directory)
        entry = LayerEntry(name, self.manifest.end_lsn, frozen.end_lsn, path.stat().st_size)
        manifest = replace(
            self.manifest,
            end_lsn=frozen.end_lsn,
            layers=(*self.manifest.layers, entry),
            sizes=store_sizes(directory, frozen.end_lsn, frozen.sizes),
            hint_steps=frozen.hint_steps,
            full_page_writes=frozen.full_page_writes,
        )
        layer = open_layer(directory, entry)
        replace_manifest(self._layout.root, manifest)
        (directory / self.manifest.sizes.name).unlink(missing_ok=True)
        return manifest, layer

    def take_written(self, manifest: Manifest, layer: Layer) -> None:
        """Read from the file from now on; the copy in memory goes."""
        with self._view_lock:
            self.manifest = manifest
            self._layers.append(layer)
            self._frozen = None
            self.reader = self._new_reader()
        logger.info(
            "layer written",
            end_lsn=str(Lsn(manifest.end_lsn)),
            entries=layer.entries,
            bytes=manifest.layers[-1].file_bytes,
        )

    def read_lsn(self, lsn: int | None) -> Lsn:
        """The record end that a read at an LSN means; None means the last one, once consistency is reached.

        No record ends inside a page header of the WAL, so such a position, which a primary gives as its next
        insert position there, is the same point in history as the page boundary before it.
        """
        if lsn is None:
            return max(self.ingested_lsn, self.consistency_lsn)
        offset = lsn % _WAL_PAGE_BYTES
        is_long = lsn % self.manifest.segment_size == offset
        return Lsn(lsn - offset if offset <= (_LONG_HEADER if is_long else _SHORT_HEADER) else lsn)

    def check_readable(self, lsn: int) -> None:
        """Refuse what can never be answered.

        Raises:
            LsnTooOld: below the consistency point.
        """
        if lsn < self.consistency_lsn:
            raise LsnTooOld(
                "the page server cannot rebuild anything this old: ask for the consistency point or later",
                lsn=Lsn(lsn),
                consistency_lsn=self.consistency_lsn,
            )

    async def wait_for(self, lsn: int, timeout_s: float) -> None:
        """Return once everything up to an LSN is ingested.

        Raises:
            LsnNotReached: it was not, within the time.
        """
        if self.ingested_lsn >= lsn:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (lsn, next(self._numbers), future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise LsnNotReached(
                "that lsn is not ingested yet: retry, or see whether wal still arrives",
                lsn=Lsn(lsn),
                ingested_lsn=self.ingested_lsn,
                waited_s=round(timeout_s, 1),
            ) from None

    def wake_waiters(self) -> None:
        """Let those go on who waited for what is ingested now."""
        lsn = self.ingested_lsn
        while self._waiters and (self._waiters[0][0] <= lsn or self._waiters[0][2].done()):
            future = heapq.heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    def close(self) -> None:
        """Close the WAL files."""
        self._files.close()

    def _index(self, start_lsn: int, wal: bytes) -> None:
        """Index whole records; those before the start of redo only fill up the segment file."""
        before = self._ingest.received_lsn - start_lsn
        if before < 0:
            # A stream taken up again after a segment switch leaves out the zeros that fill the segment.
            self._ingest.feed(bytes(-before))
        if before < len(wal):
            self._ingest.feed(wal[before:] if before > 0 else wal)
            self._follow(self._ingest.take_events())

    def _follow(self, events: list[dict[str, Any]]) -> None:
        """Keep track of the settings of the primary that the WAL speaks of."""
        for event in events:
            match event["kind"]:
                case "fpw_change":
                    self._set_full_page_writes(event["full_page_writes"], event["lsn"])
                case "checkpoint":
                    # It holds the state as of its redo point; a change may stand between that and the record.
                    if event["redo_lsn"] >= self.full_page_writes.lsn:
                        self._set_full_page_writes(event["full_page_writes"], event["redo_lsn"])
                case "parameter_change":
                    is_logged = self.manifest.data_checksums or event["wal_log_hints"]
                    if is_logged != self._hint_steps[-1][1]:
                        with self._view_lock:
                            self._hint_steps.append((event["lsn"], is_logged))
                            self.reader = self._new_reader()
                case _:
                    pass

    def _set_full_page_writes(self, is_on: bool, lsn: int) -> None:
        if is_on != self.full_page_writes.is_on:
            self.full_page_writes = FullPageWrites(is_on, lsn)
            logger.info("full_page_writes changed", is_on=is_on, lsn=str(Lsn(lsn)))

    def _recover(self) -> None:
        """Index local WAL after the last layer, up to where it ends."""
        manifest = self.manifest
        if manifest.end_lsn > manifest.start_lsn:
            self._files.check_whole(manifest.start_lsn, manifest.end_lsn)
        start_lsn = held_lsn = self.start_lsn
        scanner = self._new_scanner(start_lsn)
        tail = b""
        reason = None
        for piece in self._files.read(start_lsn):
            reason = scanner.feed_to_end(piece)
            tail += piece
            whole_bytes = min(max(0, scanner.record_end_lsn - held_lsn), len(tail))
            self._index(held_lsn, tail[:whole_bytes])
            tail = tail[whole_bytes:]
            held_lsn = Lsn(held_lsn + whole_bytes)
            if reason is not None:
                break
        self.durable_lsn = Lsn(manifest.end_lsn)
        self.restart_stream()
        logger.info(
            "local wal indexed", start_lsn=str(start_lsn), end_lsn=str(self.ingested_lsn), stopped_by=reason
        )

    def _new_ingest(self) -> Ingest:
        manifest = self.manifest
        return Ingest(
            manifest.end_lsn,
            segment_size=manifest.segment_size,
            system_id=manifest.system_id,
            major=manifest.major,
            sizes=load_sizes(self._layout.layers, manifest.sizes),
        )

    def _new_scanner(self, start_lsn: int) -> WalScanner:
        return WalScanner(
            start_lsn, segment_size=self.manifest.segment_size, system_id=self.manifest.system_id
        )

    def _new_reader(self) -> Reader:
        """The view of now: every layer, the frozen one, the open one."""
        frozen = [] if self._frozen is None else [self._frozen]
        return Reader(
            [*self._layers, *frozen, self._ingest.open_layer()],
            wal_dir=str(self._layout.wal),
            tli=self.manifest.tli,
            segment_size=self.manifest.segment_size,
            major=self.manifest.major,
            hint_bits_logged=self._hint_steps,
        )


@dataclass(frozen=True, slots=True)
class Frozen:
    """A closed layer and the state that goes into the manifest with it."""

    layer: Layer
    end_lsn: int
    sizes: bytes
    hint_steps: tuple[tuple[int, bool], ...]
    full_page_writes: FullPageWrites
