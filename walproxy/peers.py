"""The connections between nodes: one in each direction, over which proposers ask and acceptors answer."""

import asyncio
from typing import Final, Protocol

import structlog

from walproxy.ports import CopyStream
from walproxy.quorum.errors import NotAMember, QuorumError
from walproxy.quorum.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    Elected,
    Greeting,
    Message,
    decode,
    encode,
    in_older_version,
)
from walproxy.quorum.state import check_segment_size
from walproxy.wire.errors import WireError
from walproxy.wire.libpq import CopyBoth

_RETRY_FIRST_S: Final = 0.05
_RETRY_MAX_S: Final = 1.0
_CONNECT_TIMEOUT_S: Final = 3.0
_ANSWER_TIMEOUT_S: Final = (
    5.0  # From the connection to the first answer: a greeting that was lost is repeated.
)
_COMPLAINT_CHARS_MAX: Final = 500  # In the log: a peer may say long words.

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

    def introduction(self) -> Greeting:
        """Who we are, and who belongs to the group."""

    @property
    def has_room(self) -> bool:
        """False while our disk is far behind what we have taken."""

    def pause_until_room(self, stream: CopyStream) -> None:
        """Read no more of that until there is room again."""

    def settle(self) -> None:
        """Carry out what the last messages led to."""


class Complaints:
    """Logs each peer's fault once, and counts the rest. All that are no members have one name."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, peer: str, error: Exception) -> None:
        key = f"{peer}: {str(error).partition('=')[0]}"
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] == 1:
            _log.warning(
                "message refused, connection closed", peer=peer, error=str(error)[:_COMPLAINT_CHARS_MAX]
            )


class OlderPeer:
    """A connection on which the version before ours is spoken. Source: docs/quorum.md rule 1.

    What that version has no word for cannot be said: from then on nothing is, and the peer stays behind until
    it is upgraded.
    """

    def __init__(self, stream: CopyStream, peer: str, complaints: Complaints) -> None:
        self._stream = stream
        self._peer = peer
        self._complaints = complaints
        self._is_mute = False
        self.receive, self.pump = stream.receive, stream.pump
        self.pause, self.resume = stream.pause, stream.resume
        self.flush, self.close = stream.flush, stream.close

    def send(self, data: bytes) -> None:
        if self._is_mute:
            return
        try:
            older = in_older_version(data)
        except QuorumError as error:
            self._is_mute = True
            self._complaints.note(self._peer, QuorumError(f"upgrade this member: {error}"))
        else:
            self._stream.send(older)


def heard(data: bytes) -> Message:
    """What a peer says, of a cluster that can be. Raises MessageMalformed."""
    message = decode(data)
    if isinstance(message, Greeting | Elected):
        check_segment_size(message.cluster)
    return message


async def dial(peer: str, conninfo: str, handler: PeerHandler, complaints: Complaints) -> None:
    """Keep a connection to that peer's acceptor, for ever.

    Who hangs up on our greeting may not be upgraded yet: the next one is in the version before ours.
    """
    retry_s = _RETRY_FIRST_S
    version = PROTOCOL_VERSION
    was_connected = True
    while True:
        stream: CopyBoth | None = None
        try:
            stream = await CopyBoth.connect(
                conninfo,
                replication=True,
                application_name=handler.name,
                timeout_s=_CONNECT_TIMEOUT_S,
                is_lendable=True,
            )
            version = await _converse(peer, stream, handler, complaints, version)
            retry_s, was_connected = _RETRY_FIRST_S, True
        except TimeoutError:
            _log.info("peer does not answer", peer=peer, within_s=_ANSWER_TIMEOUT_S)
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


async def _converse(
    peer: str, stream: CopyBoth, handler: PeerHandler, complaints: Complaints, version: int
) -> int:
    """Speak as proposer until the connection ends; gives the version to try next.

    Raises:
        TimeoutError: there was no answer.
        QuorumError: it says what it must not.
        WireError, ConnectionError: the connection is lost, after there were answers.
    """
    is_answered = False
    async with asyncio.timeout(_ANSWER_TIMEOUT_S) as waiting:

        def take(data: bytes) -> None:
            nonlocal is_answered
            if not is_answered:
                is_answered = True
                waiting.reschedule(None)
            handler.on_answer(peer, heard(data))

        await stream.start("START_PEER")
        _log.info("connected to peer", peer=peer, version=version)
        spoken = stream if version == PROTOCOL_VERSION else OlderPeer(stream, peer, complaints)
        handler.on_dialled(peer, spoken)
        try:
            await stream.pump(take, handler.settle)
        except (WireError, ConnectionError) as error:
            if is_answered:
                raise
            _log.info("peer hung up on our greeting", peer=peer, version=version, error=str(error))
        finally:
            handler.on_hung_up(peer)
    return version if is_answered else OLDEST_VERSION + PROTOCOL_VERSION - version


async def answer(stream: CopyStream, handler: PeerHandler, complaints: Complaints) -> None:
    """Serve a connection that asked START_PEER, until it ends. The peer says its name first."""
    peer = ""
    spoken: CopyStream = stream
    try:
        data = await stream.receive()
        if data is None:
            return
        greeting = heard(data)
        if not isinstance(greeting, Greeting) or greeting.name == handler.name:
            complaints.note("unknown", QuorumError("connection does not begin with a member's greeting"))
            return
        if not await _is_let_in(greeting, stream, handler, complaints):
            return
        peer = greeting.name
        spoken = OlderPeer(stream, peer, complaints) if greeting.version < PROTOCOL_VERSION else stream
        handler.on_accepted(peer, spoken)
        handler.settle()

        def done() -> None:
            handler.settle()
            if not handler.has_room:
                handler.pause_until_room(stream)

        await stream.pump(lambda data: handler.on_request(peer, heard(data)), done)
    except NotAMember:
        _log.info("peer has left the group", peer=peer)
    except QuorumError as error:
        complaints.note(peer or "unknown", error)
    except (WireError, ConnectionError) as error:
        _log.info("peer left", peer=peer, error=str(error))
    finally:
        if peer:
            handler.on_left(peer, spoken)
        stream.close()


async def _is_let_in(
    greeting: Greeting, stream: CopyStream, handler: PeerHandler, complaints: Complaints
) -> bool:
    """Whether a member speaks; one that is none any more is told so. Raises QuorumError."""
    try:
        handler.on_request(greeting.name, greeting)
    except NotAMember as error:
        handler.settle()
        ours = handler.introduction()
        name = greeting.name if greeting.name in ours.membership.everyone else "not a member"
        complaints.note(name, error)
        if greeting.generation < ours.generation:
            older = greeting.version < PROTOCOL_VERSION
            (OlderPeer(stream, name, complaints) if older else stream).send(encode(ours))
            await stream.flush()
        return False
    return True
