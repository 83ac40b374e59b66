"""How a connection begins: startup packet, version, options, authentication; as a generator without I/O.

Source:
    PostgreSQL 18 ``src/backend/tcop/backend_startup.c``, ``ProcessStartupPacket``.
"""

import struct
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Final

from walproxy.wire.codec import BodyReader
from walproxy.wire.errors import FEATURE_NOT_SUPPORTED, RemoteProtocolError, SqlError
from walproxy.wire.messages import Authentication, NegotiateProtocolVersion

STARTUP_LENGTH_MAX: Final = 10_000
_CANCEL: Final = 80_877_102
_SSL: Final = 80_877_103
_GSSENC: Final = 80_877_104
_MAJOR: Final = 3
_NEWEST: Final = (_MAJOR << 16) | 2
_TRUE: Final = frozenset({"true", "on", "yes", "1", "t", "y"})
_NOT_ENCRYPTED: Final = b"N"


@dataclass(frozen=True, slots=True)
class Startup:
    """What the client said of itself.

    Args:
        requested: protocol version, major in the upper 16 bits.
        parameters: as sent, without the ``_pq_.`` options.
        unknown_options: those; we know none.
    """

    requested: int
    parameters: Mapping[str, str]
    unknown_options: tuple[str, ...] = ()

    @property
    def version(self) -> int:
        """What both speak."""
        return min(self.requested, _NEWEST)

    @property
    def cancel_key_bytes(self) -> int:
        return 32 if self.version >= _NEWEST else 4

    @property
    def application_name(self) -> str:
        return self.parameters.get("application_name", "")

    @property
    def is_replication(self) -> bool:
        """Physical replication was asked for, in one of the ways that ``parse_bool`` reads as true."""
        return self.parameters.get("replication", "").lower() in _TRUE


@dataclass(frozen=True, slots=True)
class Cancel:
    """A connection that only asks to stop the running statement of another one."""

    pid: int
    key: bytes


# Each yield sends bytes (maybe none) and receives the body of the next untagged packet.
Handshake = Generator[bytes, bytes, Startup | Cancel]


def handshake() -> Handshake:
    """Read packets up to the startup packet, and say what it was.

    The first yield is empty: it asks for the first packet. What is left to send at the end, `accept` says.

    Raises:
        RemoteProtocolError: not a startup packet.
        SqlError: a version that is not spoken here; fatal.
    """
    reply = b""
    refused: set[int] = set()
    while True:
        packet = yield reply
        (code,) = struct.unpack_from("!I", packet)
        if code == _CANCEL:
            reader = BodyReader(packet[4:])
            return Cancel(reader.int32(), reader.rest())
        if code not in {_SSL, _GSSENC}:
            return _startup(code, packet[4:])
        if code in refused:
            raise RemoteProtocolError("encryption asked for twice")
        refused.add(code)
        reply = _NOT_ENCRYPTED


def _startup(version: int, body: bytes) -> Startup:
    major, minor = version >> 16, version & 0xFFFF
    if major != _MAJOR:
        raise SqlError(
            FEATURE_NOT_SUPPORTED,
            f"unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2",
            fatal=True,
        )
    reader = BodyReader(body)
    parameters: dict[str, str] = {}
    options = []
    while name := reader.cstring():
        value = reader.cstring()
        if name.startswith("_pq_."):
            options.append(name)
        else:
            parameters[name] = value
    reader.end()
    if not parameters.get("user"):
        raise SqlError("28000", "no PostgreSQL user name specified in startup packet", fatal=True)
    return Startup(version, parameters, tuple(options))


def accept(startup: Startup) -> bytes:
    """What goes out when the client is let in: the version, if it asked for another one, then success.

    Authentication has its place here. As long as there is none everyone is let in, which is why listeners are
    local only.
    """
    negotiate = b""
    if startup.requested != startup.version or startup.unknown_options:
        negotiate = NegotiateProtocolVersion(startup.version, startup.unknown_options).encode()
    return negotiate + Authentication().encode()
