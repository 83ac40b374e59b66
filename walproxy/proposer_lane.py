"""ProposerLane: the primary's WAL is replicated, synced, counted and acknowledged by native code."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from walcore._native import LeadLane
from walproxy.follow import PrimaryFollower
from walproxy.opening import NativeScanner
from walproxy.ports import CopyStream, LendableCopy, LendableUpstream, LentFile, WalStore
from walproxy.quorum.acceptor import SteadyLog
from walproxy.quorum.errors import MessageMalformed, MessageRefused
from walproxy.quorum.messages import PROTOCOL_VERSION, parse_needs
from walproxy.quorum.peer import Peer
from walproxy.quorum.replica import Replica
from walproxy.quorum.steady import SteadyTerm
from walproxy.wire.lsn import Lsn

_LSN_MAX: Final = Lsn((1 << 64) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Lent:
    """A peer whose stream is lent. Equal are those of the same peer and stream, whatever is known of it."""

    name: str
    peer: Peer
    stream: LendableCopy

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Lent) and self.peer is other.peer and self.stream is other.stream

    __hash__ = None  # type: ignore[assignment]


class ProposerLane:
    """A proposer that streams: lent are the primary's stream, those of its peers, one segment file. See `Lane`.

    A peer that lacks more than that file and the one before is left to Python, which wakes whenever it answers.
    """

    def __init__(
        self,
        replica: Replica,
        store: WalStore,
        follower: PrimaryFollower,
        streams: Mapping[str, CopyStream],
        *,
        term: SteadyTerm,
        upstream: LendableUpstream,
        oldest_lsn: Lsn,
    ) -> None:
        self._replica = replica
        self._store = store
        self._follower = follower
        self._streams = streams
        self._term = term
        self._upstream = upstream
        self._oldest_lsn = oldest_lsn
        self._write_lsn = replica.acceptor.write_lsn
        self._known: tuple[Lsn, Lsn, Lsn, list[int]] | None = None
        self._appends = self._messages = 0
        self._lent: list[Lent] = []
        self._native: LeadLane

    @classmethod
    def begin(
        cls,
        replica: Replica,
        store: WalStore,
        follower: PrimaryFollower,
        streams: Mapping[str, CopyStream],
        *,
        event_loop: int,
    ) -> "ProposerLane | None":
        """Lend all that it takes; None if anything is not at rest, or the log's next byte begins another file.

        `streams` are the connections to the peers' acceptors, by name.

        Raises:
            OSError: no more descriptors can be had; nothing is lent.
        """
        log, term, upstream = replica.acceptor.steady(), replica.proposer.steady(), follower.lendable
        if log is None or term is None or upstream is None or not upstream.can_be_lent:
            return None
        if upstream.next_lsn != replica.acceptor.write_lsn or (file := store.lend(log.tli)) is None:
            return None
        peers = replica.proposer.peers.values()
        is_behind = any(peer.is_streaming and peer.next_lsn < file.start_lsn for peer in peers)
        before = store.lend_before(log.tli) if is_behind else None
        try:
            oldest_lsn = file.start_lsn if before is None else before.start_lsn
            lane = cls(replica, store, follower, streams, term=term, upstream=upstream, oldest_lsn=oldest_lsn)
            return lane if lane._lend(log, file, before, event_loop) else None
        finally:
            if before is not None:
                os.close(before.fd)

    def _joining(self) -> list[Lent] | None:
        """The peers whose streams could be lent now, or are; None if one of them never can be.

        Such a one would hear of WAL only when Python wakes.
        """
        joining = []
        lent = {id(one.peer) for one in self._lent}
        for name, peer in self._replica.proposer.peers.items():
            stream = self._streams.get(name)
            if not peer.is_streaming or stream is None:
                continue
            if not isinstance(stream, LendableCopy) or not stream.is_lendable:
                return None
            is_near = peer.next_lsn >= self._oldest_lsn and self._replica.proposer.knows_all(peer)
            if id(peer) in lent or (is_near and stream.can_be_lent):
                joining.append(Lent(name, peer, stream))
        return joining

    def _lend(self, log: SteadyLog, file: LentFile, before: LentFile | None, event_loop: int) -> bool:
        """False if it cannot be, or those that can be lent are no majority."""
        assert isinstance(log.scanner, NativeScanner)
        acceptor, proposer, term = self._replica.acceptor, self._replica.proposer, self._term
        joining, voters = self._joining(), proposer.voting_peers
        names = {proposer.name, *(one.name for one in joining or ())}
        if joining is None or not acceptor.state.membership.has_quorum(names):
            return False
        stream = self._upstream.lend(partial(self._send, 0))
        sockets = [one.stream.lend(partial(self._send, at)) for at, one in enumerate(joining, start=1)]
        # The byte that fills a segment is Python's: names change there.
        room = min(file.end_lsn - 1, _LSN_MAX if acceptor.room_end_lsn is None else acceptor.room_end_lsn)
        try:
            self._native = LeadLane(
                event_loop=event_loop,
                primary=stream.fd,
                begun=stream.begun,
                peers=[
                    (fd, begun, one.name in voters, p.next_lsn, p.write_lsn, p.flush_lsn, p.sent_commit_lsn)
                    for (fd, begun), one in zip(sockets, joining, strict=True)
                    for p in (one.peer,)
                ],
                file=file.fd,
                file_start_lsn=file.start_lsn,
                before=None if before is None else (before.fd, before.start_lsn),
                scanner=log.scanner.native,
                version=PROTOCOL_VERSION,
                generation=term.generation,
                term=term.term,
                tli=log.tli,
                write_lsn=acceptor.write_lsn,
                flush_lsn=acceptor.durable_flush_lsn,
                room_end_lsn=room,
                term_start_lsn=term.start_lsn,
                commit_lsn=proposer.known_commit_lsn,
                horizon_lsn=proposer.told_horizon_lsn,
                reported_lsn=stream.reported_lsn,
                primary_end_lsn=stream.primary_end_lsn,
                majority=term.majority,
                others=[],  # `run` says it.
                window_bytes=term.window_bytes_max,
                commit_delay_s=term.commit_delay_s,
            )
        except OSError:
            self._upstream.take_back(stream.begun, b"")
            for (_, begun), one in zip(sockets, joining, strict=True):
                one.stream.take_back(begun, b"")
            raise
        self._lent = joining
        for one in joining:
            one.peer.is_lent = True
        return True

    def _send(self, at: int, payload: bytes) -> None:
        self._native.send(at, payload)

    @property
    def is_steady(self) -> bool:
        acceptor = self._replica.acceptor
        return (
            self._replica.proposer.steady() == self._term
            and acceptor.write_lsn == self._write_lsn
            and acceptor.steady() is not None
            and self._follower.lendable is self._upstream
            and self._joining() == self._lent
        )

    def run(self, timeout_s: float | None, *, wakes_at_commit: bool) -> bool:
        known = self._knows()
        if known != self._known:
            self._known = known
            self._native.set_known(*known)
        return self._native.run(timeout_s, wakes_at_commit)

    def _knows(self) -> tuple[Lsn, Lsn, Lsn, list[int]]:
        """What Python alone knows: horizon, commit LSN, what the primary was told, and how far the other voters are."""
        proposer = self._replica.proposer
        here = {proposer.name, *(one.name for one in self._lent)}
        others = [int(peer.flush_lsn) for name, peer in proposer.voting_peers.items() if name not in here]
        return (
            proposer.told_horizon_lsn,
            proposer.known_commit_lsn,
            self._follower.reported_lsn,
            others,
        )

    @property
    def is_disk_slow(self) -> bool:
        return self._native.is_slow

    def bring_up_to_date(self, now_s: float) -> int:
        native, proposer = self._native, self._replica.proposer
        write, flush, last_record, commit = map(Lsn, native.positions)
        for one, known in zip(self._lent, native.peers(), strict=True):
            next_lsn, write_lsn, flush_lsn, told_lsn, heard_s, sent_s, needs = known
            one.peer.next_lsn = Lsn(next_lsn)
            if sent_s is not None:
                one.peer.sent_s, one.peer.sent_commit_lsn = now_s - sent_s, Lsn(told_lsn)
            if heard_s is not None:
                proposer.on_heard(one.name, Lsn(write_lsn), Lsn(flush_lsn), now_s - heard_s)
            if needs is not None:
                self._note_needs(one, needs)
        appends, self._appends = self._appends, native.appends
        if self._appends != appends:
            self._write_lsn = write
            self._store.on_written(write)
        proposer.on_led(write, flush, last_record, commit_lsn=commit, now_s=now_s)
        primary_end, messages, reported = native.primary
        # One that we do not read for lack of room is not silent.
        heard = messages - self._messages + (not native.has_room)
        self._upstream.on_taken(write, Lsn(primary_end), heard, Lsn(reported))
        self._messages = messages
        self._follower.on_led(Lsn(primary_end), Lsn(reported), now_s)
        return self._appends - appends

    @staticmethod
    def _note_needs(one: Lent, needs: bytes) -> None:
        try:
            one.peer.feedback, one.peer.slots = parse_needs(needs)
        except MessageMalformed as error:
            one.stream.fail(error)

    def give_back(self, now_s: float) -> None:
        native = self._native
        for at, one in enumerate(self._lent, start=1):
            one.peer.is_lent = False
            one.stream.take_back(native.rest(at), native.unsent(at))
        damage = native.damage
        if damage is None:
            self._upstream.take_back(native.rest(0), native.unsent(0))
        else:
            self._replica.on_damage(now_s)
            self._upstream.fail(MessageRefused(f"wal is damaged: {damage}"))
        self._replica.proposer.on_lane_ended(now_s)

    def holds(self, stream: object) -> bool:
        return any(stream is one.stream for one in self._lent)
