"""The server's side of a connection after authentication: which message is legal when, and what is answered.

It runs nothing itself: what takes time is handed to the driver as `Work`;
the driver answers with `complete` or `fail`.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from walproxy.wire import datum, function, messages, replication, sql
from walproxy.wire.datum import Type, Value
from walproxy.wire.errors import (
    FEATURE_NOT_SUPPORTED,
    PROTOCOL_VIOLATION,
    RemoteProtocolError,
    SqlError,
)
from walproxy.wire.function import Call, Column, Functions, Row
from walproxy.wire.messages import Message

STATEMENTS_MAX: Final = 10_000


class State(enum.Enum):
    READY = "waits for a message"
    SKIPPING = "an extended query failed: everything up to Sync is dropped"
    RUNNING = "the driver works, or streams, on our behalf"
    CLOSED = "the client has said goodbye"


class Action(enum.Enum):
    HANDLE = "it means something now"
    IGNORE = "it may come now, and means nothing"


_COPY: Final = (messages.CopyData, messages.CopyDone, messages.CopyFail)
_EXTENDED: Final = (
    messages.Parse,
    messages.Bind,
    messages.Describe,
    messages.Execute,
    messages.Close,
    messages.Flush,
)
# A pair that is not here is a protocol error. Rests of a copy that failed may still be on their way in READY.
ACTIONS: Final[dict[tuple[State, type[Message]], Action]] = {
    **{
        (State.READY, kind): Action.HANDLE
        for kind in (messages.Query, messages.Sync, messages.Terminate, *_EXTENDED)
    },
    (State.READY, messages.FunctionCall): Action.HANDLE,
    **{(State.READY, kind): Action.IGNORE for kind in _COPY},
    **{
        (State.SKIPPING, kind): Action.IGNORE
        for kind in (messages.Query, messages.FunctionCall, *_COPY, *_EXTENDED)
    },
    (State.SKIPPING, messages.Sync): Action.HANDLE,
    (State.SKIPPING, messages.Terminate): Action.HANDLE,
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement made ready: what it needs and what it gives."""

    statement: sql.Statement
    call: Call | None = None
    columns: tuple[Column, ...] | None = None

    @property
    def parameters(self) -> tuple[Type, ...]:
        return () if self.call is None else self.call.parameters


@dataclass(slots=True)
class Portal:
    """A statement with its arguments, and the rows that were not fetched yet."""

    prepared: Prepared
    arguments: list[Value] | None = None
    formats: tuple[int, ...] = ()
    rows: Sequence[Row] | None = None
    row_at: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Work: call a function with these arguments; its rows are the answer."""

    call: Call
    arguments: list[Value]


@dataclass(frozen=True, slots=True)
class Show:
    """Work: the value of a setting; one row of one text is the answer."""

    name: str


@dataclass(frozen=True, slots=True)
class Replicate:
    """Work: a replication command. The driver sends all of its answer but ReadyForQuery itself."""

    command: replication.Command


Work = Run | Show | Replicate


def error_response(error: SqlError) -> bytes:
    severity = "FATAL" if error.fatal else "ERROR"
    fields = [("S", severity), ("V", severity), ("C", error.sqlstate), ("M", error.message)]
    fields += [("D", error.detail)] if error.detail else []
    fields += [("H", error.hint)] if error.hint else []
    return messages.ErrorResponse(tuple((key, text.replace("\0", " ")) for key, text in fields)).encode()


def greeting(parameters: Mapping[str, str], pid: int, cancel_key: bytes) -> bytes:
    """What follows AuthenticationOk."""
    status = b"".join(messages.ParameterStatus(name, value).encode() for name, value in parameters.items())
    return status + messages.BackendKeyData(pid, cancel_key).encode() + messages.ReadyForQuery("I").encode()


def result(columns: Sequence[Column], rows: Sequence[Row], command: str) -> bytes:
    """A whole result in text form, as replication commands give it."""
    return (
        _description(columns, (datum.TEXT_FORMAT,) * len(columns))
        + b"".join(_data_row(columns, (datum.TEXT_FORMAT,) * len(columns), row) for row in rows)
        + messages.CommandComplete(command).encode()
    )


def _description(columns: Sequence[Column], formats: Sequence[int]) -> bytes:
    shown = zip(columns, formats, strict=True)
    return messages.RowDescription(
        tuple(messages.Field(c.name, c.type.oid, c.type.size, form) for c, form in shown)
    ).encode()


def _data_row(columns: Sequence[Column], formats: Sequence[int], row: Row) -> bytes:
    values = zip(columns, formats, row, strict=True)
    return messages.DataRow(tuple(c.type.encode(value, form) for c, form, value in values)).encode()


@dataclass(slots=True)
class Session:
    """One client's statements, portals and transaction block.

    Transactions are bookkeeping for clients that insist on them: statements here only read.
    """

    functions: Functions
    is_replication: bool = False
    state: State = State.READY
    _transaction: str = "I"
    _statements: dict[str, Prepared] = field(default_factory=dict)
    _portals: dict[str, Portal] = field(default_factory=dict)
    _running: tuple[Portal | None, int | None] = (None, None)  # Portal, and rows_max of an Execute.

    def on_message(self, message: Message) -> bytes | Work:
        """Answer a message, or say what must be done for the answer.

        Raises:
            RemoteProtocolError: it must not come now.
        """
        assert self.state is not State.RUNNING
        action = ACTIONS.get((self.state, type(message)))
        if action is None:
            raise RemoteProtocolError(
                "unexpected message", state=self.state.name, message=type(message).__name__
            )
        if action is Action.IGNORE:
            return b""
        try:
            return self._handle(message)
        except SqlError as error:
            return self._failed(error, is_extended=isinstance(message, _EXTENDED))

    def complete(self, rows: Sequence[Row]) -> bytes:
        """The work is done: answer with its rows."""
        assert self.state is State.RUNNING
        self.state = State.READY
        portal, rows_max = self._running
        self._running = (None, None)
        if portal is None:  # A replication command, which has sent its own answer.
            return self._ready()
        portal.rows = rows
        if rows_max is not None:
            return self._fetch(portal, rows_max)
        assert portal.prepared.columns is not None
        return _description(portal.prepared.columns, portal.formats) + self._fetch(portal, 0) + self._ready()

    def fail(self, error: SqlError) -> bytes:
        """The work has failed."""
        assert self.state is State.RUNNING
        self.state = State.READY
        _, rows_max = self._running
        self._running = (None, None)
        return self._failed(error, is_extended=rows_max is not None)

    def _failed(self, error: SqlError, *, is_extended: bool) -> bytes:
        if self._transaction == "T":
            self._transaction = "E"
        if is_extended:
            self.state = State.SKIPPING
            return error_response(error)
        return error_response(error) + self._ready()

    def _ready(self) -> bytes:
        return messages.ReadyForQuery(self._transaction).encode()

    def _handle(self, message: Message) -> bytes | Work:
        if self.is_replication and isinstance(message, _EXTENDED):
            raise SqlError(
                PROTOCOL_VIOLATION, "extended query protocol not supported in a replication connection"
            )
        match message:
            case messages.Query(text):
                return self._replicate(text) if self.is_replication else self._query(text)
            case messages.Parse(name, text, oids):
                return self._parse(name, text, oids)
            case messages.Bind():
                return self._bind(message)
            case messages.Close(kind, name):  # Before Describe, whose subclass it is.
                self._close(kind, name)
                return messages.CloseComplete().encode()
            case messages.Describe(kind, name):
                return self._describe(kind, name)
            case messages.Execute(name, rows_max):
                return self._execute(self._portal(name), rows_max)
            case messages.Sync():
                self.state = State.READY
                if self._transaction == "I":
                    self._portals.clear()
                return self._ready()
            case messages.Terminate():
                self.state = State.CLOSED
                return b""
            case messages.FunctionCall():
                raise SqlError(FEATURE_NOT_SUPPORTED, "the function call message is not supported here")
            case _:
                return b""  # Flush: the driver sends what it has whenever it waits.

    # --- simple query -------------------------------------------------------------------------------------

    def _replicate(self, text: str) -> bytes | Work:
        command = replication.parse_command(text)
        if command is None:
            return messages.EmptyQueryResponse().encode() + self._ready()
        self.state = State.RUNNING
        if isinstance(command, sql.Show):
            columns = (Column(command.name, datum.TEXT),)
            self._running = (Portal(Prepared(command, columns=columns), formats=(datum.TEXT_FORMAT,)), None)
            return Show(command.name)
        return Replicate(command)

    def _query(self, text: str) -> bytes | Work:
        prepared = self._prepare(text, ())
        if prepared.parameters:
            raise SqlError("42P02", "there is no parameter $1")
        self._portals.pop("", None)
        portal = self._portal_for(prepared, [], ())
        done = self._start(portal, None)
        if not isinstance(done, bytes):
            return done
        if portal.prepared.columns is not None:
            done = _description(portal.prepared.columns, portal.formats) + done
        return done + self._ready()

    # --- extended query -----------------------------------------------------------------------------------

    def _parse(self, name: str, text: str, oids: tuple[int, ...]) -> bytes:
        if name and name in self._statements:
            raise SqlError("42P05", f'prepared statement "{name}" already exists')
        if len(self._statements) >= STATEMENTS_MAX:
            raise SqlError("53000", "too many prepared statements", hint="Use DEALLOCATE.")
        self._statements.pop(name, None)
        self._statements[name] = self._prepare(text, oids)
        return messages.ParseComplete().encode()

    def _bind(self, bind: messages.Bind) -> bytes:
        prepared = self._statement(bind.statement)
        if bind.portal and bind.portal in self._portals:
            raise SqlError("42P03", f'cursor "{bind.portal}" already exists')
        if len(self._portals) >= STATEMENTS_MAX:
            raise SqlError("53000", "too many portals")
        types = prepared.parameters
        if len(bind.values) != len(types):
            message = f"bind message supplies {len(bind.values)} parameters, but {len(types)} are required"
            raise SqlError(PROTOCOL_VIOLATION, message)
        formats = _spread(bind.formats, len(types))
        values = [t.decode(v, f) for t, v, f in zip(types, bind.values, formats, strict=True)]
        self._portals[bind.portal] = self._portal_for(prepared, values, bind.result_formats)
        return messages.BindComplete().encode()

    def _describe(self, kind: str, name: str) -> bytes:
        head = b""
        if kind == "S":
            prepared = self._statement(name)
            head = messages.ParameterDescription(tuple(t.oid for t in prepared.parameters)).encode()
            formats: tuple[int, ...] = (datum.TEXT_FORMAT,) * len(prepared.columns or ())
        else:
            portal = self._portal(name)
            prepared, formats = portal.prepared, portal.formats
        if prepared.columns is None:
            return head + messages.NoData().encode()
        return head + _description(prepared.columns, formats)

    def _execute(self, portal: Portal, rows_max: int) -> bytes | Work:
        if portal.rows is not None:
            return self._fetch(portal, rows_max)
        return self._start(portal, rows_max)

    def _close(self, kind: str, name: str) -> None:
        if kind == "S":
            self._statements.pop(name, None)
        else:
            self._portals.pop(name, None)

    # --- both ---------------------------------------------------------------------------------------------

    def _prepare(self, text: str, oids: tuple[int, ...]) -> Prepared:
        statement = sql.parse(text)
        if self._transaction == "E" and not _ends_transaction(statement):
            message = "current transaction is aborted, commands ignored until end of transaction block"
            raise SqlError("25P02", message)
        if isinstance(statement, sql.Select):
            call = function.resolve(statement, self.functions, oids)
            return Prepared(statement, call, call.columns)
        if isinstance(statement, sql.Show):
            return Prepared(statement, columns=(Column(statement.name, datum.TEXT),))
        return Prepared(statement)

    def _portal_for(self, prepared: Prepared, values: Sequence[Value], formats: tuple[int, ...]) -> Portal:
        arguments = None if prepared.call is None else prepared.call.values(values)
        columns = prepared.columns or ()
        # A client may ask for binary results before it knows that there are none.
        spread = _spread(formats, len(columns)) if columns else ()
        return Portal(prepared, arguments, spread)

    def _start(self, portal: Portal, rows_max: int | None) -> bytes | Work:
        """Run a portal; ``rows_max`` None is a simple query."""
        prepared = portal.prepared
        match prepared.statement:
            case sql.Select():
                assert prepared.call is not None
                if portal.arguments is None:
                    is_set = prepared.call.function.is_set
                    portal.rows = [] if is_set else [(None,) * len(prepared.call.columns)]
                    return self._fetch(portal, rows_max or 0)
                self._running, self.state = (portal, rows_max), State.RUNNING
                return Run(prepared.call, portal.arguments)
            case sql.Show(name):
                self._running, self.state = (portal, rows_max), State.RUNNING
                return Show(name)
            case sql.Transaction(command):
                return self._transact(command)
            case sql.Deallocate(name):
                self._deallocate(name)
                return messages.CommandComplete("DEALLOCATE" if name else "DEALLOCATE ALL").encode()
            case sql.Ignored(command):
                return messages.CommandComplete(command).encode()
            case sql.Empty():
                return messages.EmptyQueryResponse().encode()

    def _transact(self, command: str) -> bytes:
        if command == "COMMIT" and self._transaction == "E":
            command = "ROLLBACK"
        self._transaction = "T" if command == "BEGIN" else "I"
        if command != "BEGIN":
            self._portals.clear()
        return messages.CommandComplete(command).encode()

    def _deallocate(self, name: str | None) -> None:
        if name is None:
            self._statements.clear()
            return
        self._statement(name)
        del self._statements[name]

    def _fetch(self, portal: Portal, rows_max: int) -> bytes:
        prepared = portal.prepared
        assert portal.rows is not None
        assert prepared.columns is not None
        end = len(portal.rows) if rows_max <= 0 else min(portal.row_at + rows_max, len(portal.rows))
        rows = portal.rows[portal.row_at : end]
        out = b"".join([_data_row(prepared.columns, portal.formats, row) for row in rows])
        portal.row_at = end
        if end < len(portal.rows):
            return out + messages.PortalSuspended().encode()
        tag = "SHOW" if isinstance(prepared.statement, sql.Show) else f"SELECT {len(rows)}"
        return out + messages.CommandComplete(tag).encode()

    def _statement(self, name: str) -> Prepared:
        if name not in self._statements:
            raise SqlError("26000", f'prepared statement "{name}" does not exist')
        return self._statements[name]

    def _portal(self, name: str) -> Portal:
        if name not in self._portals:
            raise SqlError("34000", f'portal "{name}" does not exist')
        return self._portals[name]


def _ends_transaction(statement: sql.Statement) -> bool:
    return isinstance(statement, sql.Transaction) and statement.command != "BEGIN"


def _spread(formats: tuple[int, ...], count: int) -> tuple[int, ...]:
    """One format for each of ``count`` values."""
    if any(form not in {datum.TEXT_FORMAT, datum.BINARY_FORMAT} for form in formats):
        raise SqlError(PROTOCOL_VIOLATION, f"unsupported format code: {formats}")
    if len(formats) == count:
        return formats
    if not formats:
        return (datum.TEXT_FORMAT,) * count
    if len(formats) == 1:
        return formats * count
    raise SqlError(PROTOCOL_VIOLATION, f"message has {len(formats)} formats for {count} values")
