"""WalSender: streams committed WAL to one consumer, and listens to how far it is."""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Final

import structlog

from walproxy.errors import WalRemoved
from walproxy.ports import NodeView
from walproxy.quorum.messages import Feedback
from walproxy.quorum.state import Cluster
from walproxy.store.slots import Slot, Slots
from walproxy.wire import datum
from walproxy.wire.aio import Connection, CopyStream
from walproxy.wire.errors import MalformedInput, SqlError
from walproxy.wire.function import Column
from walproxy.wire.lsn import INVALID_LSN, Lsn, parse_lsn, segment_name
from walproxy.wire.replication import (
    WAL_MESSAGE_BYTES_MAX,
    HotStandbyFeedback,
    Keepalive,
    StartReplication,
    StatusUpdate,
    XLogData,
    parse_client_message,
    postgres_time_us,
)

# As wal_sender_timeout is by default: a consumer is asked after half of it, dropped after all.
SILENCE_MAX_S: Final = 60.0
_WAL_PAGE: Final = 8192
# Reading this far behind may have to wait for the disk, which must not hold up the others.
_FAR_BEHIND_BYTES: Final = 16 << 20
_NEXT_TIMELINE: Final = (Column("next_tli", datum.INT8), Column("next_tli_startpos", datum.TEXT))

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TimelineEnd:
    """A timeline of the past went on as ``next_tli`` from ``switch_lsn``."""

    switch_lsn: Lsn
    next_tli: int


def current_tli(node: NodeView) -> int:
    """The timeline of the newest committed WAL. A switch beyond it may yet be cut off."""
    return node.term_history.tli_at(max(node.commit_lsn - 1, node.start_lsn))


def timeline_end(node: NodeView, tli: int) -> TimelineEnd | None:
    """Where a timeline ended; None if it is the current one.

    Raises:
        SqlError: it is no ancestor of the current one.
    """
    current = current_tli(node)
    if tli == current:
        return None
    ancestors = parse_history(node.histories().get(current, b""))
    for at, (ancestor, end_lsn) in enumerate(ancestors):
        if ancestor == tli:
            following = ancestors[at + 1 :]
            return TimelineEnd(end_lsn, following[0][0] if following else current)
    raise SqlError("22023", f"requested timeline {tli} is not in this server's history")


def parse_history(content: bytes) -> list[tuple[int, Lsn]]:
    """Read a timeline history file: each ancestor, and where it ended. Lines that say nothing are left out.

    Source:
        ``readTimeLineHistory`` in ``src/backend/access/transam/timeline.c``.
    """
    found = []
    for line in content.decode(errors="replace").splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdecimal():
            with contextlib.suppress(MalformedInput):
                found.append((int(words[0]), parse_lsn(words[1])))
    return found


@dataclass(slots=True)
class WalSender:
    """One consumer that streams. What it reports is kept here for status and for the horizon."""

    node: NodeView
    slots: Slots
    connection: Connection
    slot: Slot | None = None
    tli: int = 0
    state: str = "startup"
    sent_lsn: Lsn = INVALID_LSN
    write_lsn: Lsn = INVALID_LSN
    flush_lsn: Lsn = INVALID_LSN
    apply_lsn: Lsn = INVALID_LSN
    told_flush_lsn: Lsn = INVALID_LSN  # As it says: beyond the commit LSN, it has that from elsewhere.
    feedback: Feedback = field(default_factory=Feedback)
    heard_s: float = 0.0
    _is_asked: bool = False

    async def run(self, command: StartReplication, cluster: Cluster) -> None:
        """Carry out START_REPLICATION to its end. Raises SqlError and what the connection raises."""
        if command.slot is not None:
            self.slot = self.slots.acquire(command.slot, self.connection.pid)
        try:
            await self._run(command, cluster)
        finally:
            if self.slot is not None:
                await self.slots.release(self.slot)

    async def _run(self, command: StartReplication, cluster: Cluster) -> None:
        self.tli = command.tli or current_tli(self.node)
        end = timeline_end(self.node, self.tli)
        if end is not None and end.switch_lsn < command.start_lsn:
            raise SqlError(
                "22023",
                f"requested starting point {command.start_lsn} on timeline {self.tli} "
                "is not in this server's history",
                detail=f"This server's history forked from timeline {self.tli} at {end.switch_lsn}.",
            )
        if end is None or command.start_lsn < end.switch_lsn:
            stream = await self.connection.start_copy()
            if command.start_lsn > self.node.commit_lsn:
                raise SqlError(
                    "XX000",
                    f"requested starting point {command.start_lsn} is ahead of the WAL flush position "
                    f"of this server {self.node.commit_lsn}",
                )
            self.sent_lsn = command.start_lsn
            end = await self._stream(stream, cluster)
        if end is not None:
            row = (end.next_tli, str(end.switch_lsn))
            await self.connection.put_result(_NEXT_TIMELINE, [row], "START_STREAMING")
        else:
            await self.connection.put_complete("START_STREAMING")
        await self.connection.put_complete("START_REPLICATION")

    async def _stream(self, stream: CopyStream, cluster: Cluster) -> TimelineEnd | None:
        """Send and listen at once. Ends with the timeline, or (None) when the consumer has had enough."""
        self.heard_s = time.monotonic()
        self.state = "catchup"
        sending = asyncio.create_task(self._send(stream, cluster))
        listening = asyncio.create_task(self._listen(stream))
        try:
            await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                listening.result()
                sending.cancel()
                await asyncio.wait({sending})
                await stream.send_done()
                return None if sending.cancelled() else sending.result()
            end = sending.result()
            await stream.send_done()
            async with asyncio.timeout(SILENCE_MAX_S):
                await listening
        except TimeoutError as error:
            raise _silent() from error
        finally:
            self.state = "startup"
            sending.cancel()
            listening.cancel()
            await asyncio.wait({sending, listening})
        return end

    async def _send(self, stream: CopyStream, cluster: Cluster) -> TimelineEnd:
        end: TimelineEnd | None = None
        while True:
            commit_lsn = self.node.commit_lsn
            end = end or timeline_end(self.node, self.tli)
            limit = commit_lsn if end is None else min(commit_lsn, end.switch_lsn)
            if self.sent_lsn < limit:
                wal = await self._read(limit, cluster)
                stream.send(XLogData(self.sent_lsn, commit_lsn, _now_us(), wal).encode())
                self.sent_lsn = Lsn(self.sent_lsn + len(wal))
                async with asyncio.timeout(SILENCE_MAX_S):
                    await stream.flush()
            elif end is not None:
                return end
            else:
                self.state = "streaming"
                due_s = self.heard_s + SILENCE_MAX_S / (1 if self._is_asked else 2)
                await self.node.wait_commit(self.sent_lsn, max(due_s - time.monotonic(), 0.01))
            self._mind_silence(stream)

    async def _read(self, limit: Lsn, cluster: Cluster) -> bytes:
        """The next piece to send; like a stock walsender's it ends at the limit or at a WAL page."""
        end = self.sent_lsn + WAL_MESSAGE_BYTES_MAX
        end = limit if end >= limit else end - end % _WAL_PAGE
        size = end - self.sent_lsn
        try:
            if limit - self.sent_lsn > _FAR_BEHIND_BYTES:
                return await asyncio.to_thread(self.node.read, self.sent_lsn, size)
            return self.node.read(self.sent_lsn, size)
        except WalRemoved as error:
            name = segment_name(self.tli, self.sent_lsn, cluster.segment_size)
            raise SqlError("58P01", f"requested WAL segment {name} has already been removed") from error

    def _mind_silence(self, stream: CopyStream) -> None:
        """Ask a silent consumer for a sign of life, then give it up."""
        silent_s = time.monotonic() - self.heard_s
        if silent_s >= SILENCE_MAX_S:
            raise _silent()
        if silent_s >= SILENCE_MAX_S / 2 and not self._is_asked:
            stream.send(Keepalive(self.sent_lsn, _now_us(), reply_requested=True).encode())
            self._is_asked = True

    async def _listen(self, stream: CopyStream) -> None:
        """Take what the consumer says, until it ends the copy."""
        while (data := await stream.receive()) is not None:
            self.heard_s = time.monotonic()
            self._is_asked = False
            match parse_client_message(data):
                case StatusUpdate() as status:
                    await self._on_status(status, stream)
                case HotStandbyFeedback(_, xmin, xmin_epoch, catalog_xmin, catalog_epoch):
                    self.feedback = Feedback(xmin, xmin_epoch, catalog_xmin, catalog_epoch)
                    if self.slot is not None:
                        self.slot.feedback = self.feedback
            self.node.downstream_moved()

    async def _on_status(self, status: StatusUpdate, stream: CopyStream) -> None:
        # Nobody can have durably what was never committed; a claim beyond that must not let WAL go.
        commit_lsn = self.node.commit_lsn
        self.write_lsn = min(status.write_lsn, commit_lsn)
        self.flush_lsn = min(status.flush_lsn, commit_lsn)
        self.apply_lsn = min(status.apply_lsn, commit_lsn)
        self.told_flush_lsn = status.flush_lsn
        if status.reply_requested:
            stream.send(Keepalive(self.sent_lsn, _now_us(), reply_requested=False).encode())
        if self.slot is not None:
            self.slot.apply_lsn = self.apply_lsn
            if self.flush_lsn > 0:
                await self.slots.advance(self.slot, self.flush_lsn)


def _silent() -> SqlError:
    return SqlError("57P05", "terminating walsender process due to replication timeout", fatal=True)


def _now_us() -> int:
    return postgres_time_us(time.time())
