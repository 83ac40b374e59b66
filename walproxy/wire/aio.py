"""The listener: connections on loopback TCP or a Unix socket, and all reading and writing of its wire.

A program supplies a `Handler`. Its functions can be called by psql, psycopg, asyncpg and anything else that
speaks the protocol, in the simple and in the extended query protocol, with text and binary values:

    async def add(left: int, right: int | None) -> list[tuple[int]]:
        return [(left + (right or 0),)]

    class Calculator(Handler):
        functions = {
            "add": Function(
                "add",
                (Argument("left", datum.INT8), Argument("right", datum.INT8, is_optional=True)),
                (Column("sum", datum.INT8),),
                add,
            )
        }

        def parameters(self) -> dict[str, str]:
            return {"server_version": "18.0"}

        async def show(self, name: str) -> str:
            raise SqlError(UNDEFINED_OBJECT, f'unrecognized configuration parameter "{name}"')

        async def replicate(self, connection: Connection, command: Command) -> None:
            raise SqlError(FEATURE_NOT_SUPPORTED, "replication is not served here")

    await serve(parse_address("127.0.0.1:5433"), Calculator())
"""

import asyncio
import contextlib
import errno
import ipaddress
import secrets
import socket
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, SupportsIndex

import structlog

from walproxy.wire import datum, messages
from walproxy.wire.errors import (
    PROTOCOL_VIOLATION,
    MalformedInput,
    RemoteProtocolError,
    SqlError,
    WireError,
)
from walproxy.wire.frames import Frame, FrameBuffer
from walproxy.wire.function import Argument, Column, Function, Functions, Row
from walproxy.wire.handshake import STARTUP_LENGTH_MAX, Cancel, Startup, accept, handshake
from walproxy.wire.messages import Message
from walproxy.wire.replication import Command
from walproxy.wire.session import Replicate, Run, Session, Show, State, Work, error_response, greeting, result

__all__ = [
    "Address",
    "Argument",
    "Column",
    "Connection",
    "Function",
    "Handler",
    "datum",
    "parse_address",
    "serve",
]

CONNECTIONS_MAX: Final = 200
FRAME_BYTES_MAX: Final = 16 << 20
STARTUP_TIMEOUT_S: Final = 10.0
_READ_BYTES: Final = 1 << 18
_WRITE_BYTES: Final = 1 << 16

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen: ``host`` and ``port``, or the path of a Unix socket. Port 0 takes a free one."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read ``127.0.0.1:7001``, ``[::1]:7001``, ``localhost:7001`` or ``unix:/directory/.s.PGSQL.7001``.

    Raises:
        MalformedInput: another form, or an address that others can reach: there is no authentication.
    """
    if text.startswith("unix:/"):
        return Address(path=text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise MalformedInput(
            "not an address to listen on", address=text, wanted="127.0.0.1:7001 or unix:/path"
        )
    host = "127.0.0.1" if host == "localhost" else host
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        why = "there is no authentication yet: only loopback addresses and unix sockets are allowed"
        raise MalformedInput(why, address=text)
    return Address(host, int(port))


class Handler(Protocol):
    """What a program does with the statements of its clients.

    SqlError refuses a statement. Errors of the classes in ``fatal`` end the whole server; any other error is
    a bug: it ends that connection, and is logged.
    """

    functions: Functions
    fatal: tuple[type[BaseException], ...] = ()

    def parameters(self) -> Mapping[str, str]:
        """Settings that clients are told at the start; at least ``server_version``."""

    async def show(self, name: str) -> str:
        """The value of a setting. Raises SqlError."""

    async def replicate(self, connection: "Connection", command: Command) -> None:
        """Carry out a replication command, and send all of its answer but ReadyForQuery."""

    async def closed(self, connection: "Connection") -> None:
        """A connection has ended."""
        del connection


class _Reader(asyncio.StreamReader):
    """A StreamReader that can hand its bytes over as they come, in the loop's own callback."""

    _buffer: bytearray
    _diverted: Callable[[bytes], None] | None = None

    def divert(self, take: Callable[[bytes], None] | None) -> None:
        """From now on give all bytes to `take`; to whoever reads again, if None."""
        self._diverted = take
        if take is not None and self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            take(data)

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        if self._diverted is None:
            super().feed_data(data)
        else:
            self._diverted(bytes(data))


class Connection:
    """One client, from its first byte to its last."""

    def __init__(self, reader: _Reader, writer: asyncio.StreamWriter, pid: int) -> None:
        self._reader = reader
        self._writer = writer
        assert isinstance(writer.transport, asyncio.Transport)
        self._transport = writer.transport
        self._frames = FrameBuffer(length_max=FRAME_BYTES_MAX)
        self._out = bytearray()
        self._received: Callable[[bytes], None] | None = None  # While diverted: who takes what comes.
        self.pid = pid
        self.cancel_key = b""
        self.startup = Startup(0, {})
        self.work: asyncio.Future[Sequence[Row]] | None = None
        sock = writer.get_extra_info("socket")
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peername = writer.get_extra_info("peername")
        self.peer = f"{peername[0]}:{peername[1]}" if sock.family != socket.AF_UNIX else "unix"

    async def shake_hands(self) -> Startup | Cancel:
        """Read up to the startup packet."""
        steps = handshake()
        next(steps)
        while True:
            packet = self._frames.next_untagged(length_max=STARTUP_LENGTH_MAX)
            if packet is None:
                await self._fill()
                continue
            try:
                self._writer.write(steps.send(packet))
            except StopIteration as end:
                found: Startup | Cancel = end.value
                return found

    async def next_message(self) -> Message:
        """The next message of the client; sends what waits before it waits itself.

        Raises:
            RemoteProtocolError: not a message.
            ConnectionError: the client is gone.
        """
        while (frame := self._frames.next_frame()) is None:
            await self.send_waiting()
            await self._fill()
        return messages.decode(frame, messages.FRONTEND)

    def next_frame_ready(self) -> Frame | None:
        """The next message of the client, undecoded; None if it is not here yet."""
        return self._frames.next_frame()

    async def _fill(self) -> None:
        data = await self._reader.read(_READ_BYTES)
        if not data:
            raise ConnectionResetError("client closed the connection")
        self._frames.feed(data)

    async def divert(self, take: Callable[[], None]) -> None:
        """Call `take` whenever bytes have come, until the client is gone. Raises what `take` does."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def received(data: bytes) -> None:
            self._frames.feed(data)
            try:
                take()
            except Exception as error:  # noqa: BLE001 - it is raised again, in the task that called us
                if not failed.done():
                    failed.set_exception(error)

        received(b"")
        self._received = received
        self._reader.divert(received)
        gone = asyncio.create_task(self._reader.read(1))
        both: set[asyncio.Future[Any]] = {gone, failed}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._received = None
            self._reader.divert(None)
            gone.cancel()
        if failed.done():
            failed.result()
        raise ConnectionResetError("client closed the connection")

    def lend(self) -> tuple[int, bytes] | None:
        """Let another read and write the socket. See ``walproxy.lane.Lendable``."""
        waits = self._out or self._transport.get_write_buffer_size()
        if waits or self._received is None or not self._transport.is_reading():
            return None
        self._transport.pause_reading()
        return self._writer.get_extra_info("socket").fileno(), self._frames.take_rest()

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """Read again, `rest` first, and send `unsent`."""
        if self._transport.is_closing() or self._received is None:
            return
        if unsent:
            self._writer.write(unsent)
        self.resume()
        # Before what the socket has: that is only looked at after what is called soon.
        asyncio.get_running_loop().call_soon(self._received, rest)

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def put(self, data: bytes) -> None:
        """Send with the next `send_waiting`."""
        self._out += data

    async def send_waiting(self, *, bytes_min: int = 1) -> None:
        """Send what was put, once it is that much, and wait while the client is slow to take it."""
        if len(self._out) >= bytes_min:
            self._writer.write(bytes(self._out))
            self._out.clear()
            await self._writer.drain()

    async def put_result(self, columns: tuple[Column, ...], rows: list[Row], command: str) -> None:
        """One result of a replication command."""
        self.put(result(columns, rows, command))
        await self.send_waiting()

    async def put_complete(self, command: str) -> None:
        self.put(messages.CommandComplete(command).encode())
        await self.send_waiting()

    async def start_copy(self) -> "CopyStream":
        """Switch to CopyBoth."""
        self.put(messages.CopyBothResponse().encode())
        await self.send_waiting()
        return CopyStream(self, self._writer)

    @property
    def application_name(self) -> str:
        return self.startup.application_name

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                await self._writer.wait_closed()


class CopyStream:
    """The server's end of a CopyBoth."""

    def __init__(self, connection: Connection, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._writer = writer
        self.lend, self.take_back = connection.lend, connection.take_back
        self._is_done = False

    async def receive(self) -> bytes | None:
        """The payload of the client's next CopyData; None once it has sent CopyDone.

        Raises:
            ConnectionError: the client is gone, or said goodbye.
            RemoteProtocolError, SqlError: it sent what has no place in a copy, or CopyFail.
        """
        while not self._is_done:
            data = self._take(await self._connection.next_message())
            if data is not None:
                return data
        return None

    def receive_ready(self) -> bytes | None:
        """As `receive`, of what is already here; None also if nothing is."""
        while not self._is_done and (frame := self._connection.next_frame_ready()) is not None:
            if frame.tag == messages.CopyData.tag:
                return frame.body
            self._take(messages.decode(frame, messages.FRONTEND))
        return None

    def _take(self, message: Message) -> bytes | None:
        match message:
            case messages.CopyData(data):
                return data
            case messages.CopyDone():
                self._is_done = True
            case messages.CopyFail(reason):
                raise SqlError("57014", f"copy from the client failed: {reason}")
            case messages.Terminate():
                raise ConnectionResetError("client ended the connection")
            case messages.Sync() | messages.Flush():
                pass
            case other:
                raise RemoteProtocolError("unexpected message in a copy", message=type(other).__name__)
        return None

    async def pump(self, take: Callable[[bytes], None], done: Callable[[], None]) -> None:
        """Give the payload of each CopyData to `take`, and call `done` after all that were there.

        Both are called by the event loop itself, with no task between the socket and them. Raises as
        `receive` (ConnectionError at the end), and what `take` and `done` raise.
        """

        def received() -> None:
            if (data := self.receive_ready()) is not None:
                while data is not None:
                    take(data)
                    data = self.receive_ready()
                done()
            if self._is_done:
                raise ConnectionResetError("client ended the copy")

        await self._connection.divert(received)

    def pause(self) -> None:
        """Let `pump` read no more until `resume`."""
        self._connection.pause()

    def resume(self) -> None:
        """Let `pump` read on."""
        self._connection.resume()

    def send(self, data: bytes) -> None:
        """Queue one CopyData; it goes out as soon as the socket takes it."""
        self._writer.write(b"".join((messages.CopyData.tag, (4 + len(data)).to_bytes(4), data)))

    async def flush(self) -> None:
        """Wait until the socket has taken all but a bounded rest of what was queued."""
        await self._writer.drain()

    async def send_done(self) -> None:
        """Send CopyDone. The copy is over when the client has sent its own: `receive` gives None then."""
        self._writer.write(messages.CopyDone().encode())
        await self._writer.drain()

    def close(self) -> None:
        self._writer.close()


class _Server:
    """All connections of one listener."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._connections: dict[int, Connection] = {}
        self._pid = 0

    async def run(self, reader: _Reader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection to its end. Only errors in ``Handler.fatal`` leave."""
        self._pid = self._pid % 0x7FFF_FFFF + 1
        connection = Connection(reader, writer, self._pid)
        self._connections[connection.pid] = connection
        log = _log.bind(peer=connection.peer, session=connection.pid)
        try:
            await self._serve(connection, log)
        except ConnectionError as error:
            log.debug("connection lost", error=str(error))
        except TimeoutError:
            log.info("client did not begin in time", timeout_s=STARTUP_TIMEOUT_S)
        except WireError as error:
            log.info("connection refused", error=str(error))
            await self._farewell(connection, error)
        except asyncio.CancelledError:
            why = "terminating connection due to administrator command"
            await self._farewell(connection, SqlError("57P01", why, fatal=True))
            raise
        except self._handler.fatal:
            raise
        except Exception:  # The supervisor of connections: a bug in one must not end the others.
            log.exception("connection failed")
            await self._farewell(connection, SqlError("XX000", "internal error, see the log", fatal=True))
        finally:
            del self._connections[connection.pid]
            await self._handler.closed(connection)
            await connection.close()

    async def _serve(self, connection: Connection, log: structlog.stdlib.BoundLogger) -> None:
        async with asyncio.timeout(STARTUP_TIMEOUT_S):
            startup = await connection.shake_hands()
        if isinstance(startup, Cancel):
            self._cancel(startup)
            return
        if len(self._connections) > CONNECTIONS_MAX:
            raise SqlError("53300", "sorry, too many clients already", fatal=True)
        connection.startup = startup
        connection.cancel_key = secrets.token_bytes(startup.cancel_key_bytes)
        connection.put(accept(startup))
        fixed = {"application_name": startup.application_name, **_PARAMETERS, **self._handler.parameters()}
        connection.put(greeting(fixed, connection.pid, connection.cancel_key))
        log.debug("session started", application=startup.application_name, replication=startup.is_replication)
        session = Session(self._handler.functions, is_replication=startup.is_replication)
        while session.state is not State.CLOSED:
            answer = session.on_message(await connection.next_message())
            if not isinstance(answer, bytes):
                answer = await self._work(connection, session, answer)
            connection.put(answer)
            await connection.send_waiting(bytes_min=_WRITE_BYTES)

    async def _work(self, connection: Connection, session: Session, work: Work) -> bytes:
        try:
            if isinstance(work, Run):
                rows = work.call.function.call(*work.arguments)
                if isinstance(rows, Sequence):
                    return session.complete(rows)
                await connection.send_waiting()
                return session.complete(await self._cancellable(connection, rows))
            await connection.send_waiting()
            return session.complete(await self._cancellable(connection, self._perform(connection, work)))
        except SqlError as error:
            if error.fatal:
                raise
            return session.fail(error)

    async def _cancellable(self, connection: Connection, rows: Awaitable[Sequence[Row]]) -> Sequence[Row]:
        """Wait in a task of its own, so that a cancel request stops it and nothing else."""
        connection.work = asyncio.ensure_future(rows)
        try:
            return await connection.work
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                connection.work.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await connection.work
                raise
            raise SqlError("57014", "canceling statement due to user request") from None
        finally:
            connection.work = None

    async def _perform(self, connection: Connection, work: Show | Replicate) -> Sequence[Row]:
        match work:
            case Show(name):
                return [(await self._handler.show(name),)]
            case Replicate(command):
                await self._handler.replicate(connection, command)
                return []

    def _cancel(self, cancel: Cancel) -> None:
        connection = self._connections.get(cancel.pid)
        if connection is None or not secrets.compare_digest(connection.cancel_key, cancel.key):
            return
        if connection.work is not None and connection.cancel_key:
            connection.work.cancel()

    async def _farewell(self, connection: Connection, error: WireError) -> None:
        """Tell the client why it ends, if it still listens."""
        if not isinstance(error, SqlError):
            error = SqlError(PROTOCOL_VIOLATION, str(error), fatal=True)
        fatal = SqlError(error.sqlstate, error.message, detail=error.detail, hint=error.hint, fatal=True)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(1):
                connection.put(error_response(fatal))
                await connection.send_waiting()


# What clients rely on. Source: the GUC_REPORT settings of src/backend/utils/misc/guc_tables.c.
_PARAMETERS: Final = {
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "off",
    "in_hot_standby": "off",
    "default_transaction_read_only": "on",
}


async def serve(
    address: Address, handler: Handler, *, started: Callable[[Address], None] | None = None
) -> None:
    """Listen, and serve until cancelled.

    ``started`` is called once, with the true port, when connections are accepted.

    Raises:
        OSError: the address cannot be listened on.
        ExceptionGroup: of an error in ``handler.fatal``.
    """
    server = _Server(handler)
    tasks = asyncio.TaskGroup()
    is_stopping = False

    def accepted(reader: _Reader, writer: asyncio.StreamWriter) -> None:
        if is_stopping:  # It was on its way in while we closed the door.
            writer.transport.abort()
            return
        tasks.create_task(server.run(reader, writer))

    listener = await _bind(address, accepted)
    try:
        async with tasks:
            await listener.start_serving()
            if started is not None:
                port = 0 if address.path else listener.sockets[0].getsockname()[1]
                started(Address(address.host, port, address.path))
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                is_stopping = True
                listener.close()
    finally:
        if address.path:
            Path(address.path).unlink(missing_ok=True)  # noqa: ASYNC240 - one system call, at the end


async def _bind(
    address: Address, accepted: Callable[[_Reader, asyncio.StreamWriter], None]
) -> asyncio.Server:
    loop = asyncio.get_running_loop()

    def new() -> asyncio.StreamReaderProtocol:
        reader = _Reader(limit=_READ_BYTES, loop=loop)
        return asyncio.StreamReaderProtocol(reader, lambda _, writer: accepted(reader, writer), loop=loop)

    if address.path:
        remove_stale(address.path)
        return await loop.create_unix_server(new, address.path, start_serving=False)
    return await loop.create_server(new, address.host, address.port, start_serving=False)


def remove_stale(path: str) -> None:
    """Remove the socket that a killed process left; asyncio would remove a living one too."""
    try:
        if not stat.S_ISSOCK(Path(path).stat().st_mode):
            raise OSError(errno.EADDRINUSE, "is there and is not a socket", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
        else:
            raise OSError(errno.EADDRINUSE, "another process listens there", path)
