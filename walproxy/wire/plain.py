"""A connection that libpq opened and that nothing encrypts, spoken by us: libpq keeps what it has read to itself.

It has the methods of `psycopg.pq.PGconn` that `CopyBoth` calls, and its socket can be lent between two messages.

Source: PostgreSQL 18 ``doc/src/sgml/protocol.sgml``, "Message Flow"; ``src/interfaces/libpq/fe-protocol3.c``.
"""

import contextlib
import errno
import os
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import psycopg
from psycopg import pq

from walproxy.wire import messages
from walproxy.wire.codec import BodyReader
from walproxy.wire.errors import RemoteProtocolError
from walproxy.wire.frames import Frame, FrameBuffer
from walproxy.wire.messages import Message

# Of the server's messages. Its WAL comes in pieces of 128 KiB; a history file has a line for each timeline.
_FRAME_BYTES_MAX: Final = 16 << 20
_READ_BYTES: Final = 1 << 18
_READS_MAX: Final = 4
# What a server may say at any time: notices and changed settings.
_NEWS: Final = {messages.NoticeResponse.tag, messages.ParameterStatus.tag}
_FIELDS: Final = {
    pq.DiagnosticField.SQLSTATE: b"C",
    pq.DiagnosticField.MESSAGE_PRIMARY: b"M",
    pq.DiagnosticField.MESSAGE_DETAIL: b"D",
    pq.DiagnosticField.MESSAGE_HINT: b"H",
}


@dataclass(slots=True)
class PlainResult:
    """What one command gave, as `psycopg.pq.PGresult`: rows of text, or the fields of an error."""

    status: int
    rows: list[list[bytes | None]] = field(default_factory=list)
    error: dict[bytes, bytes] = field(default_factory=dict)

    @property
    def ntuples(self) -> int:
        return len(self.rows)

    @property
    def nfields(self) -> int:
        return len(self.rows[0]) if self.rows else 0

    def get_value(self, row: int, column: int) -> bytes | None:
        return self.rows[row][column]

    def error_field(self, code: pq.DiagnosticField) -> bytes | None:
        return self.error.get(_FIELDS[code])


class PlainConnection:
    """Simple queries and copies, as `psycopg.pq.PGconn` has them.

    Args:
        pgconn: connected, and asked nothing yet; from now on it is not to be called.
    """

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        self._fd = pgconn.socket
        self._frames = FrameBuffer(length_max=_FRAME_BYTES_MAX)
        self._out = bytearray()
        self._results: deque[PlainResult] = deque()
        self._rows: list[list[bytes | None]] | None = (
            None  # Of the command under way, once it says it has some.
        )
        self._is_asked = False  # Results are to come.
        self._is_copying = False  # The server may send CopyData.
        self._has_ended = False  # It has ended the copy, and we have not.
        self._is_done = False  # We have ended the copy.
        self._end: OSError | str | None = None  # Why the socket gives no more.
        self._is_lent = False
        self._lost = ""

    # --- as PGconn ---------------------------------------------------------------------------------------

    @property
    def socket(self) -> int:
        return self._fd

    @property
    def server_version(self) -> int:
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        return self._pgconn.backend_pid

    def parameter_status(self, name: bytes) -> bytes | None:
        """As the connection began."""
        return self._pgconn.parameter_status(name)

    def get_error_message(self) -> str:
        return self._lost

    def finish(self) -> None:
        """Say goodbye, and close the socket. A goodbye behind half a message would become a part of that."""
        if self._fd >= 0 and (self._out or self._is_lent):
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._fd)) as ours:
                ours.shutdown(socket.SHUT_RDWR)
        self._fd = -1  # Its number may belong to another soon.
        self._pgconn.finish()

    def send_query(self, command: bytes) -> None:
        if self._is_asked or self._is_copying or self._has_ended:
            raise psycopg.OperationalError("another command is already in progress")
        self._put(messages.Query(command.decode()))
        self._is_asked, self._is_done, self._rows = True, False, None

    def flush(self) -> int:
        """Give the socket what it takes; 0 if that was all. Raises psycopg.OperationalError, if lost ever after."""
        if self._lost:
            raise psycopg.OperationalError(self._lost)
        while self._out:
            try:
                taken = os.write(self._fd, self._out)
            except BlockingIOError:
                return 1
            except OSError as error:
                raise self._loss(error) from error
            del self._out[:taken]
        return 0

    def consume_input(self) -> None:
        """Take in what the socket has, not without end. Raises psycopg.OperationalError.

        What came before the end is handled first: it may say why.
        """
        if self._end is None:
            self._end = self._read()
        if self._end is not None and not self._frames.has_frame:
            raise self._loss(self._end)

    def _read(self) -> OSError | str | None:
        """Gives why there is nothing more to come."""
        for _ in range(_READS_MAX):
            try:
                data = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return None
            except OSError as error:
                return error
            if not data:
                return "server closed the connection"
            self._frames.feed(data)
            if len(data) < _READ_BYTES:
                return None
        return None

    def is_busy(self) -> bool:
        """True if `get_result` would have to wait."""
        while self._is_asked and not self._results and (frame := self._next()) is not None:
            self._answer(frame)
        return self._is_asked and not self._results

    def get_result(self) -> PlainResult | None:
        if self._has_ended:
            return PlainResult(pq.ExecStatus.COPY_IN)
        self.is_busy()
        return self._results.popleft() if self._results else None

    def get_copy_data(self, _async: int) -> tuple[int, bytes]:
        """Length and payload of the next CopyData; 0 if it is not here yet, -1 if the copy is over."""
        while self._is_copying:
            frame = self._next()
            if frame is None:
                return 0, b""
            if frame.tag == messages.CopyData.tag:
                if frame.body:
                    return len(frame.body), frame.body
            elif frame.tag == messages.CopyDone.tag:
                self._is_copying, self._has_ended = False, not self._is_done
                self._is_asked = self._is_done
            elif frame.tag not in _NEWS:
                self._is_copying, self._is_asked = False, True
                self._answer(frame)
        return -1, b""

    def put_copy_data(self, data: bytes) -> None:
        self._check_copy()
        self._out += b"".join((messages.CopyData.tag, (4 + len(data)).to_bytes(4), data))

    def put_copy_end(self) -> None:
        self._check_copy()
        self._put(messages.CopyDone())
        self._is_done = True
        if self._has_ended:
            self._has_ended, self._is_asked = False, True

    # --- lending -----------------------------------------------------------------------------------------

    @property
    def is_at_rest(self) -> bool:
        """A copy runs, and nothing waits to be sent."""
        return self._is_copying and not self._is_done and not self._out

    def take_rest(self) -> bytes:
        """What was read and not handled: another reads on from there."""
        self._is_lent = True
        return self._frames.take_rest()

    def put_back(self, rest: bytes, unsent: bytes) -> None:
        """What the other has left."""
        self._is_lent = False
        self._frames.feed(rest)
        self._out += unsent

    # --- inside ------------------------------------------------------------------------------------------

    def _answer(self, frame: Frame) -> None:
        """A message outside of a copy's data. Raises psycopg.OperationalError: it has no place there."""
        tag = frame.tag
        if tag in _NEWS:
            return
        if tag == messages.RowDescription.tag:
            self._rows = []
        elif tag == messages.DataRow.tag and self._rows is not None:
            self._rows.append(list(self._row(frame)))
        elif tag == messages.CommandComplete.tag:
            status = pq.ExecStatus.COMMAND_OK if self._rows is None else pq.ExecStatus.TUPLES_OK
            self._results.append(PlainResult(status, self._rows or []))
            self._rows = None
        elif tag == messages.EmptyQueryResponse.tag:
            self._results.append(PlainResult(pq.ExecStatus.EMPTY_QUERY))
        elif tag == messages.ErrorResponse.tag:
            # Not decoded: who has not agreed on an encoding yet complains in his own.
            fields = {part[:1]: part[1:] for part in frame.body.split(b"\0") if part}
            self._results.append(PlainResult(pq.ExecStatus.FATAL_ERROR, error=fields))
            self._rows = None
        elif tag == messages.CopyBothResponse.tag:
            self._results.append(PlainResult(pq.ExecStatus.COPY_BOTH))
            self._is_copying, self._is_asked = True, False
        elif tag == messages.ReadyForQuery.tag:
            self._is_asked = False
        else:
            raise self._loss(f"unexpected message {tag!r} from the server")

    def _row(self, frame: Frame) -> tuple[bytes | None, ...]:
        try:
            return messages.DataRow.parse(BodyReader(frame.body)).values
        except RemoteProtocolError as error:
            raise self._loss(error) from error

    def _next(self) -> Frame | None:
        try:
            return self._frames.next_frame()
        except RemoteProtocolError as error:
            raise self._loss(error) from error

    def _put(self, message: Message) -> None:
        self._out += message.encode()

    def _check_copy(self) -> None:
        if self._is_done or not (self._is_copying or self._has_ended):
            raise psycopg.OperationalError("no COPY in progress")

    def _loss(self, why: object) -> psycopg.OperationalError:
        self._lost = os.strerror(why.errno or errno.EIO) if isinstance(why, OSError) else str(why)
        return psycopg.OperationalError(self._lost)
