"""Proposer: stands for election, streams the log to every member, and says how far it is committed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.change import unheeded_learners
from walproxy.quorum.commit import commit_lsn
from walproxy.quorum.errors import MessageRefused, PrimaryRefused
from walproxy.quorum.handover import Successor
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
from walproxy.quorum.peer import Peer
from walproxy.quorum.primary import PrimaryIdentity, StreamPlan, plan_first_stream, plan_stream
from walproxy.quorum.retention import needed_lsn
from walproxy.quorum.role import Role
from walproxy.quorum.state import Cluster
from walproxy.quorum.steady import SteadyLead
from walproxy.quorum.terms import Seal, TermHistory, common_lsn
from walproxy.quorum.timing import Timing
from walproxy.quorum.walrange import WalRange
from walproxy.wire.lsn import INVALID_LSN, Lsn, segment_start

_NEVER_S: Final = float("-inf")
# A peer that does not answer for so many election timeouts gets heartbeats, and those more rarely.
_STUCK_TIMEOUTS: Final = 4
_STUCK_SLOWER: Final = 10
_ANSWERS = (AppendReply, VoteReply, Greeting)  # A union would be made anew at each look.


class Proposer(SteadyLead):
    """One member's attempts to lead, and its leading.

    The log it proposes is that of the acceptor beside it, which it reads and never changes; what it says to
    that acceptor goes through messages, as to all the others.

    Args:
        log: the acceptor of the same member.
        histories: gives the timeline history files of the log, by tli.
        window_bytes_max: how much WAL may be under way to one peer.
        chunk_bytes_max: of one Append.
        now_s: the driver's monotonic clock.
        draw: a random number in [0, 1).
    """

    def __init__(
        self,
        log: Acceptor,
        *,
        histories: Callable[[], Mapping[int, bytes]],
        timing: Timing,
        window_bytes_max: int,
        chunk_bytes_max: int,
        now_s: float,
        draw: float,
    ) -> None:
        self.role = Role.FOLLOWING
        self.term = 0  # The term we stand or propose in.
        self.term_start_lsn = INVALID_LSN
        self.commit_lsn = INVALID_LSN  # Of our own counting, in this term.
        self.term_history = TermHistory()
        self.primary: PrimaryIdentity | None = None
        self.peers: dict[str, Peer] = {}
        self.successor: Successor | None = None  # To whom we hand over.
        self.new_seal: Seal | None = None  # How the term that we stand for is to begin.
        self._log = log
        self._histories = histories
        self._timing = timing
        self._window_bytes_max = window_bytes_max
        self._chunk_bytes_max = chunk_bytes_max
        self._term_max = 0
        self._granted: set[str] = set()
        self._tli = 0
        is_alone = len(log.state.membership.everyone) == 1
        self._patience_s = timing.election_timeout_s * (1 + draw)
        # Not before this time do we stand, whatever is heard or not.
        self._stand_s = now_s + (0.0 if is_alone else timing.election_timeout_s * (0.3 + 0.7 * draw))
        self._quorum_s = now_s
        self._commit_due_s: float | None = None
        self.told_horizon_lsn = log.horizon_lsn
        self._silent_learners: set[str] = set()
        self._outbox: list[tuple[str, Message | WalRange]] = []

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(name for name in self._log.state.membership.everyone if name != self.name)

    def peer(self, name: str) -> Peer:
        found = self.peers.get(name)
        if found is None:
            found = self.peers[name] = Peer()
        return found

    @property
    def other_peers(self) -> list[Peer]:
        return [peer for name, peer in self.peers.items() if name != self.name]

    @property
    def wants_primary(self) -> bool:
        """The driver should have a connection to the primary.

        The proposer streams from it; members without any log must know whose WAL they will hold before one
        stands. Whoever hands over takes no more of it.
        """
        if self.role is Role.PROPOSING:
            return self.successor is None
        return self._log.write_lsn == INVALID_LSN and not self._log.leader and self._log.is_voter

    # --- time ------------------------------------------------------------------------------------------

    @property
    def deadline_s(self) -> float:
        """`tick` wants to be called then."""
        if self.role is Role.FOLLOWING and self._log.leader:
            return max(self._stand_s, self._log.leader_heard_s + self._patience_s)
        if self.role is not Role.PROPOSING:
            return self._stand_s
        due_s = self._quorum_s + self._timing.election_timeout_s
        if self.successor is not None:
            due_s = min(due_s, self.successor.until_s)
        for peer in self.peers.values():
            if peer.is_connected:
                due_s = min(due_s, peer.sent_s + self._heartbeat_s(peer))
        return due_s if self._commit_due_s is None else min(due_s, self._commit_due_s)

    def tick(self, now_s: float, draw: float) -> None:
        """Time has passed.

        Args:
            now_s: the driver's monotonic clock.
            draw: a random number in [0, 1).
        """
        if self.role is Role.PROPOSING:
            self._tick_proposing(now_s, draw)
        elif now_s >= self.deadline_s:
            self._patience_s = self._timing.election_timeout_s * (1 + draw)
            self._ask(now_s, draw)

    def _tick_proposing(self, now_s: float, draw: float) -> None:
        timeout_s = self._timing.election_timeout_s
        heard = self._heard(now_s)
        if self._log.state.membership.has_quorum(heard | {self.name}):
            self._quorum_s = now_s
        elif now_s - self._quorum_s >= timeout_s:
            self.step_aside(now_s, draw)
            return
        if self.successor is not None and now_s >= self.successor.until_s:
            self.successor = None  # It did not come: we go on.
        learners = self._log.state.membership.learners
        self._silent_learners = {name for name in learners if name not in heard}
        # It may lag: it costs a little disk, and counting it anew for each Append costs time.
        self.told_horizon_lsn = self.horizon_lsn()
        is_commit_due = self._commit_due_s is not None and now_s >= self._commit_due_s
        if is_commit_due:
            self._commit_due_s = None
        for name, peer in self.peers.items():
            silent_s = now_s - peer.sent_s
            peer.is_stuck = _NEVER_S < peer.heard_s < now_s - _STUCK_TIMEOUTS * timeout_s
            is_silent = silent_s >= self._heartbeat_s(peer)
            is_behind = (
                peer.is_streaming and not peer.is_stuck and peer.sent_commit_lsn < self.known_commit_lsn
            )
            has_news = is_commit_due and is_behind
            if has_news and not is_silent and silent_s < self._timing.commit_delay_s:
                self._commit_due_s = now_s + self._timing.commit_delay_s
            elif peer.is_streaming and (is_silent or has_news):
                self._send_range(name, peer, peer.next_lsn, now_s)
            elif peer.is_connected and is_silent:
                peer.sent_s = now_s
                self._outbox.append((name, self._log.introduction()))
        self._maybe_continue_change(now_s)  # Last: what was said before is of the generation of before.

    def _heartbeat_s(self, peer: Peer) -> float:
        """How long we may say nothing. To one that does not listen not much: it would pile up before it."""
        return self._timing.heartbeat_interval_s * (_STUCK_SLOWER if peer.is_stuck else 1)

    def on_leader_lost(self, now_s: float, draw: float) -> None:
        """The proposer's connection ended: do not wait out the silence. Source: docs/quorum.md rule 4."""
        if self.role is Role.FOLLOWING:
            self._stand_s = now_s + self._timing.election_timeout_s * 0.15 * draw

    def on_vote_given(self, now_s: float) -> None:
        """Another has our vote: leave it the time to win. Source: docs/quorum.md rule 4."""
        self.become_following()
        self._stand_s = max(self._stand_s, now_s + self._timing.election_timeout_s * 0.5)

    # --- election --------------------------------------------------------------------------------------

    def _ask(self, now_s: float, draw: float) -> None:
        """Ask everyone, without any effect on them, whether an election would be won."""
        timeout_s = self._timing.election_timeout_s
        self._stand_s = now_s + timeout_s * (0.2 + 0.3 * draw)
        if not self._log.is_voter or (self._log.write_lsn == INVALID_LSN and self.primary is None):
            self.become_following()
            return
        self.role = Role.ASKING
        self.successor = self.new_seal = None
        self.term = max(self._term_max, self._log.state.term) + 1
        self._granted = set()
        self._request_votes((*self.others, self.name), is_pre=True)

    def _request_votes(self, names: tuple[str, ...], *, is_pre: bool) -> None:
        for name in names:
            peer = self.peers.get(name)
            if name == self.name or (peer and peer.is_connected and peer.greeting):
                request = VoteRequest(
                    self._log.generation, self.term, is_pre, self._log.last_log_term, self._log.record_end_lsn
                )
                self._outbox.append((name, request))

    def on_vote_reply(self, name: str, message: VoteReply, now_s: float, draw: float) -> None:
        """Count a vote. Source: docs/quorum.md rules 3, 4, 6 and 8."""
        self._hear(name, message, now_s)
        if message.generation != self._log.generation:
            return  # What counts as a majority has changed since.
        if message.asked_term != self.term or message.is_pre != (self.role is Role.ASKING):
            return
        if self.role not in {Role.ASKING, Role.STANDING}:
            return
        if not message.is_granted:
            if (message.last_log_term, message.flush_lsn) > (
                self._log.last_log_term,
                self._log.record_end_lsn,
            ):
                # A better log is alive: leave it the time to win.
                self._stand_s = now_s + self._timing.election_timeout_s * (0.5 + 0.5 * draw)
            elif self.role is Role.STANDING:
                # The vote may be split: try again before the others would.
                again_s = now_s + self._timing.election_timeout_s * (0.05 + 0.3 * draw)
                self._stand_s = min(self._stand_s, again_s)
            return
        self._granted.add(name)
        if self.role is Role.STANDING and name == self.name:
            # Only now is our own vote durable and our own log at rest (docs/quorum.md rule 6).
            self._request_votes(self.others, is_pre=False)
        if not self._log.state.membership.has_quorum(self._granted):
            return
        if self.role is Role.ASKING:
            self.role = Role.STANDING
            self._granted = set()
            self._stand_s = now_s + self._timing.election_timeout_s * (0.5 + 0.5 * draw)
            self._request_votes((self.name,), is_pre=False)
        elif self.name in self._granted:
            self._become_proposing(now_s)

    def stand_at_once(self, now_s: float, draw: float, new_seal: Seal | None = None) -> None:
        """Without asking first: whoever leads, perhaps ourselves, wants it so. Source: rules 25 to 27."""
        self.become_following()
        self.role, self.new_seal = Role.STANDING, new_seal
        self.term = max(self._term_max, self._log.state.term) + 1
        self._stand_s = now_s + self._timing.election_timeout_s * (0.5 + 0.5 * draw)
        self._request_votes((self.name,), is_pre=False)

    def hand_over(self, to: str, now_s: float) -> None:
        """Take no more WAL; as soon as `to` holds all of ours, tell it to stand. Source: rule 27."""
        self.successor = Successor(to, now_s + self._timing.election_timeout_s)
        self._maybe_tell_successor()

    def _maybe_tell_successor(self) -> None:
        to = self.successor
        if to and not to.is_told and self.peer(to.name).flush_lsn >= self._log.record_end_lsn:
            self.successor = replace(to, is_told=True)
            self._outbox.append((to.name, StandNow(self._log.generation, self.term)))

    def _become_proposing(self, now_s: float) -> None:
        log = self._log
        start, tli, history = log.record_end_lsn, log.state.term_history.last_tli, log.state.term_history
        if start == INVALID_LSN:
            assert self.primary is not None
            plan = plan_first_stream(self.primary)
            start, tli = plan.start_lsn, plan.tli
        held, seal = history.up_to(start), self.new_seal
        if seal is None:  # A seal stays until a timeline begins there, or a term is to open the log again.
            seal = Seal.SEALED if held.sealed_lsn else Seal.OPEN
        self.role = Role.PROPOSING
        self.successor = self.new_seal = None
        self.term_start_lsn = start
        self.commit_lsn = INVALID_LSN
        self.term_history = held.with_entry(self.term, tli, start, seal)
        self._quorum_s = now_s
        self._commit_due_s = None
        self.told_horizon_lsn = log.horizon_lsn
        for peer in self.peers.values():
            peer.is_streaming, peer.flush_lsn, peer.generation = False, INVALID_LSN, 0
        self._greet_elected(self.name, now_s)
        for name in self.others:
            peer = self.peer(name)
            if peer.is_connected:
                peer.sent_s = now_s
                # Where it stood when we met is long past.
                self._outbox.append((name, self._log.introduction()))

    def become_following(self) -> None:
        """Propose no more; wait."""
        self.role = Role.FOLLOWING
        self.successor = self.new_seal = None
        self._granted = set()
        self.primary = None if self._log.write_lsn else self.primary
        for peer in self.peers.values():
            peer.is_streaming, peer.flush_lsn, peer.generation = False, INVALID_LSN, 0

    def step_aside(self, now_s: float, draw: float) -> None:
        """Leave it to another: no majority is in reach. Source: docs/quorum.md rule 14."""
        self.become_following()
        self._stand_s = now_s + self._timing.election_timeout_s * (1 + draw)

    # --- members ---------------------------------------------------------------------------------------

    def on_connected(self, name: str, now_s: float) -> None:
        """A connection to that member's acceptor is open."""
        known = self.peer(name)
        # What it needs is needed also while nobody hears of it.
        self.peers[name] = Peer(
            is_connected=True,
            sent_s=now_s,
            held_lsn=known.held_lsn,
            feedback=known.feedback,
            slots=known.slots,
        )
        self._outbox.append((name, self._log.introduction()))

    def on_disconnected(self, name: str) -> None:
        """It ended."""
        peer = self.peer(name)
        peer.is_connected = peer.is_streaming = False
        peer.greeting = None
        if name not in self._log.state.membership.everyone:
            del self.peers[name]

    def on_wal_removed(self, name: str, why: str) -> None:
        """WAL that a member needs is no longer on our disk: it cannot follow us, unless it may begin again."""
        peer = self.peer(name)
        peer.is_streaming = False
        if name not in self._log.state.membership.learners:
            peer.refused = why

    def on_greeting(self, name: str, message: Greeting, now_s: float) -> None:
        """A member says where its log stands: vote, or follow. Raises IdentityRefused."""
        self._log.check_identity(name, message)
        self._hear(name, message, now_s)
        peer = self.peer(name)
        is_new = peer.greeting is None
        peer.greeting = message
        # Never up: what else it needs, its slots, comes with its first reply of this term.
        peer.held_lsn = min(peer.held_lsn, message.flush_lsn)
        if self.role is Role.PROPOSING:
            if not peer.is_streaming:
                self._greet_elected(name, now_s)
        elif is_new and (self.role is Role.ASKING or self.name in self._granted):
            self._request_votes((name,), is_pre=self.role is Role.ASKING)

    def _greet_elected(self, name: str, now_s: float) -> None:
        """Tell a member who leads, and from where its log goes on. Source: docs/quorum.md rules 8 and 9."""
        peer = self.peer(name)
        if name == self.name:
            start = self._log.record_end_lsn or self.term_start_lsn
        elif peer.greeting is None or not peer.is_connected:
            return
        else:
            start = self._start_for(peer.greeting)
        local_start = self._log.state.local_start_lsn
        if start < local_start and self._log.write_lsn != INVALID_LSN:
            if name not in self._log.state.membership.learners:
                peer.refused = f"needs WAL from {start}, our oldest is {local_start}: it stays behind"
                return
            start = self._fresh_start()  # It begins again.
        self._outbox.append((name, self._elected(start)))
        if name == self.name:
            return
        # What it holds beyond there is not of this log, and will be cut.
        peer.held_lsn = min(peer.held_lsn, start)
        for tli, content in sorted(self._histories().items()):
            if tli <= self.term_history.last_tli:  # Others were announced, and came to nothing.
                self._outbox.append((name, HistoryFile(self._log.generation, self.term, tli, content)))
        peer.is_streaming, peer.refused = True, ""
        peer.next_lsn = peer.write_lsn = start
        peer.told_entries = len(self.term_history.entries)
        peer.sent_s, peer.sent_commit_lsn = now_s, INVALID_LSN

    def _start_for(self, theirs: Greeting) -> Lsn:
        common = common_lsn(self.term_history, theirs.term_history, theirs.flush_lsn)
        return self._fresh_start() if common == INVALID_LSN else common

    def _fresh_start(self) -> Lsn:
        """Where an empty log begins: where our own does, but not with WAL that is let go already."""
        horizon = segment_start(self._log.horizon_lsn, self.cluster.segment_size)
        return max(self._log.state.local_start_lsn, horizon) or self.term_start_lsn

    def _restart_streams(self, now_s: float) -> None:
        """Cut the part of a record that every log may end with: its rest may come otherwise."""
        self._greet_elected(self.name, now_s)
        for name in self.others:
            peer = self.peer(name)
            if peer.is_streaming:
                peer.is_streaming, peer.sent_s = False, now_s
                self._outbox.append((name, self._log.introduction()))

    def _elected(self, start_lsn: Lsn) -> Elected:
        state = self._log.state
        return Elected(
            generation=self._log.generation,
            term=self.term,
            start_lsn=start_lsn,
            term_history=self.term_history,
            commit_lsn=self.known_commit_lsn,
            log_start_lsn=state.log_start_lsn or self.term_start_lsn,
            cluster=self.cluster,
        )

    @property
    def cluster(self) -> Cluster:
        """The one of our log or, before there is a log, of the primary."""
        known = self._log.state.cluster or (self.primary.cluster if self.primary else None)
        assert known is not None, "a proposer knows its cluster"
        return known

    def on_append_reply(self, name: str, message: AppendReply, now_s: float) -> bool:
        """A member tells how far it is. Gives True if the commit LSN moved."""
        self._hear(name, message, now_s)
        peer = self.peer(name)
        peer.feedback, peer.slots = message.feedback, message.slots
        if self.role is not Role.PROPOSING or message.term != self.term:
            return False
        if message.flush_lsn == INVALID_LSN:
            return False
        peer.write_lsn = message.write_lsn
        # Within a term an acceptor's flush LSN only grows, so a late reply is an understatement.
        peer.flush_lsn = max(peer.flush_lsn, message.flush_lsn)
        peer.held_lsn = peer.flush_lsn
        peer.generation = message.generation
        if self.successor is not None:
            self._maybe_tell_successor()
        return self._count(now_s)

    def _count(self, now_s: float) -> bool:
        """Source: docs/quorum.md rule 12."""
        flushed = {name: peer.flush_lsn for name, peer in self.peers.items()}
        reached = commit_lsn(flushed, self._log.state.membership, self.term_start_lsn)
        if reached <= self.commit_lsn:
            return False
        self.commit_lsn = reached
        if self._commit_due_s is None:
            self._commit_due_s = now_s + self._timing.commit_delay_s
        return True

    def _hear(self, name: str, message: Message, now_s: float) -> None:
        peer = self.peer(name)
        peer.heard_s, peer.is_stuck = now_s, False
        if not isinstance(message, _ANSWERS):
            raise MessageRefused("not a message to a proposer", peer=name, kind=type(message).__name__)
        self._term_max = max(self._term_max, message.term)
        is_ours = self.role is Role.PROPOSING
        if is_ours and message.term > self.term:
            # Someone was, or is being, elected after us. Stand again soon: it may have failed.
            self.become_following()
            self._stand_s = now_s + self._timing.election_timeout_s * 0.3

    # --- the primary -----------------------------------------------------------------------------------

    def on_primary(self, primary: PrimaryIdentity, now_s: float) -> StreamPlan | None:
        """The primary says what it is. None as long as we do not propose: there is nothing to stream yet.

        Raises:
            PrimaryRefused: its WAL does not extend our log; nothing was touched.
        """
        state = self._log.state
        if self.role is not Role.PROPOSING:
            self.primary = primary if self._log.write_lsn == INVALID_LSN else None
            return None
        self.primary = primary
        if self._log.write_lsn != self._log.record_end_lsn:
            self._restart_streams(now_s)
        if self._log.write_lsn == INVALID_LSN:
            return plan_first_stream(primary)
        tli = self.term_history.last_tli
        known = self._histories().get(tli, b"")
        plan = plan_stream(
            primary,
            cluster=self.cluster,
            tli=tli,
            history=known,
            local_start_lsn=state.local_start_lsn,
            end_lsn=self._log.record_end_lsn,
            last_record_lsn=self._log.last_record_lsn,
            is_sealed=self.term_history.sealed_lsn != INVALID_LSN,
        )
        if primary.tli == tli and primary.history and not known:
            self._send_history(tli, primary.history)
        return plan

    def _send_history(self, tli: int, content: bytes) -> None:
        for name in (self.name, *self.others):
            self._outbox.append((name, HistoryFile(self._log.generation, self.term, tli, content)))

    def append(self, start_lsn: Lsn, wal: bytes) -> Append:
        """New WAL from the primary, as a message to our own log, which takes it before any other."""
        return Append(
            generation=self._log.generation,
            term=self.term,
            tli=self.term_history.last_tli,
            start_lsn=start_lsn,
            commit_lsn=self.known_commit_lsn,
            horizon_lsn=self.told_horizon_lsn,
            wal=wal,
        )

    def on_bad_wal(self, now_s: float) -> None:
        """Our own log refused what the primary sent: go on after the last good record."""
        if self.role is Role.PROPOSING:
            self._restart_streams(now_s)

    def on_timeline(self, next_tli: int, switch_lsn: Lsn, history: bytes) -> StreamPlan:
        """The primary's timeline ended. Source: docs/quorum.md rule 17.

        Raises:
            PrimaryRefused: it ended before the end of our log.
        """
        if self.role is not Role.PROPOSING or switch_lsn != self._log.write_lsn:
            raise PrimaryRefused(
                "primary left the timeline elsewhere than our log ends",
                advice="see the primary's history file",
                switch=switch_lsn,
                log_end=self._log.write_lsn,
            )
        self.term_history = self.term_history.with_entry(self.term, next_tli, switch_lsn)
        self._send_history(next_tli, history)
        self._outbox.append((self.name, self._elected(switch_lsn)))
        return StreamPlan(switch_lsn, switch_lsn, next_tli)

    # --- what goes out ---------------------------------------------------------------------------------

    def horizon_lsn(self) -> Lsn:
        """Below this nobody needs WAL any more. Source: docs/quorum.md rule 18."""
        unheeded = unheeded_learners(self._log, self._silent_learners)
        needed = [self.peer(name).held_lsn for name in self.others if name not in unheeded]
        slots = [self.peer(name).slots for name in self.others]
        return max(
            self._log.horizon_lsn, needed_lsn([*needed, self._log.commit_lsn], [self._log.slots, *slots])
        )

    def _send_range(self, name: str, peer: Peer, end_lsn: Lsn, now_s: float) -> None:
        wal = WalRange(
            generation=self._log.generation,
            term=self.term,
            tli=self.term_history.tli_at(peer.next_lsn),
            start_lsn=peer.next_lsn,
            end_lsn=end_lsn,
            commit_lsn=self.known_commit_lsn,
            horizon_lsn=self.told_horizon_lsn,
        )
        self._outbox.append((name, wal))
        peer.next_lsn, peer.sent_s, peer.sent_commit_lsn = end_lsn, now_s, wal.commit_lsn

    def _pump(self, now_s: float) -> None:
        """Queue, for every member that follows, the WAL it lacks, as far as its window allows."""
        end = self._log.write_lsn
        entries = self.term_history.entries
        for name, peer in self.peers.items():
            while peer.is_streaming and not peer.is_lent and peer.next_lsn < end:
                if peer.told_entries < len(entries) and entries[peer.told_entries].start_lsn <= peer.next_lsn:
                    peer.told_entries = len(entries)
                    self._outbox.append((name, self._elected(peer.next_lsn)))
                stop = min(end, peer.next_lsn + self._chunk_bytes_max)
                if entries[-1].start_lsn > peer.next_lsn:  # One Append is of one timeline.
                    stop = min([stop, *(e.start_lsn for e in entries if e.start_lsn > peer.next_lsn)])
                if stop - peer.write_lsn > self._window_bytes_max:
                    break
                self._send_range(name, peer, Lsn(stop), now_s)

    def take(self, now_s: float) -> Iterator[tuple[str, Message | WalRange]]:
        """All that is to be sent now, those to ourselves first, since they decide what others get."""
        while self._outbox:
            outbox, self._outbox = self._outbox, []
            yield from outbox
        if self.role is Role.PROPOSING:
            self._pump(now_s)
            outbox, self._outbox = self._outbox, []
            yield from outbox
