"""MemberChanges: the part of a proposer that changes the members. Source: docs/quorum.md rules 19 and 20."""

from abc import ABC, abstractmethod

from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.change import (
    begun,
    check_majority_is_up,
    continued,
    is_in_force,
    may_decide,
    with_known_ids,
)
from walproxy.quorum.errors import ChangeRefused
from walproxy.quorum.membership import Contact
from walproxy.quorum.messages import Message
from walproxy.quorum.peer import Peer
from walproxy.quorum.role import Role
from walproxy.quorum.timing import Timing
from walproxy.quorum.walrange import WalRange
from walproxy.wire.lsn import Lsn


class MemberChanges(ABC):
    """Begins a change, carries it on, tells everyone. `Proposer` has the state."""

    role: Role
    term: int
    term_start_lsn: Lsn
    commit_lsn: Lsn
    peers: dict[str, Peer]
    _log: Acceptor
    _timing: Timing
    _window_bytes_max: int
    _outbox: list[tuple[str, Message | WalRange]]

    @property
    def name(self) -> str:
        return self._log.name

    @property
    def known_commit_lsn(self) -> Lsn:
        """Committed for certain, by our counting or an earlier proposer's."""
        return max(self.commit_lsn, self._log.commit_lsn)

    def change_members(self, wanted: tuple[str, ...], contacts: tuple[Contact, ...], now_s: float) -> None:
        """Begin to change the members to those `wanted`; newcomers have been spoken to. Idempotent.

        Once begun, whoever proposes carries it on. Source: docs/quorum.md rules 19 and 20.

        Args:
            wanted: names, in any order.
            contacts: of all members, old and wanted, without the node ids that we know ourselves.
            now_s: the driver's monotonic clock.

        Raises:
            ChangeInvalid, ChangeRefused: nothing was changed.
        """
        if self.role is not Role.PROPOSING:
            raise ChangeRefused("this node does not propose", leader=self._log.leader or "nobody")
        membership = self._log.state.membership
        if not membership.is_changing or set(wanted) != set(membership.new_members):
            step = begun(membership, wanted, with_known_ids(self._log.state, contacts), self.term)
            if not self.is_in_force:
                raise ChangeRefused(
                    "the members of now are not in force on a majority: ask again in a moment",
                    generation=membership.generation,
                )
            check_majority_is_up(membership, wanted, {self.name, *self._heard(now_s)})
            self._log.adopt(step)

    @property
    def voting_peers(self) -> dict[str, Peer]:
        voters = self._log.state.membership.voters
        return {name: peer for name, peer in self.peers.items() if name in voters}

    def _heard(self, now_s: float) -> set[str]:
        timeout_s = self._timing.election_timeout_s
        return {name for name, peer in self.peers.items() if now_s - peer.heard_s < timeout_s}

    @property
    def is_in_force(self) -> bool:
        """We propose, and from now on no majority of an earlier membership can act. Source: rule 20."""
        return self.role is Role.PROPOSING and is_in_force(
            self._log, self.peers, self.term, self.term_start_lsn, self.known_commit_lsn
        )

    def _maybe_continue_change(self, now_s: float) -> None:
        """Source: docs/quorum.md rule 20."""
        membership = self._log.state.membership
        if not membership.is_changing or not self.is_in_force:
            return
        near = {n for n in self._heard(now_s) if self._is_near(self.peers[n])} | {self.name}
        if not membership.is_learning or may_decide(membership, near):
            self._log.adopt(continued(membership, self.term, dict(self._log.state.peer_ids)))

    def _is_near(self, peer: Peer) -> bool:
        return peer.is_streaming and self._log.write_lsn - peer.flush_lsn <= self._window_bytes_max

    def on_membership(self) -> None:
        """The membership has changed: tell everyone we speak to. Source: docs/quorum.md rules 19 and 20."""
        for name, peer in self.peers.items():
            if peer.is_connected:
                self._outbox.append((name, self._log.introduction()))
        self.peers = {
            name: peer
            for name, peer in self.peers.items()
            if peer.is_connected or name == self.name or name in self._log.state.membership.everyone
        }
        for name in self.peers.keys() - set(self._log.state.membership.everyone):
            self.peers[name].is_streaming = False
        if self.role is not Role.PROPOSING or not self._log.is_voter:
            self.become_following()  # Votes of before do not count any more.

    @abstractmethod
    def become_following(self) -> None:
        """Propose no more."""
