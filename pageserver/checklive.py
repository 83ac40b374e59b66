"""`pageserver check-wal CONNINFO`: the WAL of a live server or a walproxy node, as it comes."""

import asyncio
import contextlib
import signal
import time
from typing import Final, Self

from pageserver import nodes
from pageserver.errors import ConfigInvalid, StreamBroken
from walcore._native import WalChecker
from walproxy.wire.errors import ConnectFailed, MalformedInput, RemoteProtocolError, SqlError
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import Lsn, segment_start
from walproxy.wire.replication import (
    Keepalive,
    StatusUpdate,
    XLogData,
    parse_server_message,
    postgres_time_us,
)

_WAL_PAGE_BYTES: Final = 8192
_UNITS: Final = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


class LiveCheck:
    """Checks WAL while a server sends it, without a slot.

    Attributes:
        checker: what was found so far.
        start_lsn: where the first byte stands.
        end_reason: why the WAL ended, where it was not the server's present end.
    """

    def __init__(
        self, connection: CopyBoth, identity: nodes.Identity, start_lsn: Lsn, checker: WalChecker
    ) -> None:
        self.checker = checker
        self.start_lsn = start_lsn
        self.end_reason: str | None = None
        self._connection = connection
        self._identity = identity
        self._received_lsn = int(start_lsn)

    @classmethod
    async def begin(cls, conninfo: str, start_lsn: Lsn | None) -> Self:
        """Begin at a record's start, or at the start of the segment that the server writes to.

        Raises:
            StreamBroken: no connection, no right to replicate, or the WAL asked for is not there.
            ConfigInvalid: the server has not come to the start.
        """
        connection = await nodes.connect(conninfo)
        try:
            return await cls._begin(connection, start_lsn)
        except (ConnectFailed, SqlError) as error:
            connection.close()
            raise StreamBroken("the server gives no WAL", reason=error) from error
        except BaseException:
            connection.close()
            raise

    @classmethod
    async def _begin(cls, connection: CopyBoth, start_lsn: Lsn | None) -> Self:
        identity = await nodes.identify(connection)
        ((setting, *_),) = await connection.query("SHOW wal_segment_size")
        size = _size((setting or b"").decode())
        start_lsn = segment_start(identity.end_lsn, size) if start_lsn is None else start_lsn
        if start_lsn > identity.end_lsn:
            raise ConfigInvalid(
                "the server has not come to the start", start=start_lsn, present=identity.end_lsn
            )
        first = Lsn(start_lsn - start_lsn % _WAL_PAGE_BYTES)
        await connection.start(f"START_REPLICATION PHYSICAL {first} TIMELINE {identity.tli}")
        return cls(connection, identity, first, WalChecker(first, segment_size=size))

    async def run(self, *, follow: bool) -> None:
        """Check up to the server's end as it was at the beginning; with ``follow``, until interrupted.

        Raises:
            StreamBroken: the server ended it otherwise.
        """
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._receive(None if follow else self._identity.end_lsn))
        loop.add_signal_handler(signal.SIGINT, task.cancel)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        except (ConnectFailed, SqlError, RemoteProtocolError, MalformedInput) as error:
            raise StreamBroken("the stream of WAL broke off", reason=error) from error
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            self._connection.close()

    async def _receive(self, end_lsn: Lsn | None) -> None:
        while self.end_reason is None and (end_lsn is None or self._received_lsn < end_lsn):
            data = await self._connection.receive()
            if data is None:
                return
            match parse_server_message(data):
                case XLogData(start_lsn=start_lsn, wal=wal):
                    if start_lsn != self._received_lsn:
                        raise StreamBroken("a gap in the stream", at=Lsn(self._received_lsn), got=start_lsn)
                    self._received_lsn += len(wal)
                    self.end_reason = await asyncio.to_thread(self.checker.feed_to_end, wal)
                case Keepalive(reply_requested=True):
                    # Nothing is confirmed: a reader must never stand for a commit's second copy.
                    zero = Lsn(0)
                    now_us = postgres_time_us(time.time())
                    self._connection.send(StatusUpdate(zero, zero, zero, now_us).encode())
                case _:
                    pass


def _size(setting: str) -> int:
    """Bytes of a size as SHOW prints it: ``16MB``."""
    number = setting.rstrip("kMGB")
    return int(number) * _UNITS[setting[len(number) :]]
