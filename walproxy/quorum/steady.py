"""SteadyLead: what the native lane is given of a proposer, and what it gives back."""

from dataclasses import dataclass

from walproxy.quorum.handover import Successor
from walproxy.quorum.member_changes import MemberChanges
from walproxy.quorum.membership import majority
from walproxy.quorum.peer import Peer
from walproxy.quorum.role import Role
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn


@dataclass(frozen=True, slots=True)
class SteadyTerm:
    """What a native lane leads by: `majority` of the members decide; see `Proposer` for the window, `Timing`."""

    term: int
    generation: int
    start_lsn: Lsn
    majority: int
    window_bytes_max: int
    commit_delay_s: float


class SteadyLead(MemberChanges):
    """The part of a proposer that native code goes on with, and brings up to date. `Proposer` has the state."""

    successor: Successor | None
    term_history: TermHistory
    told_horizon_lsn: Lsn
    _commit_due_s: float | None

    def steady(self) -> SteadyTerm | None:
        """What the native lane goes on with; None unless nothing is to be said but WAL and positions.

        Source: docs/quorum.md rule 22.
        """
        membership = self._log.state.membership
        is_free = self.role is Role.PROPOSING and self.successor is None and not self._outbox
        is_begun = self.commit_lsn >= self.term_start_lsn > INVALID_LSN
        if not is_free or not is_begun or membership.is_changing:
            return None
        return SteadyTerm(
            self.term,
            membership.generation,
            self.term_start_lsn,
            majority(len(membership.members)),
            self._window_bytes_max,
            self._timing.commit_delay_s,
        )

    def knows_all(self, peer: Peer) -> bool:
        """What it is to be sent next is of our last term and timeline, which it was told of."""
        entries = self.term_history.entries
        return peer.told_entries == len(entries) and peer.next_lsn >= entries[-1].start_lsn

    def on_heard(self, name: str, write_lsn: Lsn, flush_lsn: Lsn, now_s: float) -> None:
        """The native lane had an AppendReply of our term and generation from that member."""
        peer = self.peers[name]
        peer.heard_s, peer.is_stuck = now_s, False
        peer.write_lsn, peer.generation = write_lsn, self._log.generation
        peer.held_lsn = peer.flush_lsn = flush_lsn

    def on_led(
        self, write_lsn: Lsn, flush_lsn: Lsn, last_record_lsn: Lsn, *, commit_lsn: Lsn, now_s: float
    ) -> None:
        """The native lane took WAL of the primary for us, and counted. As `Acceptor.on_taken`."""
        self.commit_lsn = max(self.commit_lsn, commit_lsn)
        self._log.on_taken(
            write_lsn,
            flush_lsn,
            last_record_lsn,
            commit_lsn=commit_lsn,
            horizon_lsn=self.told_horizon_lsn,
            now_s=now_s,
        )
        self.on_heard(self.name, write_lsn, flush_lsn, now_s)

    def on_lane_ended(self, now_s: float) -> None:
        """From now on we say again how far the log is committed, where no WAL says it."""
        if self._commit_due_s is None:
            self._commit_due_s = now_s + self._timing.commit_delay_s
