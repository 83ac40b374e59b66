"""The client's side: libpq through psycopg, without blocking, for replication connections and plain queries.

connection = await CopyBoth.connect("host=127.0.0.1 port=7001", replication=True, application_name="me")
[[system_id, tli, end_lsn, _]] = await connection.query("IDENTIFY_SYSTEM")
await connection.start(f"START_REPLICATION PHYSICAL {lsn} TIMELINE {tli}")
while (data := await connection.receive()) is not None:
    message = replication.parse_server_message(data)
    ...
    connection.send(StatusUpdate(...).encode())
connection.close()
"""

import asyncio
import contextlib
import enum
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from walproxy.wire.errors import ConnectFailed, LocalProtocolError, SqlError
from walproxy.wire.plain import PlainConnection, PlainResult

CONNECT_TIMEOUT_S: Final = 10.0
Row = list[bytes | None]
_RESULTS: Final = {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY}


class _Copy(enum.Enum):
    NONE = "queries are allowed"
    RUNNING = "both sides send"
    ENDED = "the server has ended it, we have not"
    FAILED = "the server has ended it with an error: queries are allowed"


class CopyBoth:
    """One connection. One task may wait in `receive` while others `send`; queries only when no copy runs."""

    def __init__(self, pgconn: pq.abc.PGconn | PlainConnection) -> None:
        self._pgconn = pgconn
        self._loop = asyncio.get_running_loop()
        self._flushed: asyncio.Future[None] | None = None  # Set while the socket does not take all we have.
        self._copy = _Copy.NONE
        # libpq closes its socket as soon as it finds the connection lost; another may then get its number.
        self._fd = pgconn.socket
        # What reads while `pump` runs, and how it ends.
        self._pump: tuple[Callable[[], None], asyncio.Future[None]] | None = None
        self._is_paused = False
        self._borrower: Callable[[bytes], None] | None = None  # While the socket is lent: who sends for us.

    @classmethod
    async def connect(
        cls,
        conninfo: str,
        *,
        replication: bool,
        application_name: str,
        options: str = "",
        timeout_s: float = CONNECT_TIMEOUT_S,
        is_lendable: bool = False,
    ) -> Self:
        """Open a connection.

        ``replication`` is for replication commands, rather than SQL; ``options`` are settings for the
        session, ``-c name=value``, added to those of ``conninfo``. ``is_lendable``: `lend` is wanted, and can be
        had if nothing encrypts the connection.

        Raises:
            ConnectFailed: nobody answers, or the server says no; the message is libpq's.
        """
        added = {"application_name": application_name}
        if replication:
            added["replication"] = "true"
        try:
            asked = conninfo_to_dict(conninfo)
            if options:
                added["options"] = f"{asked.get('options') or ''} {options}".strip()
            is_plain = is_lendable and not _may_use_gss(asked)
            if is_plain:
                added["gssencmode"] = "disable"  # The default is to try it.
            parameters = make_conninfo(conninfo, **added).encode()
        except psycopg.Error as error:
            raise ConnectFailed("the connection string cannot be read", why=str(error).strip()) from error
        pgconn = pq.PGconn.connect_start(parameters)
        try:
            async with asyncio.timeout(timeout_s):
                await _connected(pgconn)
        except TimeoutError as error:
            pgconn.finish()
            raise ConnectFailed("no answer in time", timeout_s=timeout_s) from error
        except BaseException:
            pgconn.finish()
            raise
        pgconn.nonblocking = 1
        return cls(PlainConnection(pgconn) if is_plain and not pgconn.ssl_in_use else pgconn)

    @property
    def server_version(self) -> int:
        """As libpq gives it: 180006 is 18.6."""
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        return self._pgconn.backend_pid

    def parameter(self, name: str) -> str:
        """A setting the server reported; empty if it did not."""
        value = self._pgconn.parameter_status(name.encode())
        return "" if value is None else value.decode()

    async def query(self, sql: str) -> list[Row]:
        """Run one command, and give the rows of its last result, as text.

        Raises:
            SqlError: the server refused it.
            ConnectFailed: the connection is lost.
        """
        self._check_copy(wanted=False)
        with self._noticing_loss():
            self._pgconn.send_query(sql.encode())
        return await self._results()

    async def start(self, command: str) -> list[Row]:
        """Run a command that begins a CopyBoth. Raises as `query`.

        Returns:
            Nothing if the copy runs. A server that has nothing to send on an old timeline gives its result at
            once instead: next timeline and where it begins.
        """
        self._check_copy(wanted=False)
        with self._noticing_loss():
            self._pgconn.send_query(command.encode())
        await self.flush()
        try:
            result = await self._result()
        except SqlError:
            await self._results()
            raise
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            rows = [] if result is None else self._rows(result)
            return await self._results() or rows
        self._copy = _Copy.RUNNING
        return []

    async def receive(self) -> bytes | None:
        """The payload of the next CopyData; None when the server has ended the copy.

        Raises:
            SqlError: the server ended it with an error.
            ConnectFailed: the connection is lost.
        """
        while True:
            if (data := self.receive_ready()) is not None:
                return data
            if self._copy is _Copy.ENDED:
                await self._check_end()
                return None
            await self._readable()

    def receive_ready(self) -> bytes | None:
        """As `receive`, of what is already here; None also if nothing is."""
        if self._copy is _Copy.ENDED:
            return None
        self._check_copy(wanted=True)
        try:
            length, data = self._pgconn.get_copy_data(1)
        except psycopg.Error as error:
            raise self._lost() from error
        if length > 0:
            return bytes(data)
        if length < 0:
            self._copy = _Copy.ENDED
        return None

    async def pump(self, take: Callable[[bytes], None], done: Callable[[], None]) -> None:
        """Give the payload of each CopyData to `take`, and call `done` after all that were there.

        Both are called by the event loop itself, with no task between the socket and them. Returns when the
        server has ended the copy. Raises as `receive`, and what `take` and `done` raise.
        """
        ended: asyncio.Future[None] = self._loop.create_future()

        def readable() -> None:
            try:
                self._consume()
                if (data := self.receive_ready()) is not None:
                    while data is not None:
                        take(data)
                        data = self.receive_ready()
                    done()
                if self._copy is _Copy.ENDED and not ended.done():
                    ended.set_result(None)
            except Exception as error:  # noqa: BLE001 - it is raised again, in the task that called us
                if not ended.done():
                    ended.set_exception(error)

        self._pump = (readable, ended)
        self.resume()
        try:
            readable()
            await ended
        finally:
            self.pause()
            self._pump = None
        await self._check_end()

    def pause(self) -> None:
        """Let `pump` read no more until `resume`."""
        self._is_paused = True
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Let `pump` read on."""
        self._is_paused = False
        if self._pump is not None and self._fd >= 0 and self._borrower is None:
            self._loop.add_reader(self._fd, self._pump[0])

    @property
    def is_lendable(self) -> bool:
        """Nothing encrypts what the socket carries."""
        return isinstance(self._pgconn, PlainConnection)

    @property
    def can_be_lent(self) -> bool:
        """A copy is pumped, nothing waits to be sent, and it is not lent already."""
        is_pumped = self._pump is not None and not self._is_paused and self._copy is _Copy.RUNNING
        is_open = self._fd >= 0 and self._borrower is None
        return is_pumped and is_open and isinstance(self._pgconn, PlainConnection) and self._pgconn.is_at_rest

    def lend(self, send: Callable[[bytes], None]) -> tuple[int, bytes]:
        """Let another read and write the socket, and send what we are given: its descriptor, and what was read."""
        assert isinstance(self._pgconn, PlainConnection)
        self._loop.remove_reader(self._fd)
        self._borrower = send
        return self._fd, self._pgconn.take_rest()

    def take_back(self, rest: bytes, unsent: bytes) -> None:
        """Read again, `rest` first; and send `unsent`, before anything else."""
        assert isinstance(self._pgconn, PlainConnection)
        self._borrower = None
        self._pgconn.put_back(rest, unsent)
        if self._fd < 0 or self._pump is None:
            return
        self._push_more()
        self.resume()
        # Before anything is waited for: what is here already wakes nobody.
        self._loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._pump is not None and self._fd >= 0 and self._borrower is None and not self._is_paused:
            self._pump[0]()

    def fail(self, error: Exception) -> None:
        """End `pump` with that; what was lent is not taken back."""
        self._borrower, self._copy = None, _Copy.FAILED  # What is sent from now on goes nowhere.
        if self._pump is not None and not self._pump[1].done():
            self._pump[1].set_exception(error)

    async def _check_end(self) -> None:
        """Find out whether the server ended the copy in good order, with an error, or is closing down."""
        try:
            result = await self._result()
        except SqlError:
            self._copy = _Copy.FAILED
            await self._results()
            raise
        if result is None or result.status != pq.ExecStatus.COPY_IN:
            raise ConnectFailed("the server ended the stream: it is shutting down")

    async def finish_copy(self) -> list[Row]:
        """End our side of the copy, and give the rows that the server sends then: at a timeline's end, one.

        Raises:
            SqlError: what the server ended the copy with.
            ConnectFailed: the connection is lost.
        """
        with self._noticing_loss():
            self._pgconn.put_copy_end()
        await self.flush()
        while self._copy is _Copy.RUNNING:
            if self.receive_ready() is None and self._copy is _Copy.RUNNING:
                await self._readable()
        rows = await self._results()
        self._copy = _Copy.NONE  # Not before: meanwhile what is sent goes nowhere, and is no error.
        return rows

    def send(self, data: bytes) -> None:
        """Queue one CopyData; it goes out when the socket takes it, or nowhere once the server has ended.

        Raises:
            ConnectFailed: the connection is lost.
        """
        if self._copy in {_Copy.ENDED, _Copy.FAILED}:  # `receive` will say so, or has.
            return
        if self._borrower is not None:
            self._borrower(data)
            return
        self._check_copy(wanted=True)
        try:
            self._pgconn.put_copy_data(data)
            self._push()
        except psycopg.Error as error:
            raise self._lost() from error

    async def flush(self) -> None:
        """Wait until all that was queued is with the kernel. Raises ConnectFailed."""
        with self._noticing_loss():
            self._push()
        if self._flushed is not None:
            await asyncio.shield(self._flushed)

    def close(self) -> None:
        """End it at once."""
        self._detach()
        self._pgconn.finish()

    # --- inside -------------------------------------------------------------------------------------------

    def _push(self) -> None:
        """Give the socket what it takes; the rest follows when it takes more."""
        if self._pgconn.flush() == 0:
            self._stop_writing()
        elif self._flushed is None:
            self._flushed = self._loop.create_future()
            self._loop.add_writer(self._fd, self._push_more)

    def _push_more(self) -> None:
        try:
            self._push()
        except psycopg.Error:
            self._lost()

    def _detach(self) -> None:
        """Look at the socket no more: its number may belong to another connection soon."""
        # Closed already, and written to as well as read: asyncio cannot drop the one and keep the other.
        with contextlib.suppress(OSError):
            self.pause()
        self._stop_writing()
        self._fd = -1

    def _stop_writing(self) -> None:
        if self._flushed is not None:
            self._loop.remove_writer(self._fd)
            if not self._flushed.done():
                self._flushed.set_result(None)
            self._flushed = None

    async def _readable(self) -> None:
        if self._fd < 0:
            raise self._lost()
        await _ready(self._fd, reading=True)
        self._consume()

    def _consume(self) -> None:
        """Take in what the socket has. Raises ConnectFailed."""
        try:
            self._pgconn.consume_input()
        except psycopg.Error as error:
            raise self._lost() from error

    async def _result(self) -> pq.abc.PGresult | PlainResult | None:
        while self._pgconn.is_busy():
            await self._readable()
        result = self._pgconn.get_result()
        if result is not None and result.status in {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE}:
            raise self._error(result)
        return result

    async def _results(self) -> list[Row]:
        """Drain all results; the rows of the last that has columns."""
        await self.flush()
        rows: list[Row] = []
        failed: SqlError | None = None
        while True:
            try:
                result = await self._result()
            except SqlError as error:
                failed = error
                continue
            if result is None:
                break
            if result.status not in _RESULTS:
                raise LocalProtocolError("a copy began where a result was wanted", status=result.status)
            rows = self._rows(result) or rows
        if failed is not None:
            raise failed
        return rows

    @staticmethod
    def _rows(result: pq.abc.PGresult | PlainResult) -> list[Row]:
        return [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]

    def _error(self, result: pq.abc.PGresult | PlainResult) -> SqlError | ConnectFailed:
        def field(code: pq.DiagnosticField) -> str:
            return (result.error_field(code) or b"").decode(errors="replace")

        sqlstate = field(pq.DiagnosticField.SQLSTATE)
        if not sqlstate:
            return self._lost()
        return SqlError(
            sqlstate,
            field(pq.DiagnosticField.MESSAGE_PRIMARY),
            detail=field(pq.DiagnosticField.MESSAGE_DETAIL) or None,
            hint=field(pq.DiagnosticField.MESSAGE_HINT) or None,
        )

    @contextlib.contextmanager
    def _noticing_loss(self) -> Iterator[None]:
        """What libpq refuses to do on a connection, it refuses because that is lost. Too dear for each message."""
        try:
            yield
        except psycopg.Error as error:
            raise self._lost() from error

    def _lost(self) -> ConnectFailed:
        """The connection is lost: also whoever pumps is told."""
        message = " ".join(self._pgconn.get_error_message().split())
        error = ConnectFailed(f"connection lost: {message}")
        self._detach()
        if self._pump is not None and not self._pump[1].done():
            self._pump[1].set_exception(error)
        return error

    def _check_copy(self, *, wanted: bool) -> None:
        if (self._copy is _Copy.RUNNING) is not wanted:
            raise LocalProtocolError("no copy is running" if wanted else "a copy is running")


def _may_use_gss(asked: Mapping[str, object]) -> bool:
    """Somebody speaks of GSS encryption, or may: libpq cannot be asked whether it uses it."""
    return bool({"gssencmode", "service"} & set(asked) or {"PGGSSENCMODE", "PGSERVICE"} & set(os.environ))


async def _connected(pgconn: pq.abc.PGconn) -> None:
    """Drive a connection attempt. The socket may be another one after each step."""
    while True:
        if pgconn.status == pq.ConnStatus.BAD:
            raise _refused(pgconn)
        match pgconn.connect_poll():
            case pq.PollingStatus.OK:
                return
            case pq.PollingStatus.READING:
                await _ready(pgconn.socket, reading=True)
            case pq.PollingStatus.WRITING:
                await _ready(pgconn.socket, reading=False)
            case _:
                raise _refused(pgconn)


def _refused(pgconn: pq.abc.PGconn) -> ConnectFailed:
    return ConnectFailed(" ".join(pgconn.get_error_message().split()) or "cannot connect")


async def _ready(fd: int, *, reading: bool) -> None:
    """Wait for a socket."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    add, remove = (loop.add_reader, loop.remove_reader) if reading else (loop.add_writer, loop.remove_writer)
    add(fd, _settle, done)
    try:
        await done
    finally:
        remove(fd)


def _settle(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)
