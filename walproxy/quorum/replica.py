"""Replica: one member whole, its acceptor and its proposer, as the driver and the simulation hold it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.errors import MessageRefused
from walproxy.quorum.messages import (
    Append,
    AppendReply,
    Elected,
    Greeting,
    HistoryFile,
    Message,
    VoteReply,
    VoteRequest,
)
from walproxy.quorum.proposer import Proposer, Role, Timing, WalRange
from walproxy.wire.lsn import Lsn


@dataclass(frozen=True, slots=True)
class Ready:
    """Work for the driver.

    `requests` go to the acceptors of peers, at once and before `disk` is done: they promise nothing of our
    own
    disk. Then `disk`, field by field; then `Replica.on_done(disk)`, which gives the answers to send.
    """

    requests: tuple[tuple[str, Message | WalRange], ...]
    disk: DiskWork | None


class Replica:
    """Joins the acceptor and the proposer of one member; messages between the two never leave it."""

    def __init__(
        self,
        acceptor: Acceptor,
        *,
        histories: Callable[[], Mapping[int, bytes]],
        timing: Timing,
        now_s: float,
        draw: float,
        window_bytes_max: int = 8 << 20,
        chunk_bytes_max: int = 256 << 10,
    ) -> None:
        self.acceptor = acceptor
        self.proposer = Proposer(
            acceptor,
            histories=histories,
            timing=timing,
            window_bytes_max=window_bytes_max,
            chunk_bytes_max=chunk_bytes_max,
            now_s=now_s,
            draw=draw,
        )
        self.has_disk_work_out = False

    @property
    def name(self) -> str:
        return self.acceptor.name

    @property
    def is_proposing(self) -> bool:
        return self.proposer.role is Role.PROPOSING

    @property
    def leader(self) -> str:
        """Who leads, as far as we know; empty if nobody."""
        return self.name if self.is_proposing else self.acceptor.leader

    # --- what comes in ---------------------------------------------------------------------------------

    def on_request(self, peer: str, message: Message, now_s: float) -> None:
        """A message to our acceptor. Raises MessageRefused: close that connection."""
        match message:
            case Append():
                self.acceptor.on_append(peer, message, now_s)
            case Greeting():
                self.acceptor.on_greeting(peer, message)
            case VoteRequest():
                self.acceptor.on_vote_request(peer, message, now_s)
            case Elected():
                self.acceptor.on_elected(peer, message, now_s)
            case HistoryFile():
                self.acceptor.on_history(peer, message)
            case VoteReply() | AppendReply():
                raise MessageRefused("not a message to an acceptor", peer=peer, kind=type(message).__name__)
        self._notice_leader(now_s)

    def on_answer(self, peer: str, message: Message, now_s: float, draw: float) -> None:
        """A message to our proposer. Raises MessageRefused: close that connection."""
        match message:
            case AppendReply():
                if self.proposer.on_append_reply(peer, message, now_s):
                    self.acceptor.on_commit(self.proposer.commit_lsn)
            case Greeting():
                self.proposer.on_greeting(peer, message, now_s)
            case VoteReply():
                self.proposer.on_vote_reply(peer, message, now_s, draw)
            case VoteRequest() | Elected() | Append() | HistoryFile():
                raise MessageRefused("not a message to a proposer", peer=peer, kind=type(message).__name__)
        self._notice_leader(now_s)

    def _notice_leader(self, now_s: float) -> None:
        """Our two halves agree on who leads."""
        proposer, acceptor = self.proposer, self.acceptor
        if self.is_proposing and acceptor.state.term > proposer.term:
            proposer.become_following()
        if not self.is_proposing and acceptor.leader == self.name:
            acceptor.on_leader_lost(self.name)
        is_standing = proposer.role is Role.ASKING or proposer.role is Role.STANDING
        if is_standing and acceptor.hears_leader(now_s):
            proposer.become_following()

    def on_primary_wal(self, start_lsn: Lsn, wal: bytes, now_s: float) -> None:
        """New WAL from the primary, at most `WAL_BYTES_MAX`, all of one timeline.

        Raises:
            MessageRefused: it is not what follows our log; nothing of it was taken. Connect anew.
        """
        if not self.is_proposing:
            return
        try:
            self.acceptor.on_append(self.name, self.proposer.append(start_lsn, wal), now_s)
        except MessageRefused:
            self.proposer.on_bad_wal(now_s)
            raise

    def on_leader_lost(self, peer: str, now_s: float, draw: float) -> None:
        """The connection on which that peer spoke to our acceptor ended."""
        if self.acceptor.leader == peer:
            self.acceptor.on_leader_lost(peer)
            self.proposer.on_leader_lost(now_s, draw)

    def tick(self, now_s: float, draw: float) -> None:
        self.proposer.tick(now_s, draw)
        if self.is_proposing:
            # The others learn it from heartbeats; our own half must, too, when no WAL comes.
            self.acceptor.horizon_lsn = self.proposer.told_horizon_lsn
        self._notice_leader(now_s)

    # --- what goes out ---------------------------------------------------------------------------------

    def ready(self, now_s: float) -> Ready | None:
        """All work there is now; None if there is none. Disk work only if none is out."""
        requests: list[tuple[str, Message | WalRange]] = []
        for to, message in self.proposer.take(now_s):
            if to != self.name:
                requests.append((to, message))
            elif not isinstance(message, WalRange):
                self.on_request(to, message, now_s)
        disk = None
        if not self.has_disk_work_out:
            disk = self.acceptor.ready()
            self.has_disk_work_out = disk is not None
        return Ready(tuple(requests), disk) if requests or disk else None

    def on_done(self, disk: DiskWork, now_s: float, draw: float) -> tuple[tuple[str, Message], ...]:
        """The disk work is durable: gives the answers to send to peers' proposers."""
        self.has_disk_work_out = False
        self.acceptor.on_done(disk)
        answers = []
        for to, message in disk.answers:
            if to == self.name:
                self.on_answer(to, message, now_s, draw)
            else:
                answers.append((to, message))
        return tuple(answers)
