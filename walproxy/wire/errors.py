"""What can go wrong on the wire.

WireError
├── MalformedInput        text from outside is not of its form
├── LocalProtocolError    we asked for what the protocol does not allow
├── RemoteProtocolError   the peer did
├── ConnectFailed         no connection came about, or it was lost
└── SqlError              a statement failed: the client is told, the session goes on
"""

from typing import Final

# Source: src/backend/utils/errcodes.txt.
SYNTAX_ERROR: Final = "42601"
FEATURE_NOT_SUPPORTED: Final = "0A000"
PROTOCOL_VIOLATION: Final = "08P01"
UNDEFINED_FUNCTION: Final = "42883"
UNDEFINED_OBJECT: Final = "42704"
DATATYPE_MISMATCH: Final = "42804"
CHARACTER_NOT_IN_REPERTOIRE: Final = "22021"
INVALID_TEXT_REPRESENTATION: Final = "22P02"
INVALID_BINARY_REPRESENTATION: Final = "22P03"
NUMERIC_VALUE_OUT_OF_RANGE: Final = "22003"
OBJECT_NOT_IN_PREREQUISITE_STATE: Final = "55000"


class WireError(Exception):
    """Base of the errors that leave the wire."""

    def __init__(self, what: str, **facts: object) -> None:
        super().__init__(" ".join([what, *(f"{name}={value}" for name, value in facts.items())]))
        self.facts = facts


class MalformedInput(WireError):
    """The text is not of its form. Tell whoever wrote it."""


class LocalProtocolError(WireError):
    """A call that the protocol does not allow now: our bug."""


class RemoteProtocolError(WireError):
    """The peer broke the protocol. Close this connection, keep the process."""


class ConnectFailed(WireError, ConnectionError):
    """There is no connection, or no longer. Connect again later."""


class SqlError(WireError):
    """A statement failed. Both sides of the wire use it: servers raise it, clients get it.

    Args:
        sqlstate: five characters of ``src/backend/utils/errcodes.txt``.
        message: as Postgres words it where Postgres has this error.
        fatal: the session ends with it.
    """

    def __init__(
        self,
        sqlstate: str,
        message: str,
        *,
        detail: str | None = None,
        hint: str | None = None,
        fatal: bool = False,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.message = message
        self.detail = detail
        self.hint = hint
        self.fatal = fatal
