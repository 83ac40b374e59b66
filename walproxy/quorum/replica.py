"""Replica: one member whole, its acceptor and its proposer, as the driver and the simulation hold it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.errors import HandoverRefused, MessageRefused
from walproxy.quorum.handover import check_versions, choose_successor
from walproxy.quorum.membership import Contact
from walproxy.quorum.messages import (
    Append,
    AppendReply,
    Elected,
    Greeting,
    HistoryFile,
    Message,
    StandNow,
    VoteReply,
    VoteRequest,
)
from walproxy.quorum.proposer import Proposer
from walproxy.quorum.role import Role
from walproxy.quorum.terms import Seal
from walproxy.quorum.timing import Timing
from walproxy.quorum.walrange import WalRange
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
        self._generation = acceptor.generation

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

    @property
    def peers_to_dial(self) -> tuple[str, ...]:
        """All other members; nobody for one that does not belong to the group. Source: docs/quorum.md rule 19."""
        return self.proposer.others if self.acceptor.is_member else ()

    # --- what comes in ---------------------------------------------------------------------------------

    def on_request(self, peer: str, message: Message, now_s: float) -> None:
        """A message to our acceptor. Raises MessageRefused: close that connection."""
        match message:
            case Append():
                self.acceptor.on_append(peer, message, now_s)
            case Greeting():
                self.acceptor.on_greeting(peer, message)
            case VoteRequest():
                if self.acceptor.on_vote_request(peer, message, now_s) and peer != self.name:
                    self.proposer.on_vote_given(now_s)
            case Elected():
                self.acceptor.on_elected(peer, message, now_s)
            case HistoryFile():
                self.acceptor.on_history(peer, message)
            case StandNow():
                self._stand_now(peer, message, now_s)
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
            case VoteRequest() | Elected() | Append() | HistoryFile() | StandNow():
                raise MessageRefused("not a message to a proposer", peer=peer, kind=type(message).__name__)
        self._notice_leader(now_s)

    def _stand_now(self, peer: str, message: StandNow, now_s: float) -> None:
        """Source: docs/quorum.md rule 27."""
        self.acceptor.check_stand_now(peer, message)
        self.acceptor.on_leader_lost(peer)  # It says no more; what is heard of it from now on is old.
        if self.proposer.role is Role.FOLLOWING and self.acceptor.is_voter:
            self.proposer.stand_at_once(now_s, 0.0)

    def change_members(self, wanted: tuple[str, ...], contacts: tuple[Contact, ...], now_s: float) -> None:
        """As `Proposer.change_members`."""
        self.proposer.change_members(wanted, contacts, now_s)
        self._notice_membership()

    def _notice_membership(self) -> None:
        """Our two halves agree on who belongs to the group, however we learned it."""
        if self._generation != self.acceptor.generation:
            self._generation = self.acceptor.generation
            self.proposer.on_membership()

    def _notice_leader(self, now_s: float) -> None:
        """Our two halves agree on who leads."""
        self._notice_membership()
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
        if not self.proposer.wants_primary:
            raise MessageRefused("wal comes while the log is handed over", at=start_lsn)
        try:
            self.acceptor.on_append(self.name, self.proposer.append(start_lsn, wal), now_s)
        except MessageRefused:
            self.proposer.on_bad_wal(now_s)
            raise

    def on_damage(self, now_s: float) -> None:
        """What the native lane was to take of the primary is not WAL. As `on_primary_wal` that was refused."""
        self.acceptor.on_damage()
        self.proposer.on_bad_wal(now_s)

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

    # --- what an operator asks for ---------------------------------------------------------------------

    def transfer(self, to: str | None, now_s: float) -> str:
        """Hand over to that member, or to the one that holds most; gives its name.

        Source: docs/quorum.md rule 27.

        Raises:
            HandoverRefused: nothing was changed.
        """
        self._check_free()
        name = choose_successor(self.proposer.voting_peers, self.name, to)
        self.proposer.hand_over(name, now_s)
        return name

    def seal(self, now_s: float, draw: float) -> None:
        """End the log where it ends now. Source: docs/quorum.md rule 25. Raises HandoverRefused."""
        check_versions(self.proposer.peers)
        self._begin_term(Seal.SEALED, now_s, draw)

    def unseal(self, now_s: float, draw: float) -> None:
        """Let the log go on. Source: docs/quorum.md rule 25. Raises HandoverRefused."""
        self._begin_term(Seal.OPEN, now_s, draw)

    def _begin_term(self, seal: Seal, now_s: float, draw: float) -> None:
        self._check_free()
        if self.acceptor.record_end_lsn == self.acceptor.state.log_start_lsn:
            raise HandoverRefused("there is no wal yet")
        self.proposer.stand_at_once(now_s, draw, seal)

    def _check_free(self) -> None:
        if not self.is_proposing:
            raise HandoverRefused("this member is not the proposer")
        if self.proposer.successor is not None:
            raise HandoverRefused("another hand-over is under way")

    # --- what goes out ---------------------------------------------------------------------------------

    def ready(self, now_s: float) -> Ready | None:
        """All work there is now; None if there is none. Disk work only if none is out."""
        self._notice_membership()
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
