"""What proposers and acceptors say to each other, and the bytes it travels as."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from walproxy.quorum.coding import Reader, Writer
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Membership
from walproxy.quorum.state import Cluster, put_cluster, read_cluster
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn

PROTOCOL_VERSION: Final = 1
WAL_BYTES_MAX: Final = 1 << 20  # Of one Append.
MESSAGE_BYTES_MAX: Final = WAL_BYTES_MAX + (1 << 16)


@dataclass(frozen=True, slots=True)
class Greeting:
    """Who I am and where my log stands.

    First on each connection, both ways; an acceptor answers each one with its own.
    `flush_lsn` and `term_history` are as in a vote: what is durable, the history cut there.
    """

    generation: int
    name: str
    node_id: bytes
    membership: Membership
    term: int
    flush_lsn: Lsn
    commit_lsn: Lsn
    log_start_lsn: Lsn
    local_start_lsn: Lsn
    term_history: TermHistory
    cluster: Cluster | None


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Would you (`is_pre`), or do you, vote for me in `term`? My log ends at `flush_lsn`."""

    generation: int
    term: int
    is_pre: bool
    last_log_term: int
    flush_lsn: Lsn


@dataclass(frozen=True, slots=True)
class VoteReply:
    """Answer to a VoteRequest.

    `asked_term` is that of the request; `term` the voter's own, after it voted if it did; `why` says why
    not, in words.
    """

    generation: int
    asked_term: int
    is_pre: bool
    is_granted: bool
    term: int
    last_log_term: int
    flush_lsn: Lsn
    why: str = ""


@dataclass(frozen=True, slots=True)
class Elected:
    """I am the proposer of `term`; this is my log's history; cut yours to `start_lsn`, I go on there.

    Sent again, with a longer history, when the primary moves to another timeline.
    """

    generation: int
    term: int
    start_lsn: Lsn
    term_history: TermHistory
    commit_lsn: Lsn
    log_start_lsn: Lsn
    cluster: Cluster


@dataclass(frozen=True, slots=True)
class Append:
    """WAL of timeline `tli` that begins exactly where the log was written to; without WAL, a heartbeat.

    Up to `commit_lsn` the log is committed; below `horizon_lsn` nobody needs it any more.
    """

    generation: int
    term: int
    tli: int
    start_lsn: Lsn
    commit_lsn: Lsn
    horizon_lsn: Lsn
    wal: bytes = b""


@dataclass(frozen=True, slots=True)
class HistoryFile:
    """A Postgres timeline history file, byte for byte. Goes before the first WAL of that timeline."""

    generation: int
    term: int
    tli: int
    content: bytes


@dataclass(frozen=True, slots=True)
class SlotHorizon:
    """How far a consumer is: WAL is held from `flush_lsn` on; `apply_lsn` is what it answers for."""

    name: str
    flush_lsn: Lsn
    apply_lsn: Lsn = INVALID_LSN


@dataclass(frozen=True, slots=True)
class Feedback:
    """Hot standby feedback of the downstreams, the oldest of each; 0 for none."""

    xmin: int = 0
    xmin_epoch: int = 0
    catalog_xmin: int = 0
    catalog_xmin_epoch: int = 0


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Answer to Elected and Append.

    Everything up to `flush_lsn`, a record end, is synced in the acceptor's log of this term; INVALID_LSN as
    long as it
    has not taken the term's Elected.
    """

    generation: int
    term: int
    flush_lsn: Lsn
    write_lsn: Lsn
    commit_lsn: Lsn
    feedback: Feedback = field(default_factory=Feedback)
    slots: tuple[SlotHorizon, ...] = ()


Message = Greeting | VoteRequest | VoteReply | Elected | Append | HistoryFile | AppendReply

_HEADER = struct.Struct("!cBI")  # Tag, protocol version, membership generation.
_APPEND = struct.Struct("!QIQQQ")  # Then the WAL.
_REPLY = struct.Struct("!QQQQIIIIH")  # Then the slots.
_REPLY_HEAD = struct.Struct("!QQQQ")
_APPEND_AT: Final = _HEADER.size + _APPEND.size
_REPLY_AT: Final = _HEADER.size + _REPLY_HEAD.size
_PLAIN: Final = bytes(_REPLY.size - _REPLY_HEAD.size)  # No feedback, no slots.
_NO_FEEDBACK: Final = Feedback()


def encode(message: Message) -> bytes:
    """The bytes of one message."""
    tag, body = _ENCODE[type(message)]
    return _HEADER.pack(tag, PROTOCOL_VERSION, message.generation) + body(message)


class AppendHead(Protocol):
    """An Append, or what is to become one."""

    @property
    def generation(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def tli(self) -> int: ...
    @property
    def start_lsn(self) -> Lsn: ...
    @property
    def commit_lsn(self) -> Lsn: ...
    @property
    def horizon_lsn(self) -> Lsn: ...


def append_prefix(message: AppendHead) -> bytes:
    """All of an Append but its WAL, for a sender that has the WAL elsewhere."""
    return _HEADER.pack(b"a", PROTOCOL_VERSION, message.generation) + _APPEND.pack(
        message.term, message.tli, message.start_lsn, message.commit_lsn, message.horizon_lsn
    )


def decode(data: bytes) -> Message:
    """One message from its bytes.

    Raises:
        MessageMalformed: truncated, too long, of another protocol version, or not a message at all.
    """
    if not _HEADER.size <= len(data) <= MESSAGE_BYTES_MAX:
        raise MessageMalformed("message length is impossible", length=len(data))
    tag, version, generation = _HEADER.unpack_from(data)
    if version != PROTOCOL_VERSION:
        raise MessageMalformed("protocol version is not ours", version=version, ours=PROTOCOL_VERSION)
    # Nearly all that comes is an Append, or a reply without slots or feedback.
    if tag == b"a" and _APPEND_AT <= len(data) <= _APPEND_AT + WAL_BYTES_MAX:
        term, tli, start, commit, horizon = _APPEND.unpack_from(data, _HEADER.size)
        return Append(generation, term, tli, Lsn(start), Lsn(commit), Lsn(horizon), data[_APPEND_AT:])
    if tag == b"A" and len(data) == _REPLY_AT + len(_PLAIN) and data.endswith(_PLAIN):
        term, flush, write, commit = _REPLY_HEAD.unpack_from(data, _HEADER.size)
        return AppendReply(generation, term, Lsn(flush), Lsn(write), Lsn(commit), _NO_FEEDBACK)
    read = _DECODE.get(tag)
    if read is None:
        raise MessageMalformed("unknown message", tag=tag)
    body = Reader(data, _HEADER.size)
    message = read(body, generation)
    body.end()
    return message


def _put_greeting(m: Greeting) -> bytes:
    out = Writer().text(m.name).blob(m.node_id).membership(m.membership)
    out.u64(m.term).u64(m.flush_lsn).u64(m.commit_lsn).u64(m.log_start_lsn).u64(m.local_start_lsn)
    return put_cluster(out.terms(m.term_history), m.cluster).done()


def _get_greeting(r: Reader, generation: int) -> Greeting:
    name, node_id, membership = r.text(), r.blob(), r.membership()
    r.expect(membership.generation == generation, "generation is not that of the membership")
    term, flush, commit, log_start, local_start = r.u64(), r.lsn(), r.lsn(), r.lsn(), r.lsn()
    history, cluster = r.terms(), read_cluster(r)
    return Greeting(
        generation, name, node_id, membership, term, flush, commit, log_start, local_start, history, cluster
    )


def _put_vote_request(m: VoteRequest) -> bytes:
    return Writer().u64(m.term).u8(m.is_pre).u64(m.last_log_term).u64(m.flush_lsn).done()


def _get_vote_request(r: Reader, generation: int) -> VoteRequest:
    return VoteRequest(generation, r.u64(), r.flag(), r.u64(), r.lsn())


def _put_vote_reply(m: VoteReply) -> bytes:
    out = Writer().u64(m.asked_term).u8(m.is_pre).u8(m.is_granted)
    return out.u64(m.term).u64(m.last_log_term).u64(m.flush_lsn).text(m.why).done()


def _get_vote_reply(r: Reader, generation: int) -> VoteReply:
    return VoteReply(generation, r.u64(), r.flag(), r.flag(), r.u64(), r.u64(), r.lsn(), r.text())


def _put_elected(m: Elected) -> bytes:
    out = Writer().u64(m.term).u64(m.start_lsn).u64(m.commit_lsn).u64(m.log_start_lsn)
    return put_cluster(out.terms(m.term_history), m.cluster).done()


def _get_elected(r: Reader, generation: int) -> Elected:
    term, start, commit, log_start, history = r.u64(), r.lsn(), r.lsn(), r.lsn(), r.terms()
    cluster = read_cluster(r)
    if cluster is None or history.last_term != term:
        raise MessageMalformed("elected without a cluster, or not by its own history", term=term)
    return Elected(generation, term, start, history, commit, log_start, cluster)


def _put_append(m: Append) -> bytes:
    return _APPEND.pack(m.term, m.tli, m.start_lsn, m.commit_lsn, m.horizon_lsn) + m.wal


def _get_append(r: Reader, generation: int) -> Append:
    term, tli, start, commit, horizon = r.take(_APPEND)
    append = Append(generation, term, tli, Lsn(start), Lsn(commit), Lsn(horizon), r.rest())
    r.expect(len(append.wal) <= WAL_BYTES_MAX, "append is too long")
    return append


def _put_history(m: HistoryFile) -> bytes:
    return Writer().u64(m.term).u32(m.tli).blob(m.content).done()


def _get_history(r: Reader, generation: int) -> HistoryFile:
    return HistoryFile(generation, r.u64(), r.u32(), r.blob())


def _put_append_reply(m: AppendReply) -> bytes:
    f = m.feedback
    xmins = f.xmin, f.xmin_epoch, f.catalog_xmin, f.catalog_xmin_epoch
    fixed = _REPLY.pack(m.term, m.flush_lsn, m.write_lsn, m.commit_lsn, *xmins, len(m.slots))
    out = Writer()
    for slot in m.slots:
        out.text(slot.name).u64(slot.flush_lsn).u64(slot.apply_lsn)
    return fixed + out.done()


def _get_append_reply(r: Reader, generation: int) -> AppendReply:
    term, flush, write, commit, *xmins, count = r.take(_REPLY)
    feedback = Feedback(*xmins) if any(xmins) else _NO_FEEDBACK
    slots = tuple(SlotHorizon(r.text(), r.lsn(), r.lsn()) for _ in range(count))
    return AppendReply(generation, term, Lsn(flush), Lsn(write), Lsn(commit), feedback, slots)


_KINDS: Final[
    tuple[tuple[type[Message], bytes, Callable[..., bytes], Callable[[Reader, int], Message]], ...]
] = (
    (Greeting, b"g", _put_greeting, _get_greeting),
    (VoteRequest, b"v", _put_vote_request, _get_vote_request),
    (VoteReply, b"V", _put_vote_reply, _get_vote_reply),
    (Elected, b"e", _put_elected, _get_elected),
    (Append, b"a", _put_append, _get_append),
    (HistoryFile, b"h", _put_history, _get_history),
    (AppendReply, b"A", _put_append_reply, _get_append_reply),
)
_ENCODE: Final = {kind: (tag, put) for kind, tag, put, _ in _KINDS}
_DECODE: Final = {tag: get for _, tag, _, get in _KINDS}
