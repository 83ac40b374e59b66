"""What proposers and acceptors say to each other, and the bytes it travels as."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from walproxy.quorum.coding import Reader, Writer, checked_term
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Membership
from walproxy.quorum.state import Cluster, put_cluster, read_cluster
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn

PROTOCOL_VERSION: Final = 2
OLDEST_VERSION: Final = PROTOCOL_VERSION - 1  # Spoken with nodes that are not upgraded yet.
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
    # Of the connection it came on.
    version: int = PROTOCOL_VERSION


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
class StandNow:
    """Stand for election at once, without asking first: you hold all of my log, and I take no more WAL.

    Source: docs/quorum.md rule 27; Raft (Ongaro, 2014, dissertation), section 3.10.
    """

    generation: int
    term: int


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


Message = Greeting | VoteRequest | VoteReply | Elected | Append | HistoryFile | AppendReply | StandNow

_HEADER = struct.Struct("!cBI")  # Tag, protocol version, membership generation.
_APPEND = struct.Struct("!QIQQQ")  # Then the WAL.
_REPLY = struct.Struct("!QQQQIIIIH")  # Then the slots.
_REPLY_HEAD = struct.Struct("!QQQQ")
_APPEND_AT: Final = _HEADER.size + _APPEND.size
_REPLY_AT: Final = _HEADER.size + _REPLY_HEAD.size
_PLAIN: Final = bytes(_REPLY.size - _REPLY_HEAD.size)  # No feedback, no slots.
_NO_FEEDBACK: Final = Feedback()


def encode(message: Message) -> bytes:
    """The bytes of one message, in our own version of the protocol."""
    tag, body = _ENCODE[type(message)]
    return _HEADER.pack(tag, PROTOCOL_VERSION, message.generation) + body(message)


def in_older_version(data: bytes) -> bytes:
    """What `encode` gave, as a node of the version before ours reads it. Source: docs/quorum.md rule 1.

    Raises:
        MessageMalformed: that version has no word for it.
    """
    tag = data[:1]
    if tag == b"t":
        raise MessageMalformed("the older protocol version has no such message", tag=tag)
    body = data[_HEADER.size :]
    if tag in {b"g", b"e"}:
        message = decode(data)
        if isinstance(message, Greeting):
            body = _put_greeting(message, with_seals=False)
        elif isinstance(message, Elected):
            body = _put_elected(message, with_seals=False)
    return tag + bytes([OLDEST_VERSION]) + data[2 : _HEADER.size] + body


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
        MessageMalformed: truncated, too long, of another protocol version, of a term that cannot be, or not a
            message at all.
    """
    if not _HEADER.size <= len(data) <= MESSAGE_BYTES_MAX:
        raise MessageMalformed("message length is impossible", length=len(data))
    tag, version, generation = _HEADER.unpack_from(data)
    if not OLDEST_VERSION <= version <= PROTOCOL_VERSION:
        raise MessageMalformed(
            "protocol version is not ours, nor the one before", version=version, ours=PROTOCOL_VERSION
        )
    # Nearly all that comes is an Append, or a reply without slots or feedback.
    if tag == b"a" and _APPEND_AT <= len(data) <= _APPEND_AT + WAL_BYTES_MAX:
        term, tli, start, commit, horizon = _APPEND.unpack_from(data, _HEADER.size)
        return Append(
            generation, checked_term(term), tli, Lsn(start), Lsn(commit), Lsn(horizon), data[_APPEND_AT:]
        )
    if tag == b"A" and len(data) == _REPLY_AT + len(_PLAIN) and data.endswith(_PLAIN):
        term, flush, write, commit = _REPLY_HEAD.unpack_from(data, _HEADER.size)
        return AppendReply(generation, checked_term(term), Lsn(flush), Lsn(write), Lsn(commit), _NO_FEEDBACK)
    read = _DECODE.get(tag)
    if read is None:
        raise MessageMalformed("unknown message", tag=tag)
    body = Reader(data, _HEADER.size)
    if version < PROTOCOL_VERSION:
        older = _DECODE_OLDER.get(tag, read)
        body.expect(older is not None, "message of a newer version")
        assert older is not None
        read = older
    message = read(body, generation)
    body.end()
    return message


def reply_needs(message: AppendReply) -> bytes:
    """Of an AppendReply the part after its positions: hot standby feedback and slots."""
    return encode(message)[_REPLY_AT:]


def parse_needs(needs: bytes) -> tuple[Feedback, tuple[SlotHorizon, ...]]:
    """As `reply_needs` wrote them. Raises MessageMalformed."""
    reader = Reader(bytes(_REPLY_HEAD.size) + needs)
    reply = _get_append_reply(reader, 0)
    reader.end()
    return reply.feedback, reply.slots


def _put_greeting(m: Greeting, *, with_seals: bool = True) -> bytes:
    out = Writer().text(m.name).blob(m.node_id).membership(m.membership)
    out.u64(m.term).u64(m.flush_lsn).u64(m.commit_lsn).u64(m.log_start_lsn).u64(m.local_start_lsn)
    put_cluster(out.terms(m.term_history, with_seals=with_seals), m.cluster)
    # A group whose members never changed says no more of them.
    if m.membership != Membership(m.generation, m.membership.members, m.membership.new_members):
        if not with_seals:
            raise MessageMalformed("the older form knows no change of the members", generation=m.generation)
        out.membership_rest(m.membership)
    return out.done()


def _get_greeting(r: Reader, generation: int, *, version: int = PROTOCOL_VERSION) -> Greeting:
    name, node_id, membership = r.text(), r.blob(), r.membership()
    r.expect(membership.generation == generation, "generation is not that of the membership")
    term, flush, commit, log_start, local_start = r.term(), r.lsn(), r.lsn(), r.lsn(), r.lsn()
    history, cluster = r.terms(with_seals=version == PROTOCOL_VERSION), read_cluster(r)
    if not r.is_at_end:
        membership = r.membership_rest(membership)
    return Greeting(
        generation,
        name,
        node_id,
        membership,
        term,
        flush,
        commit,
        log_start,
        local_start,
        history,
        cluster,
        version,
    )


def _put_vote_request(m: VoteRequest) -> bytes:
    return Writer().u64(m.term).u8(m.is_pre).u64(m.last_log_term).u64(m.flush_lsn).done()


def _get_vote_request(r: Reader, generation: int) -> VoteRequest:
    return VoteRequest(generation, r.term(), r.flag(), r.term(), r.lsn())


def _put_vote_reply(m: VoteReply) -> bytes:
    out = Writer().u64(m.asked_term).u8(m.is_pre).u8(m.is_granted)
    return out.u64(m.term).u64(m.last_log_term).u64(m.flush_lsn).text(m.why).done()


def _get_vote_reply(r: Reader, generation: int) -> VoteReply:
    return VoteReply(generation, r.term(), r.flag(), r.flag(), r.term(), r.term(), r.lsn(), r.text())


def _put_elected(m: Elected, *, with_seals: bool = True) -> bytes:
    out = Writer().u64(m.term).u64(m.start_lsn).u64(m.commit_lsn).u64(m.log_start_lsn)
    return put_cluster(out.terms(m.term_history, with_seals=with_seals), m.cluster).done()


def _get_elected(r: Reader, generation: int, *, with_seals: bool = True) -> Elected:
    term, start, commit, log_start = r.term(), r.lsn(), r.lsn(), r.lsn()
    history, cluster = r.terms(with_seals=with_seals), read_cluster(r)
    if cluster is None or history.last_term != term:
        raise MessageMalformed("elected without a cluster, or not by its own history", term=term)
    return Elected(generation, term, start, history, commit, log_start, cluster)


def _put_append(m: Append) -> bytes:
    return _APPEND.pack(m.term, m.tli, m.start_lsn, m.commit_lsn, m.horizon_lsn) + m.wal


def _get_append(r: Reader, generation: int) -> Append:
    term, tli, start, commit, horizon = r.take(_APPEND)
    append = Append(generation, checked_term(term), tli, Lsn(start), Lsn(commit), Lsn(horizon), r.rest())
    r.expect(len(append.wal) <= WAL_BYTES_MAX, "append is too long")
    return append


def _put_history(m: HistoryFile) -> bytes:
    return Writer().u64(m.term).u32(m.tli).blob(m.content).done()


def _get_history(r: Reader, generation: int) -> HistoryFile:
    return HistoryFile(generation, r.term(), r.u32(), r.blob())


def _put_stand_now(m: StandNow) -> bytes:
    return Writer().u64(m.term).done()


def _get_stand_now(r: Reader, generation: int) -> StandNow:
    return StandNow(generation, r.term())


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
    return AppendReply(generation, checked_term(term), Lsn(flush), Lsn(write), Lsn(commit), feedback, slots)


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
    (StandNow, b"t", _put_stand_now, _get_stand_now),
)
_ENCODE: Final = {kind: (tag, put) for kind, tag, put, _ in _KINDS}
_DECODE: Final = {tag: get for _, tag, _, get in _KINDS}
# Where the version before ours has another form, or None: it has no such message.
_DECODE_OLDER: Final[dict[bytes, Callable[[Reader, int], Message] | None]] = {
    b"g": partial(_get_greeting, version=OLDEST_VERSION),
    b"e": partial(_get_elected, with_seals=False),
    b"t": None,
}
