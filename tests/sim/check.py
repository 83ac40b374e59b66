"""What must hold after every step of the simulation. Numbers are those of docs/quorum.md, "Invariants"."""

from collections.abc import Mapping

from tests.sim.disk import SimDisk
from tests.sim.toywal import START
from walproxy.quorum.membership import Membership
from walproxy.quorum.replica import Replica
from walproxy.quorum.terms import TermEntry, TermHistory


class Checker:
    """Remembers everything that was ever promised.

    `committed` is the log that proposers have committed, from START on; it only grows.
    """

    def __init__(self, disks: Mapping[str, SimDisk]) -> None:
        self._disks = disks
        # Members whose disk was lost, and up to where it was synced: as far as that they were holders.
        self.lost: dict[str, int] = {}
        self._proposers: dict[int, tuple[str, int]] = {}
        self._logs_at_election: dict[int, tuple[int, bytes]] = {}
        self.committed = bytearray()
        self.tlis: tuple[tuple[int, int], ...] = ()  # (timeline, where it begins) of `committed`.
        self._commit_by_node: dict[tuple[str, int], int] = {}
        self._commit_by_term: dict[int, int] = {}
        self._seals: dict[int, TermEntry] = {}  # By the term that committed it.
        self._memberships: dict[int, Membership] = {}

    @property
    def committed_end(self) -> int:
        return START + len(self.committed)

    def after_step(self, name: str, life: int, replica: Replica) -> None:
        """Look at one member after something happened to it."""
        acceptor = replica.acceptor
        commit, before = acceptor.commit_lsn, self._commit_by_node.get((name, life), 0)
        assert commit <= acceptor.durable_flush_lsn, "I4: commit lsn beyond what is durable"
        assert commit >= before, "I5: commit lsn went back"
        if commit > before:
            self._commit_by_node[name, life] = commit
            assert commit <= self.committed_end, "I4: a member serves what is not committed"
            assert self.agreed(name, commit) >= commit, (
                "I2, I4: a member serves what is not committed, or lacks it"
            )
            self._same_timelines(acceptor.state.term_history, commit)

    def elected(self, name: str, life: int, replica: Replica, log: bytes, log_start: int) -> None:
        """That member proposes, in a term it did not propose in before; its log at that moment."""
        term = replica.proposer.term
        assert self._proposers.setdefault(term, (name, life)) == (name, life), "I1: two proposers of one term"
        self._logs_at_election[term] = (log_start, log)
        for older, entry in self._seals.items():
            assert older > term or entry in replica.proposer.term_history.entries, (
                f"I6: term {term} knows nothing of the seal of term {older}"
            )
        for older, end in self._commit_by_term.items():
            if older < term:
                self._contains(term, START, end, f"term {term} began without wal committed in {older}")

    def committed_by(self, replica: Replica, wal_from: int, wal: bytes) -> None:
        """That proposer counted a new commit LSN.

        Args:
            wal: its log from `wal_from`, at most the old end of what is committed, to its commit LSN.
        """
        term, end = replica.proposer.term, replica.proposer.commit_lsn
        before = self._commit_by_term.get(term, START)
        assert end >= before, "I5: a proposer's commit lsn went back"
        older = max((e for t, e in self._commit_by_term.items() if t < term), default=START)
        assert end >= older, "I5: commit lsn below that of an older term"
        self._commit_by_term[term] = end
        self._check_seals(replica.proposer.term_history, end)
        both = self.committed[wal_from - START :]
        assert wal[: len(both)] == both[: len(wal)], f"I2: term {term} committed other bytes"
        self.committed += wal[len(both) :]
        self._same_timelines(replica.proposer.term_history, end)
        holders = {name for name in self._disks if max(self.lost.get(name, 0), self.agreed(name, end)) >= end}
        membership = replica.acceptor.state.membership
        assert membership.has_quorum(holders), f"I3: acknowledged, but not on a quorum: {sorted(holders)}"
        for newer in self._logs_at_election:
            if newer > term:
                self._contains(newer, before, end, f"term {term} committed after {newer} began without it")

    def membership(self, membership: Membership) -> None:
        known = self._memberships.setdefault(membership.generation, membership)
        assert known == membership, "rule 19: two memberships of one generation"

    def cut(self, name: str, to_lsn: int, commit_lsn: int) -> None:
        assert to_lsn >= commit_lsn, f"{name} cuts committed wal"

    def acknowledged(self, lsn: int, wal: bytes | bytearray) -> None:
        """A server was told that its WAL is safe up to `lsn`."""
        assert lsn <= self.committed_end, "acknowledged, but not committed"
        assert self.committed[: lsn - START] == wal[: lsn - START], (
            "I2: acknowledged wal is not what is committed"
        )

    def served(self, lsn: int, wal: bytes) -> None:
        assert self.committed[lsn - START : lsn - START + len(wal)] == wal, "I4: served wal is not committed"

    def agreed(self, name: str, wanted: int) -> int:
        """Up to where that disk durably holds the committed log; what it has removed it has held."""
        disk = self._disks[name]
        if disk.agreed_end < wanted and disk.start:
            at, end = disk.agreed_end, min(disk.synced_end, wanted)
            if disk.live[at - disk.start : end - disk.start] == self.committed[at - START : end - START]:
                disk.agreed_end = max(at, end)
        return disk.agreed_end

    def _same_timelines(self, history: TermHistory, end: int) -> None:
        ours: list[tuple[int, int]] = []
        for entry in history.entries:
            if entry.start_lsn >= end or (ours and ours[-1][0] == entry.tli):
                continue
            if ours and ours[-1][1] == entry.start_lsn:
                ours.pop()  # It wrote nothing.
            ours.append((entry.tli, entry.start_lsn))
        known = [entry for entry in self.tlis if entry[1] < end]
        assert ours[: len(known)] == known, f"I2: two timelines at one lsn: {ours} {known}"
        self.tlis = max(self.tlis, tuple(ours), key=len)

    def _check_seals(self, history: TermHistory, commit: int) -> None:
        """What is committed behind a seal is of another timeline, or the log was opened by a later term."""
        if sealed_lsn := history.sealed_lsn:
            assert commit <= sealed_lsn, "I6: committed beyond the seal"
            if commit == sealed_lsn:
                self._seals[history.last_term] = history.entries[-1]

    def _contains(self, term: int, start: int, end: int, what: str) -> None:
        log_start, log = self._logs_at_election[term]
        start = max(start, log_start)
        if end <= start:
            return
        wanted = self.committed[start - START : end - START]
        assert log[start - log_start : end - log_start] == wanted, f"I3: {what}"
