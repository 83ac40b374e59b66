"""One timeline: the WAL that came in, the layers that index it, the view that pages are rebuilt from."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import structlog

from pageserver.errors import LsnNotReached, LsnTooOld
from pageserver.layers import load_state, open_layer, store_state, write_layer
from pageserver.layout import Layout
from pageserver.manifest import FullPageWrites, Manifest, replace_manifest
from pageserver.primary import PrimarySettings
from pageserver.segments import WalFiles
from pageserver.waiters import LsnWaiters
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
        self.primary = PrimarySettings.of(manifest)
        self.received_lsn = INVALID_LSN
        self.durable_lsn = Lsn(manifest.end_lsn)
        self._layout = layout
        self._limits = limits
        self._files = WalFiles(layout.wal, tli=manifest.tli, segment_size=manifest.segment_size)
        self._layers = [open_layer(layout.layers, entry) for entry in manifest.layers]
        self._frozen: Layer | None = None
        self._view_lock = threading.Lock()
        self._ingest = self._new_ingest()
        self._scanner = self._new_scanner(self.start_lsn)
        self._held: list[bytes] = []
        self._held_lsn = INVALID_LSN
        self._waiters = LsnWaiters()
        self.reader = self._new_reader()

    @classmethod
    def open(cls, layout: Layout, manifest: Manifest, limits: LayerLimits) -> "Timeline":
        """Open what a manifest names, sweep out the rest, and index the local WAL after the last layer.

        Raises:
            DataDamaged: a file that the manifest needs is missing or not what was written.
        """
        keep = frozenset({manifest.state.name, *(entry.name for entry in manifest.layers)})
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
    def open_bytes(self) -> int:
        """Memory of the open layer."""
        return self._ingest.open_bytes

    @property
    def wal_bytes(self) -> int:
        """Local WAL."""
        size = self.manifest.segment_size
        return segment_start(self.ingested_lsn, size) + size - segment_start(self.manifest.start_lsn, size)

    def read_wal(self, start_lsn: Lsn) -> Iterator[bytes]:
        """Local WAL from there on, in pieces."""
        return self._files.read(start_lsn)

    def restart_stream(self) -> Lsn:
        """Forget bytes that came after the last whole record; the next ones start at the LSN returned."""
        start_lsn = self.start_lsn
        self._scanner = self._new_scanner(start_lsn)
        self._held.clear()
        self.received_lsn = self._held_lsn = start_lsn
        return start_lsn

    def append(self, wal: bytes) -> None:
        """Take the next bytes of the stream: check them, write the whole records among them, and index those.

        Bytes of a record that is not whole yet are held back: nothing unchecked reaches disk or index.

        Raises:
            WalCorrupt: the bytes are damaged; nothing of this call's was kept. Call `restart_stream`.
            Poisoned: the disk refused.
        """
        self._scanner.feed(wal)
        self._held.append(wal)
        self.received_lsn = Lsn(self.received_lsn + len(wal))
        start_lsn = self._held_lsn
        end_lsn = min(self._scanner.record_end_lsn, self.received_lsn)
        if end_lsn > start_lsn:
            held = b"".join(self._held)
            self._held = [held[end_lsn - start_lsn :]]
            self._held_lsn = Lsn(end_lsn)
            whole = held[: end_lsn - start_lsn]
            self._files.write(start_lsn, whole)
            self._index(start_lsn, whole)

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
    def open_fill(self) -> float:
        """How full the open layer is: from 1 on it wants to be frozen."""
        start_lsn = self.manifest.end_lsn if self._frozen is None else self._frozen.end_lsn
        return max(
            (self.ingested_lsn - start_lsn) / self._limits.wal_bytes_max,
            self._ingest.open_bytes / self._limits.open_bytes_max,
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
            state=self._ingest.state(),
            hint_steps=tuple(self.primary.hint_steps),
            full_page_writes=self.primary.full_page_writes,
        )

    def write_frozen(self, frozen: "Frozen") -> "Written":
        """Write a frozen layer and the manifest that names it. In a thread; `append` may go on.

        Raises:
            Poisoned: the disk refused.
        """
        self.sync()
        directory = self._layout.layers
        entry = write_layer(
            directory, self.manifest.end_lsn, frozen.end_lsn, level=0, write=frozen.layer.write
        )
        manifest = replace(
            self.manifest,
            end_lsn=frozen.end_lsn,
            generation=self.manifest.generation + 1,
            layers=(*self.manifest.layers, entry),
            state=store_state(directory, frozen.end_lsn, frozen.state),
            hint_steps=frozen.hint_steps,
            full_page_writes=frozen.full_page_writes,
        )
        layer = open_layer(directory, entry)
        replace_manifest(self._layout.root, manifest)
        return Written(manifest, [*self._layers, layer], (self.manifest.state.name,))

    def merge_layers(self, places: range) -> "Written":
        """Make one layer of some neighbours. In the same thread as `write_frozen`.

        Raises:
            Poisoned: the disk refused.
            LayerCorrupt: one of them is damaged.
        """
        layers, entries = self._layers, self.manifest.layers
        merged, gone = layers[places.start : places.stop], entries[places.start : places.stop]
        directory = self._layout.layers
        entry = write_layer(
            directory,
            gone[0].start_lsn,
            gone[-1].end_lsn,
            level=gone[0].level + 1,
            write=lambda path: Layer.merge(merged, path),
        )
        manifest = replace(
            self.manifest,
            generation=self.manifest.generation + 1,
            layers=(*entries[: places.start], entry, *entries[places.stop :]),
        )
        layer = open_layer(directory, entry)
        replace_manifest(self._layout.root, manifest)
        return Written(
            manifest,
            [*layers[: places.start], layer, *layers[places.stop :]],
            tuple(entry.name for entry in gone),
        )

    def take_written(self, written: "Written") -> None:
        """Read from the new files from now on; what they replace goes. Views that are in use keep theirs."""
        is_frozen_in = written.manifest.end_lsn > self.manifest.end_lsn
        with self._view_lock:
            self.manifest = written.manifest
            self._layers = written.layers
            if is_frozen_in:
                self._frozen = None
            self.reader = self._new_reader()
        for name in written.replaced:
            (self._layout.layers / name).unlink(missing_ok=True)
        logger.info(
            "layer written" if is_frozen_in else "layers merged",
            end_lsn=str(Lsn(self.manifest.end_lsn)),
            layers=len(self._layers),
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
        try:
            await self._waiters.wait(lsn, timeout_s)
        except TimeoutError:
            raise LsnNotReached(
                "that lsn is not ingested yet: retry, or see whether wal still arrives",
                lsn=Lsn(lsn),
                ingested_lsn=self.ingested_lsn,
                waited_s=round(timeout_s, 1),
            ) from None

    def wake_waiters(self) -> None:
        """Let those go on who waited for what is ingested now."""
        self._waiters.wake(self.ingested_lsn)

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
        full_page_writes, steps = self.primary.full_page_writes, len(self.primary.hint_steps)
        with self._view_lock:
            self.primary.follow(events)
            if len(self.primary.hint_steps) > steps:
                self.reader = self._new_reader()
        if (now := self.primary.full_page_writes) != full_page_writes:
            logger.info("full_page_writes changed", is_on=now.is_on, lsn=str(Lsn(now.lsn)))

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
        self._files.adopt(manifest.end_lsn, self.ingested_lsn)
        self.sync()
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
            state=load_state(self._layout.layers, manifest.state),
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
            hint_bits_logged=self.primary.hint_steps,
        )


@dataclass(frozen=True, slots=True)
class Frozen:
    """A closed layer and the state that goes into the manifest with it."""

    layer: Layer
    end_lsn: int
    state: bytes
    hint_steps: tuple[tuple[int, bool], ...]
    full_page_writes: FullPageWrites


@dataclass(frozen=True, slots=True)
class Written:
    """What the manifest on disk says now, its layers, and the files that it no longer names."""

    manifest: Manifest
    layers: list[Layer]
    replaced: tuple[str, ...]
