"""The connections between nodes: one in each direction, over which proposers ask and acceptors answer."""

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol

import structlog

from walproxy.ports import CopyStream
from walproxy.quorum.errors import QuorumError
from walproxy.quorum.messages import Greeting, Message, decode
from walproxy.wire.errors import WireError
from walproxy.wire.libpq import CopyBoth

_RETRY_FIRST_S: Final = 0.05
_RETRY_MAX_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 3.0

_log = structlog.get_logger(__name__)


class PeerHandler(Protocol):
    """What the node does with its peers."""

    name: str

    def on_dialled(self, peer: str, stream: CopyStream) -> None:
        """Our connection to that peer's acceptor is open."""

    def on_answer(self, peer: str, message: Message) -> None:
        """Its acceptor says something. Raises QuorumError."""

    def on_hung_up(self, peer: str) -> None:
        """That connection is over."""

    def on_accepted(self, peer: str, stream: CopyStream) -> None:
        """That peer's proposer has connected to our acceptor."""

    def on_request(self, peer: str, message: Message) -> None:
        """It says something. Raises QuorumError."""

    def on_left(self, peer: str, stream: CopyStream) -> None:
        """That connection is over."""

    @property
    def has_room(self) -> bool:
        """False while our disk is far behind what we have taken."""

    def pause_until_room(self, stream: CopyStream) -> None:
        """Read no more of that until there is room again."""

    def settle(self) -> None:
        """Carry out what the last messages led to."""


class Complaints:
    """Logs each peer's fault once, and counts the rest."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, peer: str, error: Exception) -> None:
        key = f"{peer}: {str(error).partition('=')[0]}"
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] == 1:
            _log.warning("message refused, connection closed", peer=peer, error=str(error))


async def dial(peer: str, conninfo: str, handler: PeerHandler, complaints: Complaints) -> None:
    """Keep a connection to that peer's acceptor, for ever."""
    retry_s = _RETRY_FIRST_S
    was_connected = True
    while True:
        stream: CopyBoth | None = None
        try:
            stream = await CopyBoth.connect(
                conninfo,
                replication=True,
                application_name=handler.name,
                timeout_s=_CONNECT_TIMEOUT_S,
            )
            await stream.start("START_PEER")
            _log.info("connected to peer", peer=peer)
            retry_s, was_connected = _RETRY_FIRST_S, True
            handler.on_dialled(peer, stream)
            try:
                await stream.pump(lambda data: handler.on_answer(peer, decode(data)), handler.settle)
            finally:
                handler.on_hung_up(peer)
        except QuorumError as error:
            complaints.note(peer, error)
        except (WireError, ConnectionError) as error:
            if was_connected:
                _log.info("no connection to peer", peer=peer, error=str(error))
            was_connected = False
        finally:
            if stream is not None:
                stream.close()
        await asyncio.sleep(retry_s)
        retry_s = min(retry_s * 1.5, _RETRY_MAX_S)


async def answer(
    stream: CopyStream, handler: PeerHandler, members: Mapping[str, str], complaints: Complaints
) -> None:
    """Serve a connection that asked START_PEER, until it ends. The peer says its name first."""
    peer = ""
    try:
        data = await stream.receive()
        if data is None:
            return
        greeting = decode(data)
        if (
            not isinstance(greeting, Greeting)
            or greeting.name not in members
            or greeting.name == handler.name
        ):
            complaints.note("unknown", QuorumError("connection does not begin with a member's greeting"))
            return
        peer = greeting.name
        handler.on_accepted(peer, stream)
        handler.on_request(peer, greeting)
        handler.settle()

        def done() -> None:
            handler.settle()
            if not handler.has_room:
                handler.pause_until_room(stream)

        await stream.pump(lambda data: handler.on_request(peer, decode(data)), done)
    except QuorumError as error:
        complaints.note(peer or "unknown", error)
    except (WireError, ConnectionError) as error:
        _log.info("peer left", peer=peer, error=str(error))
    finally:
        if peer:
            handler.on_left(peer, stream)
        stream.close()
