"""Physical replication: the messages inside CopyBoth, and the grammar of the commands.

Source:
    PostgreSQL 18 ``doc/src/sgml/protocol.sgml``, "Streaming Replication Protocol", and
    ``src/backend/replication/repl_gram.y``.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from walproxy.wire import sql
from walproxy.wire.errors import FEATURE_NOT_SUPPORTED, SYNTAX_ERROR, RemoteProtocolError, SqlError
from walproxy.wire.lsn import Lsn, parse_lsn
from walproxy.wire.sql import TokenReader

# What one message of WAL carries at most. Source: MAX_SEND_SIZE in src/backend/replication/walsender.c.
WAL_MESSAGE_BYTES_MAX: Final = 16 * 8192
_EPOCH_UNIX_S: Final = 946_684_800  # 2000-01-01, where Postgres begins to count microseconds.

_XLOG_DATA: Final = struct.Struct("!cQQq")
_KEEPALIVE: Final = struct.Struct("!cQq?")
_STATUS: Final = struct.Struct("!cQQQq?")
_FEEDBACK: Final = struct.Struct("!cqIIII")


def postgres_time_us(unix_s: float) -> int:
    """Microseconds since 2000, as Postgres counts, of a clock that counts seconds since 1970."""
    return int((unix_s - _EPOCH_UNIX_S) * 1_000_000)


@dataclass(frozen=True, slots=True)
class XLogData:
    """WAL from ``start_lsn`` on; ``end_lsn`` is the end of all that the server could send now."""

    start_lsn: Lsn
    end_lsn: Lsn
    sent_us: int
    wal: bytes

    def encode(self) -> bytes:
        return _XLOG_DATA.pack(b"w", self.start_lsn, self.end_lsn, self.sent_us) + self.wal


@dataclass(frozen=True, slots=True)
class Keepalive:
    end_lsn: Lsn
    sent_us: int
    reply_requested: bool

    def encode(self) -> bytes:
        return _KEEPALIVE.pack(b"k", self.end_lsn, self.sent_us, self.reply_requested)


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """Ends of what a standby has written, flushed and applied; 0 is not known."""

    write_lsn: Lsn
    flush_lsn: Lsn
    apply_lsn: Lsn
    sent_us: int
    reply_requested: bool = False

    def encode(self) -> bytes:
        positions = self.write_lsn, self.flush_lsn, self.apply_lsn
        return _STATUS.pack(b"r", *positions, self.sent_us, self.reply_requested)


@dataclass(frozen=True, slots=True)
class HotStandbyFeedback:
    """Oldest transactions that a standby still needs; 0 is none."""

    sent_us: int
    xmin: int
    xmin_epoch: int
    catalog_xmin: int
    catalog_xmin_epoch: int

    def encode(self) -> bytes:
        xmins = self.xmin, self.xmin_epoch, self.catalog_xmin, self.catalog_xmin_epoch
        return _FEEDBACK.pack(b"h", self.sent_us, *xmins)


def parse_server_message(data: bytes) -> XLogData | Keepalive:
    """Read what a walsender sends. Raises RemoteProtocolError."""
    tag = data[:1]
    if tag == b"w" and len(data) >= _XLOG_DATA.size:
        _, start, end, sent_us = _XLOG_DATA.unpack_from(data)
        return XLogData(Lsn(start), Lsn(end), sent_us, data[_XLOG_DATA.size :])
    if tag == b"k" and len(data) == _KEEPALIVE.size:
        _, end, sent_us, reply = _KEEPALIVE.unpack(data)
        return Keepalive(Lsn(end), sent_us, reply)
    raise RemoteProtocolError("invalid replication message from the server", tag=tag, length=len(data))


def parse_client_message(data: bytes) -> StatusUpdate | HotStandbyFeedback:
    """Read what a walreceiver sends. Raises RemoteProtocolError."""
    tag = data[:1]
    if tag == b"r" and len(data) == _STATUS.size:
        _, write, flush, apply, sent_us, reply = _STATUS.unpack(data)
        return StatusUpdate(Lsn(write), Lsn(flush), Lsn(apply), sent_us, reply)
    if tag == b"h" and len(data) == _FEEDBACK.size:
        return HotStandbyFeedback(*_FEEDBACK.unpack(data)[1:])
    raise RemoteProtocolError("invalid standby message type", tag=tag, length=len(data))


# --- commands ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IdentifySystem:
    pass


@dataclass(frozen=True, slots=True)
class StartReplication:
    """``tli`` None is the server's current timeline."""

    start_lsn: Lsn
    slot: str | None = None
    tli: int | None = None


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    tli: int


@dataclass(frozen=True, slots=True)
class ReadSlot:
    slot: str


@dataclass(frozen=True, slots=True)
class CreateSlot:
    slot: str
    is_temporary: bool = False
    reserve_wal: bool = False


@dataclass(frozen=True, slots=True)
class DropSlot:
    slot: str
    wait: bool = False


@dataclass(frozen=True, slots=True)
class StartPeer:
    """Our own: opens a CopyBoth between two nodes. What they say inside is their matter."""


Command = (
    IdentifySystem
    | StartReplication
    | TimelineHistory
    | ReadSlot
    | CreateSlot
    | DropSlot
    | StartPeer
    | sql.Show
)
_SLOT_NAME: Final = re.compile(r"[a-z0-9_]{1,63}")
_TLI_MAX: Final = (1 << 32) - 1
_NOT_SERVED: Final = {
    "base_backup": "Take the base backup from the primary; stream its WAL from here.",
    "upload_manifest": "Take the base backup from the primary; stream its WAL from here.",
    "alter_replication_slot": "Only physical replication slots exist here, and they have no options.",
}


def parse_command(text: str) -> Command | None:
    """Read a replication command; None if there is nothing but blanks.

    Raises:
        SqlError: it is not one (0A000 if it looks like SQL, 42601 if it is a command gone wrong).
    """
    reader = TokenReader(text)
    token = reader.peek()
    if token is None or token.text == ";":
        return None
    word = token.text.lower()
    if word in _NOT_SERVED:
        raise SqlError(FEATURE_NOT_SUPPORTED, f"{word.upper()} is not served here", hint=_NOT_SERVED[word])
    parser = _COMMANDS.get(word)
    if parser is None:
        message = "cannot execute SQL commands in WAL sender for physical replication"
        hint = f"Replication commands: {', '.join(sorted(_COMMANDS)).upper()}."
        raise SqlError(FEATURE_NOT_SUPPORTED, message, hint=hint)
    reader.next()
    command = parser(reader)
    reader.end()
    return command


def _start_replication(reader: TokenReader) -> StartReplication:
    slot = _slot_name(reader) if reader.accept("slot") else None
    if reader.accept("logical"):
        raise SqlError(FEATURE_NOT_SUPPORTED, "logical replication is not served here")
    reader.accept("physical")
    token = reader.accept_kind("lsn")
    if token is None:
        reader.fail()
        raise AssertionError
    tli = _timeline(reader) if reader.accept("timeline") else None
    return StartReplication(parse_lsn(token.text), slot, tli)


def _timeline(reader: TokenReader) -> int:
    token = reader.accept_kind("int")
    if token is None:
        reader.fail()
        raise AssertionError
    tli = int(token.text) if len(token.text) <= len(str(_TLI_MAX)) else 0
    if not 1 <= tli <= _TLI_MAX:
        raise SqlError(SYNTAX_ERROR, f"invalid timeline {token.text}")
    return tli


def _slot_name(reader: TokenReader) -> str:
    name = reader.identifier()
    if not _SLOT_NAME.fullmatch(name):
        message = f'replication slot name "{name}" is not valid'
        hint = "Slot names may only contain lower case letters, numbers, and the underscore character."
        raise SqlError("42602", message, hint=hint)
    return name


def _create_slot(reader: TokenReader) -> CreateSlot:
    slot = _slot_name(reader)
    is_temporary = reader.accept("temporary")
    if reader.accept("logical"):
        raise SqlError(FEATURE_NOT_SUPPORTED, "logical replication slots do not exist here")
    reader.expect("physical")
    if reader.accept("("):
        reserve = False
        while not reader.accept(")"):
            reader.expect("reserve_wal")
            reserve = _option_bool(reader)
            reader.accept(",")
        return CreateSlot(slot, is_temporary, reserve)
    return CreateSlot(slot, is_temporary, reader.accept("reserve_wal"))


def _option_bool(reader: TokenReader) -> bool:
    token = reader.peek()
    if token is None or token.text in {",", ")"}:
        return True
    reader.next()
    word = token.text.strip("'").lower()
    if word not in {"true", "false", "on", "off", "0", "1"}:
        raise SqlError(SYNTAX_ERROR, "reserve_wal requires a Boolean value")
    return word in {"true", "on", "1"}


_COMMANDS: Final[dict[str, Callable[[TokenReader], Command]]] = {
    "identify_system": lambda _: IdentifySystem(),
    "show": lambda reader: sql.Show(sql.qualified_name(reader)),
    "start_replication": _start_replication,
    "timeline_history": lambda reader: TimelineHistory(_timeline(reader)),
    "read_replication_slot": lambda reader: ReadSlot(_slot_name(reader)),
    "create_replication_slot": _create_slot,
    "drop_replication_slot": lambda reader: DropSlot(_slot_name(reader), reader.accept("wait")),
    "start_peer": lambda _: StartPeer(),
}
