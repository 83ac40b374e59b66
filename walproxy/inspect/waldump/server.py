"""WAL of a live server, over a replication connection without a slot."""

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Final

from walproxy.inspect.live import size_of_setting
from walproxy.inspect.waldump.ended import Fatal
from walproxy.inspect.waldump.nextrecord import Refused
from walproxy.inspect.waldump.options import Options
from walproxy.inspect.waldump.target import Target
from walproxy.inspect.waldump.words import Words
from walproxy.wire import replication
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import Lsn, parse_lsn, segment_name, segment_start

WAIT_S: Final = 0.5


@contextmanager
def connect(conninfo: str, options: Options) -> Iterator[Target]:
    """Read from the start asked for, else from the server's current segment, to its present end or as it grows.

    Raises:
        Fatal: no connection, no right to replicate, or the WAL is not there.
    """
    with asyncio.Runner() as runner:
        try:
            connection = runner.run(
                CopyBoth.connect(conninfo, replication=True, application_name="walproxy inspect")
            )
        except ConnectFailed as error:
            raise Fatal(str(error)) from error
        try:
            yield runner.run(_begin(runner, connection, options))
        except (SqlError, ConnectFailed) as error:
            raise Fatal(f"the server gives no wal: {error}") from error
        finally:
            connection.close()


async def _begin(runner: asyncio.Runner, connection: CopyBoth, options: Options) -> Target:
    [identity] = await connection.query("IDENTIFY_SYSTEM")
    [setting] = await connection.query("SHOW wal_segment_size")
    _, tli, present, size, *_ = ((value or b"").decode() for value in [*identity[:3], *setting])
    segment_size = size_of_setting(size)
    present_lsn = parse_lsn(present)
    start = Lsn(options.start_lsn or segment_start(present_lsn, segment_size))
    end = Lsn(min(options.end_lsn or present_lsn, present_lsn))
    if options.follow:
        end = Lsn(options.end_lsn)
    elif start >= end:
        raise Fatal(f"the server has no WAL from {start} to {end}: it has come to {present_lsn}")
    wal = ServerWal(
        runner,
        connection,
        options.timeline or int(tli),
        segment_size,
        start=segment_start(start, segment_size),
        end_lsn=end,
    )
    await connection.start(f"START_REPLICATION PHYSICAL {wal.received_lsn} TIMELINE {wal.tli}")
    return Target(wal, start, end)


class ServerWal:
    """The WAL of one timeline of a server, as far as it was received; whole segments are kept.

    Args:
        start: start of the first segment.
        end_lsn: what is to be received; 0: whatever comes.
    """

    def __init__(
        self,
        runner: asyncio.Runner,
        connection: CopyBoth,
        tli: int,
        segment_size: int,
        *,
        start: Lsn,
        end_lsn: Lsn,
    ) -> None:
        self.tli = tli
        self.segment_size = segment_size
        self.words = Words(connection.server_version // 10_000)
        self.received_lsn = start
        self._runner = runner
        self._connection = connection
        self._end_lsn = end_lsn
        self._segments: dict[int, bytearray] = {}
        self._ended = False

    def name(self, lsn: int) -> str:
        """Name of the segment that holds a position."""
        return segment_name(self.tli, lsn, self.segment_size)

    def has(self, lsn: int) -> bool:
        """Whether more than what is before ``lsn`` can be received."""
        return not self._ended and (not self._end_lsn or lsn < self._end_lsn)

    def read(self, lsn: int, length: int) -> bytes:
        """Bytes that were received; fewer where they end. Raises Refused while more may come."""
        offset = lsn % self.segment_size
        found = bytes(self._segments.get(lsn - offset, b"")[offset : offset + length])
        if len(found) < length and not self._end_lsn and not self._ended:
            raise Refused(f"nothing has come behind {self.received_lsn} yet")
        return found

    def batch(self, lsn: int, bytes_max: int) -> tuple[Lsn, list[str | bytes]]:
        """Receive up to so many bytes behind ``lsn``; give the segments that hold them."""
        goal = lsn + bytes_max
        if self._end_lsn:
            goal = min(goal, self._end_lsn)
        self._do(self._receive(goal))
        start = segment_start(lsn, self.segment_size)
        for gone in [at for at in self._segments if at < start - self.segment_size]:
            del self._segments[gone]
        return start, [bytes(self._segments[at]) for at in sorted(self._segments) if at >= start]

    def refresh(self) -> None:
        """Nothing to do: the next batch takes what came."""

    def _do(self, work: Coroutine[None, None, None]) -> None:
        self._runner.run(work)

    async def _receive(self, goal: int) -> None:
        while self.received_lsn < goal and not self._ended:
            try:
                async with asyncio.timeout(None if self._end_lsn else WAIT_S):
                    data = await self._connection.receive()
            except TimeoutError:
                return
            if data is None:
                self._ended = True
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        match replication.parse_server_message(data):
            case replication.XLogData(start_lsn=start_lsn, wal=wal):
                if start_lsn != self.received_lsn:
                    raise Fatal(f"a gap in the stream: got {start_lsn}, not {self.received_lsn}")
                self._keep(wal)
            case replication.Keepalive(reply_requested=True):
                # Nothing is confirmed: a reader must never stand for a commit's second copy.
                zero = Lsn(0)
                now_us = replication.postgres_time_us(time.time())
                self._connection.send(replication.StatusUpdate(zero, zero, zero, now_us).encode())
            case _:
                pass

    def _keep(self, wal: bytes) -> None:
        while wal:
            start = segment_start(self.received_lsn, self.segment_size)
            here = wal[: start + self.segment_size - self.received_lsn]
            self._segments.setdefault(start, bytearray()).extend(here)
            self.received_lsn = Lsn(self.received_lsn + len(here))
            wal = wal[len(here) :]
