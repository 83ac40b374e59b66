"""Checks a node's system calls: nothing it promised left before the sync that covers it had returned.

A promise is a message to a peer that names a flush position or a vote. What covers a flush position: its
bytes were written, then fdatasync of that file began and returned, and the file's name was made durable by a
sync of its folder. What covers a vote: the control file with that term was written, synced, renamed and its
folder synced.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePath

from tools.strace import Call
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.messages import AppendReply, Greeting, Message, VoteReply, VoteRequest, decode
from walproxy.quorum.state import decode_control
from walproxy.wire.lsn import Lsn, parse_segment_name

SEGMENT_BYTES = 16 * 1024 * 1024
SEALED_HEAD_BYTES, SEALED_SUM_BYTES = 16, 4
COPY_DATA = b"d"[0]
SYNCS = ("fsync", "fdatasync")
STATUS_UPDATE = struct.Struct("!cQQQ")


@dataclass
class _Segment:
    """One file of WAL. Invariant: synced <= written; both count from its start."""

    written: int = 0
    synced: int = 0
    name_is_durable: bool = False


@dataclass
class Node:
    """What one node had made durable, and what it had promised, call by call."""

    name: str
    breaches: list[str] = field(default_factory=list)
    # Promises seen, by the kind of message: a check that saw none proves nothing.
    seen: dict[str, int] = field(default_factory=dict)
    # When the end of the durable WAL moved, and where to; ascending.
    durable_s: list[float] = field(default_factory=list)
    durable_lsns: list[int] = field(default_factory=list)
    # Flush positions told to the primary: when, and how far.
    acknowledged: list[tuple[float, int]] = field(default_factory=list)

    _segments: dict[int, _Segment] = field(default_factory=dict)
    _sync_covers: dict[int, int] = field(default_factory=dict)
    _control: bytes = b""
    _is_control_synced: bool = False
    _control_folder: PurePath | None = None
    _renamed_term: int = 0
    _term: int = 0
    _streams: dict[str, bytearray] = field(default_factory=dict)

    def follow(self, calls: Iterable[Call]) -> None:
        """Take all calls: a send counts when it begins, every other when it ends.

        A sync covers what was written when it began.
        """
        events = [(call.begun if _is_send(call) else call.ended, False, call) for call in calls]
        events += [(call.begun, True, call) for _, _, call in events if call.name in SYNCS]
        for _, is_begin, call in sorted(events, key=lambda event: (event[0], not event[1])):
            if call.result < 0:
                continue
            if is_begin:
                self._on_sync_begun(call)
            elif _is_send(call):
                self._on_send(call)
            elif call.name in SYNCS:
                self._on_sync(call)
            elif call.name == "rename":
                self._on_rename(call)
            elif call.name in ("write", "pwrite64"):
                self._on_write(call)

    def durable_at(self, at_s: float) -> int:
        """End of the WAL that was durable at a moment."""
        index = bisect_right(self.durable_s, at_s)
        return self.durable_lsns[index - 1] if index else 0

    # --- what becomes durable -----------------------------------------------------------------------------

    def _on_write(self, call: Call) -> None:
        path, data = PurePath(call.target), b"".join(call.strings)[: call.result]
        if path.name == "control.new":
            self._control, self._is_control_synced = data, False
        start = _segment_start(path)
        # Zeros are room made ahead, or what was cut off.
        if start is not None and data.strip(b"\0"):
            segment = self._segments.setdefault(start, _Segment())
            segment.written = call.numbers[-1] + len(data)
            segment.synced = min(segment.synced, call.numbers[-1])

    def _on_sync_begun(self, call: Call) -> None:
        start = _segment_start(PurePath(call.target))
        if start is not None:
            self._sync_covers[call.begun] = self._segments.setdefault(start, _Segment()).written

    def _on_sync(self, call: Call) -> None:
        path = PurePath(call.target)
        start = _segment_start(path)
        if path.name == "control.new":
            self._is_control_synced = True
        elif start is not None:
            segment = self._segments.setdefault(start, _Segment())
            segment.synced = max(segment.synced, self._sync_covers.pop(call.begun, 0))
        elif path.name == "wal":
            for segment in self._segments.values():
                segment.name_is_durable = True
        elif path == self._control_folder:
            self._term = self._renamed_term
        self._note_durable(call.end_s)

    def _on_rename(self, call: Call) -> None:
        old, new = (PurePath(name.decode()) for name in call.strings)
        if new.name == "control":
            if not self._is_control_synced:
                self.breaches.append(f"{self.name}: the control file was renamed before it was synced")
            payload = self._control[SEALED_HEAD_BYTES:-SEALED_SUM_BYTES]
            self._renamed_term, self._control_folder = decode_control(payload).term, new.parent
        start = _segment_start(new)
        if start is not None and old.name == "spare":
            self._segments[start] = _Segment()

    def _note_durable(self, at_s: float) -> None:
        self.durable_s.append(at_s)
        self.durable_lsns.append(self._durable_lsn())

    def _durable_lsn(self) -> int:
        """The end of what is durable without a gap."""
        starts = sorted(self._segments)
        for start, following in pairwise([*starts, -1]):
            segment = self._segments[start]
            if not segment.name_is_durable:
                return start
            if segment.synced < SEGMENT_BYTES or following != start + SEGMENT_BYTES:
                return start + segment.synced
        return 0

    # --- what is promised ---------------------------------------------------------------------------------

    def _on_send(self, call: Call) -> None:
        stream = self._streams.setdefault(call.target, bytearray())
        sent = b"".join(call.strings)[: call.result]
        if sent == b"N" and not stream:
            return  # The answer to "TLS?": no. The only byte that is not part of a message.
        stream += sent
        while (payload := _next_copy_data(stream)) is not None:
            if payload[:1] == b"r":
                _, _, flush_lsn, _ = STATUS_UPDATE.unpack_from(payload)
                self.acknowledged.append((call.end_s, flush_lsn))
                continue
            try:
                self._check(decode(bytes(payload)))
            except MessageMalformed:
                continue  # Of the replication protocol: it promises nothing to peers.

    def _check(self, message: Message) -> None:
        match message:
            case Greeting():
                self._expect(message, message.flush_lsn, 0)  # Its term is no vote.
            case AppendReply():
                self._expect(message, message.flush_lsn, message.term)
            case VoteReply() if message.is_granted and not message.is_pre:
                self._expect(message, message.flush_lsn, message.asked_term)
            case VoteRequest() if not message.is_pre:
                # Who asks for votes has given itself its own.
                self._expect(message, message.flush_lsn, message.term)
            case _:
                pass

    def _expect(self, message: Message, flush_lsn: Lsn, term: int) -> None:
        kind = type(message).__name__
        self.seen[kind] = self.seen.get(kind, 0) + 1
        if flush_lsn > (durable := self._durable_lsn()):
            self.breaches.append(f"{self.name}: {kind} names {flush_lsn}, durable was {Lsn(durable)}")
        if term > self._term:
            self.breaches.append(f"{self.name}: {kind} of term {term}, durable was {self._term}")


def acknowledged_too_early(nodes: list[Node], quorum: int) -> list[str]:
    """Positions that the primary was told before ``quorum`` nodes had them durable."""
    early = []
    for node in nodes:
        for at_s, lsn in node.acknowledged:
            holders = sum(other.durable_at(at_s) >= lsn for other in nodes)
            if lsn and holders < quorum:
                early.append(f"{node.name} told the primary {Lsn(lsn)}: durable on {holders}")
    return early


def _is_send(call: Call) -> bool:
    return call.target.startswith("TCP") and call.name in ("sendto", "sendmsg", "write", "writev")


def _segment_start(path: PurePath) -> int | None:
    name = path.name.removesuffix(".partial")
    if path.parent.name != "wal" or len(name) != 24:
        return None
    return parse_segment_name(name, SEGMENT_BYTES)[1]


def _next_copy_data(stream: bytearray) -> bytearray | None:
    """The next CopyData's payload off the front of a stream; other messages are dropped."""
    while len(stream) >= 5:
        # A client's first packet has no type: its length, below 64 KiB, comes first.
        skip = 0 if stream[0] == 0 else 1
        size = int.from_bytes(stream[skip : skip + 4]) + skip
        assert size >= 4, f"not a message of the protocol: {bytes(stream[:16])!r}"
        if len(stream) < size:
            return None
        tag, payload = stream[0], stream[5:size]
        del stream[:size]
        if skip and tag == COPY_DATA:
            return payload
    return None
