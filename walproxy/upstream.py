"""The connection to the stock primary: WAL in, what the quorum has committed out."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import structlog

from walproxy.errors import PrimaryUnreachable, SlotActive, WalRemoved
from walproxy.ports import EndOfTimeline, LentStream, PrimaryWal
from walproxy.quorum.messages import WAL_BYTES_MAX, Feedback
from walproxy.quorum.primary import PrimaryIdentity
from walproxy.quorum.state import Cluster
from walproxy.wire.errors import ConnectFailed, MalformedInput, RemoteProtocolError, SqlError
from walproxy.wire.libpq import CopyBoth, Row
from walproxy.wire.lsn import INVALID_LSN, Lsn, parse_lsn
from walproxy.wire.replication import (
    WAL_MESSAGE_BYTES_MAX,
    HotStandbyFeedback,
    Keepalive,
    StatusUpdate,
    XLogData,
    parse_server_message,
    postgres_time_us,
)

_SILENCE_MAX_S: Final = 10.0  # Of the primary, before it counts as lost.
# Of us, before the primary's walsender ends and frees the slot: a proposer that is stopped, or cut off, holds
# up the next one, and with it all commits, for so long at most.
_HELD_MAX_S: Final = 4.0
_STATUS_EVERY_S: Final = 1.0
_UNITS: Final = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_OBJECT_IN_USE: Final = "55006"
_UNDEFINED_FILE: Final = "58P01"
_SLOT_LOST: Final = re.compile("can no longer|has been invalidated|already been removed")

_log = structlog.get_logger(__name__)


class PrimaryConnection:
    """One connection to the primary, on a physical slot. See ``ports.Upstream``.

    Args:
        conninfo: libpq's; any user with REPLICATION will do.
        slot_name: made if missing, WAL reserved. It is never dropped here: it holds WAL for the next node.
        application_name: the one that `synchronous_standby_names` counts.
    """

    def __init__(self, conninfo: str, *, slot_name: str, application_name: str) -> None:
        self._conninfo = conninfo
        self._slot_name = slot_name
        self._application_name = application_name
        self._copy: CopyBoth | None = None
        self._next_lsn = INVALID_LSN
        self._messages = 0  # Ever received.
        self._primary_end_lsn = INVALID_LSN
        self._end: EndOfTimeline | None = None  # Known before anything was streamed.
        self._reported = (INVALID_LSN, INVALID_LSN, INVALID_LSN)

    async def identify(self) -> PrimaryIdentity:
        """Connect and ask. Raises PrimaryUnreachable."""
        with _unreachable("cannot connect to the primary"):
            self._copy = await CopyBoth.connect(
                self._conninfo,
                replication=True,
                application_name=self._application_name,
                is_lendable=True,
                options=f"-c wal_sender_timeout={int(_HELD_MAX_S * 1000)}",
            )
        async with _answering("the primary refuses replication"):
            ((system_id, tli_text, end_lsn, _),) = await self._copy.query("IDENTIFY_SYSTEM")
            ((segment_size,),) = await self._copy.query("SHOW wal_segment_size")
            tli = int(_text(tli_text))
            return PrimaryIdentity(
                cluster=Cluster(
                    int(_text(system_id)), _bytes_of(_text(segment_size)), self._copy.server_version // 10_000
                ),
                tli=tli,
                flush_lsn=parse_lsn(_text(end_lsn)),
                slot_restart_lsn=await self._slot_restart_lsn(),
                server_version=self._copy.parameter("server_version"),
                history=await self.history(tli) if tli > 1 else b"",
            )

    async def _slot_restart_lsn(self) -> Lsn:
        """Where our slot holds WAL from; a slot that is missing, or holds nothing yet, is made anew."""
        slot = await self._read_slot()
        if slot[0] is None or slot[1] is None:
            if slot[0] is not None:
                await self._query(f"DROP_REPLICATION_SLOT {self._slot_name}")
            await self._query(f"CREATE_REPLICATION_SLOT {self._slot_name} PHYSICAL (RESERVE_WAL)")
            _log.info("slot created on the primary", slot=self._slot_name)
            slot = await self._read_slot()
        return parse_lsn(_text(slot[1]))

    async def _read_slot(self) -> Row:
        (row,) = await self._query(f"READ_REPLICATION_SLOT {self._slot_name}")
        return row

    async def _query(self, command: str) -> list[Row]:
        assert self._copy is not None
        return await self._copy.query(command)

    async def history(self, tli: int) -> bytes:
        """The history file of a timeline. Raises PrimaryUnreachable."""
        async with _answering("the primary gives no timeline history"):
            ((_, content),) = await self._query(f"TIMELINE_HISTORY {tli}")
            return content or b""

    async def start(self, at_lsn: Lsn, tli: int) -> None:
        """Begin to stream. Raises SlotActive, WalRemoved, PrimaryUnreachable."""
        assert self._copy is not None
        async with _answering("the primary refuses to stream"):
            command = f"START_REPLICATION SLOT {self._slot_name} PHYSICAL {at_lsn} TIMELINE {tli}"
            rows = await self._copy.start(command)
            self._end = _end_of_timeline(rows) if rows else None
        self._next_lsn = at_lsn

    async def receive(self) -> PrimaryWal | EndOfTimeline:
        """All WAL that is here, or the next that comes. Raises PrimaryUnreachable, WalRemoved."""
        assert self._copy is not None
        start_lsn = self._next_lsn
        parts: list[bytes] = []
        with _unreachable("the stream of the primary broke off"):
            if self._end is not None:
                return self._end
            message = await self._next_message()
            if message is None:
                return _end_of_timeline(await self._copy.finish_copy())
            while message is not None:
                parts.append(self._take(message))
                if self._next_lsn - start_lsn > WAL_BYTES_MAX - WAL_MESSAGE_BYTES_MAX:
                    break
                message = self._copy.receive_ready()
        return PrimaryWal(start_lsn, b"".join(parts), self._primary_end_lsn)

    async def pump(self, take: Callable[[PrimaryWal], None]) -> EndOfTimeline:
        """Give WAL to `take` as it comes, until the timeline ends. Raises PrimaryUnreachable, WalRemoved."""
        assert self._copy is not None
        parts: list[bytes] = []
        start_lsn = self._next_lsn

        def received(message: bytes) -> None:
            nonlocal start_lsn
            if not parts:
                start_lsn = self._next_lsn
            parts.append(self._take(message))
            if self._next_lsn - start_lsn > WAL_BYTES_MAX - WAL_MESSAGE_BYTES_MAX:
                done()

        def done() -> None:
            if parts:
                wal = parts[0] if len(parts) == 1 else b"".join(parts)
                parts.clear()
                take(PrimaryWal(start_lsn, wal, self._primary_end_lsn))

        with _unreachable("the stream of the primary broke off"):
            if self._end is not None:
                return self._end
            watch = asyncio.create_task(self._watch())
            pump = asyncio.create_task(self._copy.pump(received, done))
            try:
                await asyncio.wait({watch, pump}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (watch, pump):
                    task.cancel()
                await asyncio.wait({watch, pump})
            if pump.cancelled():
                watch.result()
            pump.result()
            return _end_of_timeline(await self._copy.finish_copy())

    async def _watch(self) -> None:
        """Show that we live, also while `pump` is paused; ask a silent primary for a sign of life."""
        silent_s = 0.0
        heard = -1
        while True:
            await asyncio.sleep(_STATUS_EVERY_S)
            silent_s = silent_s + _STATUS_EVERY_S if self._messages == heard else 0.0
            heard = self._messages
            if silent_s >= _SILENCE_MAX_S:
                raise PrimaryUnreachable("the primary is silent", silence_s=_SILENCE_MAX_S)
            self._send_status(reply_requested=silent_s >= _SILENCE_MAX_S / 2)

    def pause(self) -> None:
        """Let `pump` read no more until `resume`."""
        if self._copy is not None:
            self._copy.pause()

    def resume(self) -> None:
        """Let `pump` read on."""
        if self._copy is not None:
            self._copy.resume()

    @property
    def can_be_lent(self) -> bool:
        """See ``ports.LendableUpstream``."""
        return self._copy is not None and self._copy.can_be_lent

    @property
    def next_lsn(self) -> Lsn:
        """Where the next WAL stands."""
        return self._next_lsn

    def lend(self, send: Callable[[bytes], None]) -> LentStream:
        """Let another take the stream while `pump` runs."""
        assert self._copy is not None
        return LentStream(*self._copy.lend(send), self._primary_end_lsn, self._reported[0])

    def on_taken(self, next_lsn: Lsn, primary_end_lsn: Lsn, messages: int, reported_lsn: Lsn) -> None:
        """The other has taken so many more messages, the WAL up to `next_lsn`."""
        self._next_lsn, self._primary_end_lsn = next_lsn, primary_end_lsn
        self._messages += messages
        self._reported = (reported_lsn, reported_lsn, reported_lsn)

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """Read again, `rest` first; and send `unsent`, before anything else."""
        if self._copy is not None:
            self._copy.take_back(rest, unsent)

    def fail(self, error: Exception) -> None:
        """End `pump` with that."""
        if self._copy is not None:
            self._copy.fail(error)

    async def _next_message(self) -> bytes | None:
        """The next CopyData; a silent primary is asked once for a sign of life."""
        assert self._copy is not None
        for _ in range(2):
            try:
                async with asyncio.timeout(_SILENCE_MAX_S / 2):
                    return await self._copy.receive()
            except TimeoutError:
                self._send_status(reply_requested=True)
        raise PrimaryUnreachable("the primary is silent", silence_s=_SILENCE_MAX_S)

    def _take(self, data: bytes) -> bytes:
        """The WAL of one message; a keepalive is answered."""
        self._messages += 1
        match parse_server_message(data):
            case XLogData(start_lsn, end_lsn, _, wal):
                if start_lsn != self._next_lsn:
                    raise PrimaryUnreachable(
                        "gap in the primary's stream", wanted=self._next_lsn, got=start_lsn
                    )
                self._next_lsn = Lsn(start_lsn + len(wal))
                self._primary_end_lsn = max(end_lsn, self._next_lsn)
                return wal
            case Keepalive(end_lsn, _, reply_requested):
                self._primary_end_lsn = max(end_lsn, self._primary_end_lsn)
                if reply_requested:
                    self._send_status()
                return b""

    def report(self, write_lsn: Lsn, flush_lsn: Lsn, apply_lsn: Lsn) -> None:
        """Send a status update now. Raises PrimaryUnreachable."""
        self._reported = (write_lsn, flush_lsn, apply_lsn)
        self._send_status()

    def _send_status(self, *, reply_requested: bool = False) -> None:
        self._send(StatusUpdate(*self._reported, postgres_time_us(time.time()), reply_requested).encode())

    def feedback(self, feedback: Feedback) -> None:
        """Send hot standby feedback. Raises PrimaryUnreachable."""
        message = HotStandbyFeedback(
            postgres_time_us(time.time()),
            feedback.xmin,
            feedback.xmin_epoch,
            feedback.catalog_xmin,
            feedback.catalog_xmin_epoch,
        )
        self._send(message.encode())

    def _send(self, data: bytes) -> None:
        assert self._copy is not None
        with _unreachable("the connection to the primary is lost"):
            self._copy.send(data)

    async def close(self) -> None:
        """End the connection; the primary frees the slot when it notices."""
        if self._copy is not None:
            self._copy.close()
            self._copy = None


@contextlib.asynccontextmanager
async def _answering(what: str) -> AsyncIterator[None]:
    """The same, of questions: an answer that does not come, or makes no sense, is a failure too."""
    try:
        async with asyncio.timeout(_SILENCE_MAX_S):
            with _unreachable(what):
                yield
    except TimeoutError as error:
        raise PrimaryUnreachable("the primary does not answer", within_s=_SILENCE_MAX_S) from error
    except (MalformedInput, ValueError) as error:
        raise PrimaryUnreachable(f"{what}: {error}") from error


@contextlib.contextmanager
def _unreachable(what: str) -> Iterator[None]:
    """Say what a failure of the wire means here."""
    try:
        yield
    except SqlError as error:
        facts = {"sqlstate": error.sqlstate, "primary_says": error.message}
        if error.sqlstate == _OBJECT_IN_USE:
            raise SlotActive("the slot is in use by another connection", **facts) from error
        if error.sqlstate == _UNDEFINED_FILE or _SLOT_LOST.search(error.message):
            raise WalRemoved("the primary no longer has the WAL we need", **facts) from error
        raise PrimaryUnreachable(what, **facts) from error
    except (ConnectFailed, RemoteProtocolError) as error:
        raise PrimaryUnreachable(f"{what}: {error}") from error


def _end_of_timeline(rows: list[Row]) -> EndOfTimeline:
    if not rows:
        raise PrimaryUnreachable("the primary ended the stream")
    ((next_tli, switch_lsn, *_),) = rows
    return EndOfTimeline(int(_text(next_tli)), parse_lsn(_text(switch_lsn)))


def _text(value: bytes | None) -> str:
    if value is None:
        raise RemoteProtocolError("the primary left out a value")
    return value.decode()


def _bytes_of(text: str) -> int:
    """Read a size as SHOW prints it: ``16MB``."""
    match = re.fullmatch(r"(\d+)(B|kB|MB|GB)", text)
    if match is None:
        raise RemoteProtocolError("not a size", text=text)
    return int(match[1]) * _UNITS[match[2]]
