"""The messages of protocol version 3, one frozen class each, both directions.

Source:
    PostgreSQL 18 ``doc/src/sgml/protocol.sgml``, "Message Formats".
"""

from dataclasses import dataclass
from typing import ClassVar, Final, Self

from walproxy.wire import codec
from walproxy.wire.codec import BodyReader
from walproxy.wire.errors import RemoteProtocolError
from walproxy.wire.frames import Frame


@dataclass(frozen=True, slots=True)
class Message:
    """Base of the closed set of messages. A message without content needs no more than its tag."""

    tag: ClassVar[bytes]

    def body(self) -> bytes:
        return b""

    @classmethod
    def parse(cls, _reader: BodyReader) -> Self:
        return cls()

    def encode(self) -> bytes:
        body = self.body()
        return self.tag + codec.int32(4 + len(body)) + body


# --- frontend ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Query(Message):
    tag = b"Q"
    sql: str

    def body(self) -> bytes:
        return codec.cstring(self.sql)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.cstring())


@dataclass(frozen=True, slots=True)
class Parse(Message):
    tag = b"P"
    statement: str
    sql: str
    parameter_oids: tuple[int, ...] = ()

    def body(self) -> bytes:
        oids = b"".join(map(codec.uint32, self.parameter_oids))
        count = codec.uint16(len(self.parameter_oids))
        return codec.cstring(self.statement) + codec.cstring(self.sql) + count + oids

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        statement, sql = reader.cstring(), reader.cstring()
        return cls(statement, sql, tuple(reader.uint32() for _ in range(reader.uint16())))


def _formats(formats: tuple[int, ...]) -> bytes:
    return codec.uint16(len(formats)) + b"".join(map(codec.int16, formats))


def _read_formats(reader: BodyReader) -> tuple[int, ...]:
    return tuple(reader.int16() for _ in range(reader.uint16()))


@dataclass(frozen=True, slots=True)
class Bind(Message):
    """Formats: none means all text, one means all alike; 0 is text and 1 is binary."""

    tag = b"B"
    portal: str
    statement: str
    formats: tuple[int, ...] = ()
    values: tuple[bytes | None, ...] = ()
    result_formats: tuple[int, ...] = ()

    def body(self) -> bytes:
        values = codec.uint16(len(self.values)) + b"".join(map(codec.counted, self.values))
        names = codec.cstring(self.portal) + codec.cstring(self.statement)
        return names + _formats(self.formats) + values + _formats(self.result_formats)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        portal, statement, formats = reader.cstring(), reader.cstring(), _read_formats(reader)
        values = tuple(reader.counted() for _ in range(reader.uint16()))
        return cls(portal, statement, formats, values, _read_formats(reader))


@dataclass(frozen=True, slots=True)
class Describe(Message):
    """``kind`` is S for a statement, P for a portal."""

    tag = b"D"
    kind: str
    name: str

    def body(self) -> bytes:
        return self.kind.encode() + codec.cstring(self.name)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        kind = reader.take(1)
        if kind not in {b"S", b"P"}:
            raise RemoteProtocolError("neither a statement nor a portal", kind=kind)
        return cls(kind.decode(), reader.cstring())


@dataclass(frozen=True, slots=True)
class Close(Describe):
    tag = b"C"


@dataclass(frozen=True, slots=True)
class Execute(Message):
    """``rows_max`` 0 means all."""

    tag = b"E"
    portal: str
    rows_max: int = 0

    def body(self) -> bytes:
        return codec.cstring(self.portal) + codec.int32(self.rows_max)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.cstring(), reader.int32())


@dataclass(frozen=True, slots=True)
class Sync(Message):
    tag = b"S"


@dataclass(frozen=True, slots=True)
class Flush(Message):
    tag = b"H"


@dataclass(frozen=True, slots=True)
class Terminate(Message):
    tag = b"X"


@dataclass(frozen=True, slots=True)
class _Bytes(Message):
    data: bytes

    def body(self) -> bytes:
        return self.data

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.rest())


@dataclass(frozen=True, slots=True)
class FunctionCall(_Bytes):
    """Kept as it came: it is always refused."""

    tag = b"F"


@dataclass(frozen=True, slots=True)
class Password(_Bytes):
    """Password, SASLInitialResponse or SASLResponse: which of them, the authentication under way knows."""

    tag = b"p"


@dataclass(frozen=True, slots=True)
class CopyData(_Bytes):
    tag = b"d"


@dataclass(frozen=True, slots=True)
class CopyDone(Message):
    tag = b"c"


@dataclass(frozen=True, slots=True)
class CopyFail(Message):
    tag = b"f"
    reason: str

    def body(self) -> bytes:
        return codec.cstring(self.reason)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.cstring())


# --- backend ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Authentication(Message):
    """``code`` 0 is success; 10, 11 and 12 are the steps of SASL."""

    tag = b"R"
    code: int = 0
    data: bytes = b""

    def body(self) -> bytes:
        return codec.int32(self.code) + self.data

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.int32(), reader.rest())


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion(Message):
    tag = b"v"
    newest: int
    unknown_options: tuple[str, ...] = ()

    def body(self) -> bytes:
        names = b"".join(map(codec.cstring, self.unknown_options))
        return codec.int32(self.newest) + codec.int32(len(self.unknown_options)) + names

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.int32(), tuple(reader.cstring() for _ in range(reader.int32())))


@dataclass(frozen=True, slots=True)
class ParameterStatus(Message):
    tag = b"S"
    name: str
    value: str

    def body(self) -> bytes:
        return codec.cstring(self.name) + codec.cstring(self.value)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.cstring(), reader.cstring())


@dataclass(frozen=True, slots=True)
class BackendKeyData(Message):
    tag = b"K"
    pid: int
    key: bytes

    def body(self) -> bytes:
        return codec.int32(self.pid) + self.key

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.int32(), reader.rest())


@dataclass(frozen=True, slots=True)
class ReadyForQuery(Message):
    """``status`` is I (idle), T (in a transaction) or E (in a failed one)."""

    tag = b"Z"
    status: str

    def body(self) -> bytes:
        return self.status.encode()

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.take(1).decode("ascii", "replace"))


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a RowDescription; table and attribute numbers are always 0 here."""

    name: str
    oid: int
    size: int
    format: int = 0


@dataclass(frozen=True, slots=True)
class RowDescription(Message):
    tag = b"T"
    fields: tuple[Field, ...]

    def body(self) -> bytes:
        return codec.uint16(len(self.fields)) + b"".join(
            codec.cstring(field.name)
            + codec.uint32(0)
            + codec.int16(0)
            + codec.uint32(field.oid)
            + codec.int16(field.size)
            + codec.int32(-1)
            + codec.int16(field.format)
            for field in self.fields
        )

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(tuple(_read_field(reader) for _ in range(reader.uint16())))


def _read_field(reader: BodyReader) -> Field:
    name, _, _ = reader.cstring(), reader.uint32(), reader.int16()
    oid, size, _, form = reader.uint32(), reader.int16(), reader.int32(), reader.int16()
    return Field(name, oid, size, form)


@dataclass(frozen=True, slots=True)
class ParameterDescription(Message):
    tag = b"t"
    oids: tuple[int, ...]

    def body(self) -> bytes:
        return codec.uint16(len(self.oids)) + b"".join(map(codec.uint32, self.oids))

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(tuple(reader.uint32() for _ in range(reader.uint16())))


@dataclass(frozen=True, slots=True)
class DataRow(Message):
    tag = b"D"
    values: tuple[bytes | None, ...]

    def body(self) -> bytes:
        return codec.uint16(len(self.values)) + b"".join(map(codec.counted, self.values))

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(tuple(reader.counted() for _ in range(reader.uint16())))


@dataclass(frozen=True, slots=True)
class CommandComplete(Message):
    tag = b"C"
    command: str

    def body(self) -> bytes:
        return codec.cstring(self.command)

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        return cls(reader.cstring())


@dataclass(frozen=True, slots=True)
class ErrorResponse(Message):
    """``fields``: pairs of a letter and its text; S, V, C and M are always there."""

    tag = b"E"
    fields: tuple[tuple[str, str], ...]

    def body(self) -> bytes:
        return b"".join(key.encode() + codec.cstring(text) for key, text in self.fields) + b"\0"

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        fields = []
        while (key := reader.take(1)) != b"\0":
            fields.append((key.decode("ascii", "replace"), reader.cstring()))
        return cls(tuple(fields))


@dataclass(frozen=True, slots=True)
class NoticeResponse(ErrorResponse):
    tag = b"N"


@dataclass(frozen=True, slots=True)
class _CopyResponse(Message):
    """Format and number of columns, both always 0 in replication."""

    def body(self) -> bytes:
        return b"\0\0\0"

    @classmethod
    def parse(cls, reader: BodyReader) -> Self:
        reader.take(3)
        return cls()


@dataclass(frozen=True, slots=True)
class CopyInResponse(_CopyResponse):
    tag = b"G"


@dataclass(frozen=True, slots=True)
class CopyOutResponse(_CopyResponse):
    tag = b"H"


@dataclass(frozen=True, slots=True)
class CopyBothResponse(_CopyResponse):
    tag = b"W"


@dataclass(frozen=True, slots=True)
class ParseComplete(Message):
    tag = b"1"


@dataclass(frozen=True, slots=True)
class BindComplete(Message):
    tag = b"2"


@dataclass(frozen=True, slots=True)
class CloseComplete(Message):
    tag = b"3"


@dataclass(frozen=True, slots=True)
class NoData(Message):
    tag = b"n"


@dataclass(frozen=True, slots=True)
class EmptyQueryResponse(Message):
    tag = b"I"


@dataclass(frozen=True, slots=True)
class PortalSuspended(Message):
    tag = b"s"


_FRONTEND: Final[tuple[type[Message], ...]] = (
    Query, Parse, Bind, Describe, Close, Execute, Sync, Flush, Terminate, FunctionCall, Password,
    CopyData, CopyDone, CopyFail,
)  # fmt: skip
_BACKEND: Final[tuple[type[Message], ...]] = (
    Authentication, NegotiateProtocolVersion, ParameterStatus, BackendKeyData, ReadyForQuery,
    RowDescription, ParameterDescription, DataRow, CommandComplete, ErrorResponse, NoticeResponse,
    CopyInResponse, CopyOutResponse, CopyBothResponse, CopyData, CopyDone, ParseComplete, BindComplete,
    CloseComplete, NoData, EmptyQueryResponse, PortalSuspended,
)  # fmt: skip
FRONTEND: Final = {kind.tag: kind for kind in _FRONTEND}
BACKEND: Final = {kind.tag: kind for kind in _BACKEND}


def decode(frame: Frame, kinds: dict[bytes, type[Message]]) -> Message:
    """Read a frame as one of ``FRONTEND`` or ``BACKEND``.

    Raises:
        RemoteProtocolError: no such message, or its body is not of its form.
    """
    kind = kinds.get(frame.tag)
    if kind is None:
        raise RemoteProtocolError("invalid message type", tag=frame.tag)
    reader = BodyReader(frame.body)
    message = kind.parse(reader)
    reader.end()
    return message
