"""What must hold after every step of the simulation. Numbers are those of docs/quorum.md, "Invariants"."""

from collections.abc import Mapping

from tests.sim.disk import SimDisk
from walproxy.quorum.membership import majority
from walproxy.quorum.proposer import Role
from walproxy.quorum.replica import Replica


class Checker:
    """Remembers everything that was ever promised."""

    def __init__(self, disks: Mapping[str, SimDisk]) -> None:
        self._disks = disks
        self._proposers: dict[int, tuple[str, int]] = {}
        self._logs_at_election: dict[int, tuple[int, bytes]] = {}
        self.committed = bytearray()
        self.committed_start = 0
        self._commit_by_node: dict[tuple[str, int], int] = {}
        self._commit_by_term: dict[int, int] = {}

    @property
    def committed_end(self) -> int:
        return self.committed_start + len(self.committed)

    def after_step(self, name: str, life: int, replica: Replica, log: bytes, log_start: int) -> None:
        """Look at one member after something happened to it."""
        proposer, acceptor = replica.proposer, replica.acceptor
        assert acceptor.commit_lsn <= acceptor.durable_flush_lsn, "I4: commit lsn beyond what is durable"
        before = self._commit_by_node.get((name, life), 0)
        assert acceptor.commit_lsn >= before, "I5: commit lsn went back"
        self._commit_by_node[name, life] = acceptor.commit_lsn
        if proposer.role is Role.PROPOSING:
            self._proposing(name, life, replica, log, log_start)
        if acceptor.commit_lsn > before and acceptor.commit_lsn > acceptor.state.local_start_lsn:
            disk = self._disks[name]
            held = disk.read(disk.start, acceptor.commit_lsn)
            assert disk.holds_durably(disk.start, held), "I4: committed but not durable on this member"
            self._agrees(disk.start, held, f"{name} serves")

    def _proposing(self, name: str, life: int, replica: Replica, log: bytes, log_start: int) -> None:
        proposer = replica.proposer
        term = proposer.term
        assert self._proposers.setdefault(term, (name, life)) == (name, life), "I1: two proposers of one term"
        if term not in self._logs_at_election:
            head = log[: proposer.term_start_lsn - log_start]
            self._logs_at_election[term] = (log_start, head)
            for old_term, end in self._commit_by_term.items():
                if old_term < term:
                    self._contains(
                        log_start, head, end, f"term {term} began without wal committed in {old_term}"
                    )
        if proposer.commit_lsn > self._commit_by_term.get(term, 0):
            self._commit_by_term[term] = proposer.commit_lsn
            wal = log[: proposer.commit_lsn - log_start]
            self._agrees(log_start, wal, f"{name} committed in term {term}")
            holders = [disk.holds_durably(log_start, wal) for disk in self._disks.values()]
            assert sum(holders) >= majority(len(holders)), "I3: acknowledged but not on a quorum"
            for new_term, (start, head) in self._logs_at_election.items():
                if new_term > term:
                    self._contains(
                        start, head, proposer.commit_lsn, f"term {term} committed after {new_term} began"
                    )

    def _agrees(self, start: int, wal: bytes, who: str) -> None:
        if not self.committed_start:
            self.committed_start = start
        assert start == self.committed_start, f"I2: {who}: another start of the log"
        both = min(len(wal), len(self.committed))
        assert self.committed[:both] == wal[:both], f"I2: {who}: two bytes at one lsn"
        self.committed += wal[both:]

    def _contains(self, start: int, head: bytes, end: int, what: str) -> None:
        wanted = self.committed[: end - self.committed_start]
        assert start == self.committed_start, f"I3: {what}"
        assert head[: len(wanted)] == wanted, f"I3: {what}"
