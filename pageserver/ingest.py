"""WAL in: follows the walproxy nodes, one at a time, and feeds the timeline."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import structlog

from pageserver import nodes
from pageserver.compaction import layers_to_merge
from pageserver.errors import StreamBroken, WalMissing
from pageserver.timeline import Frozen, Timeline
from walcore.errors import WalCorrupt
from walproxy.wire.errors import ConnectFailed, RemoteProtocolError, SqlError
from walproxy.wire.libpq import CopyBoth, Row
from walproxy.wire.lsn import Lsn
from walproxy.wire.replication import (
    Keepalive,
    StatusUpdate,
    XLogData,
    parse_server_message,
    postgres_time_us,
)

logger = structlog.get_logger()

_PENDING_BYTES_MAX: Final = 16 << 20
"""WAL received and not yet written. Beyond it the socket waits."""
_SYNC_PAUSE_S: Final = 0.1
"""Between syncs: nobody waits for ours, and the nodes' own may be on the same disk."""
_REPORT_PAUSE_S: Final = 0.05
_SILENCE_MAX_S: Final = 10.0
"""A node that says nothing for so long, not even when asked, is gone."""
_BEHIND_AFTER_S: Final = 5.0
"""Without new WAL for so long, the others are asked whether they have more."""
_OVERFULL: Final = 2.0
"""The open layer may grow so far over its limit while another is written. Then ingest waits."""
_LET_GO_EVERY_S: Final = 15.0
_RETRY_MAX_S: Final = 2.0


class WalReceiver:
    """Keeps a timeline up to date from whichever node has WAL for it.

    Args:
        conninfos: the nodes; the next one is tried when one is of no use.
    """

    def __init__(self, timeline: Timeline, conninfos: tuple[str, ...], *, slot_name: str) -> None:
        self.connected_node: str | None = None
        self.last_error: str | None = None
        self._timeline = timeline
        self._conninfos = conninfos
        self._slot_name = slot_name
        self._at = 0
        self._append_thread = ThreadPoolExecutor(1, thread_name_prefix="append")
        self._layer_thread = ThreadPoolExecutor(1, thread_name_prefix="layer")
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Follow the nodes until cancelled.

        Raises:
            Poisoned: the disk refused.
        """
        try:
            await self._follow_nodes()
        finally:
            if self._writing is not None:
                self._writing.cancel()
            self._append_thread.shutdown()
            self._layer_thread.shutdown()

    async def _follow_nodes(self) -> None:
        failures = 0
        while True:
            conninfo = self._conninfos[self._at % len(self._conninfos)]
            before_lsn = self._timeline.ingested_lsn
            try:
                await self._follow(conninfo)
            except StreamBroken as error:
                self._note(conninfo, error)
            self.connected_node = None
            self._at += 1
            failures = 0 if self._timeline.ingested_lsn > before_lsn else failures + 1
            # One quick round through all nodes, then slower ones.
            rounds = failures // len(self._conninfos)
            await asyncio.sleep(min(_RETRY_MAX_S, 0.1 * 2**rounds) if rounds else 0.0)

    def _note(self, conninfo: str, error: StreamBroken) -> None:
        text = str(error)
        if text != self.last_error:
            logger.info("wal stream ended", node=nodes.shown(conninfo), reason=text)
        self.last_error = text

    async def _follow(self, conninfo: str) -> None:
        """Stream from one node until that ends: always with StreamBroken, or with what the disk gives."""
        connection = await nodes.connect(conninfo)
        try:
            start_lsn = await self._start(connection)
            self.connected_node = nodes.shown(conninfo)
            logger.info("wal stream begins", node=self.connected_node, start_lsn=str(start_lsn))
            stream = _Stream(connection, self, self._timeline, start_lsn)
            async with asyncio.TaskGroup() as group:
                for work in (stream.receive, stream.append, stream.sync, stream.report, stream.watch):
                    group.create_task(work())
        except ExceptionGroup as failed:
            broken, rest = failed.split((StreamBroken, ConnectFailed, SqlError, RemoteProtocolError))
            if rest is not None:
                raise rest from None
            assert broken is not None
            raise _as_broken(broken) from broken
        finally:
            connection.close()
            # Otherwise what came last would wait for the next stream to be made durable.
            await asyncio.to_thread(self._timeline.sync)

    async def _start(self, connection: CopyBoth) -> Lsn:
        timeline = self._timeline
        identity = await nodes.identify(connection)
        check_identity(identity, timeline)
        await nodes.ensure_slot(connection, self._slot_name)
        restart = timeline.restart_stream
        start_lsn = await asyncio.get_running_loop().run_in_executor(self._append_thread, restart)
        # The last stream may have ended while its last bytes were on their way into the timeline.
        timeline.wake_waiters()
        if identity.end_lsn < start_lsn:
            raise WalMissing("the node is behind us", node_lsn=identity.end_lsn, needed_lsn=start_lsn)
        try:
            ended = await connection.start(
                f"START_REPLICATION SLOT {self._slot_name} PHYSICAL {start_lsn}"
                f" TIMELINE {timeline.manifest.tli}"
            )
        except (ConnectFailed, SqlError) as error:
            raise WalMissing("the node does not stream to us", needed_lsn=start_lsn, reason=error) from error
        if ended:
            raise _timeline_ended(start_lsn, ended)
        self.last_error = None
        return start_lsn

    async def look_for_more(self, lsn: Lsn) -> None:
        """Ask the other nodes whether they have WAL beyond an LSN.

        Raises:
            StreamBroken: one has; it is the next to be tried.
        """
        for step in range(1, len(self._conninfos)):
            conninfo = self._conninfos[(self._at + step) % len(self._conninfos)]
            try:
                connection = await nodes.connect(conninfo)
            except StreamBroken:
                continue
            try:
                identity = await nodes.identify(connection)
                check_identity(identity, self._timeline)
            except StreamBroken:
                continue
            finally:
                connection.close()
            if identity.end_lsn > lsn:
                self._at += step - 1
                raise StreamBroken(
                    "another node has more wal", node=nodes.shown(conninfo), lsn=identity.end_lsn
                )

    async def let_go_elsewhere(self) -> None:
        """Drop our slot on the nodes that we do not stream from: it would hold their WAL for ever.

        The group keeps what the slot we use needs, on every node; so we can come back without one.
        """
        for step in range(1, len(self._conninfos)):
            conninfo = self._conninfos[(self._at + step) % len(self._conninfos)]
            try:
                connection = await nodes.connect(conninfo)
            except StreamBroken:
                continue  # When it is back.
            try:
                check_identity(await nodes.identify(connection), self._timeline)
                await nodes.drop_slot(connection, self._slot_name)
            except StreamBroken:
                continue
            finally:
                connection.close()

    async def append(self, wal: bytes) -> None:
        """Give the timeline the next bytes, and see to it that full layers are written."""
        loop = asyncio.get_running_loop()
        timeline = self._timeline
        await loop.run_in_executor(self._append_thread, timeline.append, wal)
        timeline.wake_waiters()
        if self._writing is not None and (self._writing.done() or timeline.open_fill >= _OVERFULL):
            await asyncio.shield(self._writing)
            self._writing = None
        if self._writing is None and timeline.open_fill >= 1:
            frozen = await loop.run_in_executor(self._append_thread, timeline.freeze)
            self._writing = asyncio.create_task(self._write_layer(frozen))

    async def _write_layer(self, frozen: Frozen) -> None:
        timeline = self._timeline
        loop = asyncio.get_running_loop()
        written = await loop.run_in_executor(self._layer_thread, timeline.write_frozen, frozen)
        timeline.take_written(written)
        while (places := layers_to_merge(timeline.manifest.layers)) is not None:
            written = await loop.run_in_executor(self._layer_thread, timeline.merge_layers, places)
            timeline.take_written(written)


class _Stream:
    """One stream from one node: five pieces of work side by side. The first that fails ends all."""

    def __init__(
        self, connection: CopyBoth, receiver: WalReceiver, timeline: Timeline, start_lsn: Lsn
    ) -> None:
        self._connection = connection
        self._receiver = receiver
        self._timeline = timeline
        self._next_lsn = start_lsn
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._arrived = asyncio.Event()
        self._has_room = asyncio.Event()
        self._appended = asyncio.Event()
        self._report_due = asyncio.Event()
        self._heard_s = self._got_wal_s = self._let_go_s = time.monotonic()

    async def receive(self) -> None:
        """Take messages off the wire."""
        while True:
            data = await self._connection.receive()
            if data is None:
                raise await self._ended()
            self._heard_s = time.monotonic()
            match parse_server_message(data):
                case XLogData(start_lsn, _, _, wal):
                    if start_lsn != self._next_lsn:
                        raise StreamBroken(
                            "there is a gap in the wal", expected=self._next_lsn, got=start_lsn
                        )
                    self._next_lsn = Lsn(start_lsn + len(wal))
                    self._got_wal_s = self._heard_s
                    self._pending.append(wal)
                    self._pending_bytes += len(wal)
                    self._arrived.set()
                    while self._pending_bytes > _PENDING_BYTES_MAX:
                        self._has_room.clear()
                        await self._has_room.wait()
                case Keepalive(reply_requested=reply_requested):
                    if reply_requested:
                        self._report_due.set()

    async def _ended(self) -> StreamBroken:
        """The node has sent all there is of our Postgres timeline."""
        return _timeline_ended(self._next_lsn, await self._connection.finish_copy())

    async def append(self) -> None:
        """Hand on everything that has arrived, as one piece."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            wal = b"".join(self._pending)
            self._pending.clear()
            self._pending_bytes = 0
            self._has_room.set()
            try:
                await self._receiver.append(wal)
            except WalCorrupt as error:
                raise StreamBroken(
                    "the node sent damaged wal: nothing of it was kept", reason=error
                ) from error
            self._appended.set()
            self._report_due.set()

    async def sync(self) -> None:
        """Make durable what was appended."""
        while True:
            await self._appended.wait()
            self._appended.clear()
            await asyncio.to_thread(self._timeline.sync)
            self._report_due.set()
            await asyncio.sleep(_SYNC_PAUSE_S)

    async def report(self) -> None:
        """Tell the node how far we are: at once when asked or after progress, then not again for a moment."""
        while True:
            await self._report_due.wait()
            self._report_due.clear()
            await self._send_status(reply_requested=False)
            await asyncio.sleep(_REPORT_PAUSE_S)

    async def watch(self) -> None:
        """Give up a node that is silent, or that has less WAL than another."""
        while True:
            await asyncio.sleep(1.0)
            now_s = time.monotonic()
            if now_s - self._heard_s > _SILENCE_MAX_S:
                raise StreamBroken("the node is silent", seconds=round(now_s - self._heard_s, 1))
            if now_s - self._heard_s > _SILENCE_MAX_S / 2:
                await self._send_status(reply_requested=True)
            if now_s - self._got_wal_s > _BEHIND_AFTER_S:
                self._got_wal_s = now_s
                await self._receiver.look_for_more(self._next_lsn)
            if now_s - self._let_go_s > _LET_GO_EVERY_S:
                self._let_go_s = now_s
                await self._receiver.let_go_elsewhere()

    async def _send_status(self, *, reply_requested: bool) -> None:
        timeline = self._timeline
        status = StatusUpdate(
            write_lsn=self._next_lsn,
            flush_lsn=timeline.durable_lsn,
            apply_lsn=timeline.ingested_lsn,
            sent_us=postgres_time_us(time.time()),
            reply_requested=reply_requested,
        )
        self._connection.send(status.encode())
        await self._connection.flush()


def check_identity(identity: nodes.Identity, timeline: Timeline) -> None:
    """Refuse a node that follows another cluster, or has left our history.

    Raises:
        StreamBroken: it is of no use to us.
    """
    manifest = timeline.manifest
    if identity.system_id != manifest.system_id:
        raise StreamBroken(
            "the node follows another cluster: correct the setting walproxy",
            node_system_id=identity.system_id,
            our_system_id=manifest.system_id,
        )
    if identity.tli < manifest.tli:
        raise StreamBroken("the node is on an older timeline", node_tli=identity.tli, our_tli=manifest.tli)


def _timeline_ended(at_lsn: Lsn, rows: list[Row]) -> StreamBroken:
    """What a node says that has sent all there is of our Postgres timeline."""
    next_tli = b"" if not rows else rows[0][0]
    return StreamBroken(
        "the primary's timeline ended with a promotion, which is not followed yet: "
        "to go on after it, empty data_dir and start again",
        lsn=at_lsn,
        next_tli=(next_tli or b"").decode(),
    )


def _as_broken(error: BaseException) -> StreamBroken:
    """What ended a stream first, in our words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case StreamBroken():
            return error
        case SqlError(sqlstate=nodes.UNDEFINED_FILE):
            return WalMissing(
                "the node no longer has the wal we need: if no other has, empty data_dir and start again",
                reason=error,
            )
        case _:
            return StreamBroken("lost the node", reason=error)
