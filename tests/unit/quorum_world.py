"""Acceptors and replicas of the unit tests, without disk: work is done the moment it is handed out."""

import contextlib
from collections.abc import Iterable
from random import Random

from tests.sim.toywal import CLUSTER, START, make_scanner, record
from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.errors import NotAMember
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import Append, Elected, Greeting, Message, VoteRequest
from walproxy.quorum.primary import PrimaryIdentity
from walproxy.quorum.replica import Replica
from walproxy.quorum.state import ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.quorum.timing import Timing
from walproxy.quorum.walrange import WalRange
from walproxy.wire.lsn import INVALID_LSN, Lsn

TRIO = Membership(1, ("a", "b", "c"))
FIRST = TermHistory.of([(1, 1, START)])


def wal_at(lsn: int, *, prev: int = 0, count: int = 1, seed: int = 1) -> bytes:
    """Whole records from `lsn` on, each linked to the one before."""
    rng, out = Random(seed), b""
    for _ in range(count):
        at = lsn + len(out)
        out += record(at, prev, rng)
        prev = at
    return out


def new_acceptor(
    name: str = "a",
    *,
    state: ControlState | None = None,
    end: Lsn = INVALID_LSN,
    membership: Membership = TRIO,
) -> Acceptor:
    return Acceptor(
        state or ControlState(name, name.encode(), membership),
        record_end_lsn=end,
        last_record_lsn=INVALID_LSN,
        make_scanner=make_scanner,
        leader_timeout_s=1.0,
    )


def with_log(name: str = "a", *, history: TermHistory = FIRST, end: int = START, commit: int = 0) -> Acceptor:
    """An acceptor that starts with a log of that history up to `end`."""
    state = ControlState(
        name,
        name.encode(),
        TRIO,
        term=history.last_term,
        term_history=history,
        cluster=CLUSTER,
        log_start_lsn=START,
        local_start_lsn=START,
        commit_lsn=Lsn(commit),
    )
    return new_acceptor(name, state=state, end=Lsn(end))


def finish(acceptor: Acceptor) -> DiskWork:
    """Hand out the work and call it done."""
    work = acceptor.ready()
    assert work is not None, "there is work"
    acceptor.on_done(work)
    return work


def answers(acceptor: Acceptor) -> list[Message]:
    return [message for _, message in finish(acceptor).answers]


def elected(term: int, start: int, history: TermHistory, *, commit: int = 0, generation: int = 1) -> Elected:
    return Elected(generation, term, Lsn(start), history, Lsn(commit), START, CLUSTER)


def append(
    term: int, start: int, wal: bytes = b"", *, commit: int = 0, horizon: int = 0, tli: int = 1
) -> Append:
    return Append(1, term, tli, Lsn(start), Lsn(commit), Lsn(horizon), wal)


def vote(term: int, last_log_term: int = 0, flush: int = 0, *, is_pre: bool = False) -> VoteRequest:
    return VoteRequest(1, term, is_pre, last_log_term, Lsn(flush))


class Group:
    """Replicas that hear each other at once, as long as they are connected."""

    def __init__(self, acceptors: Iterable[Acceptor]) -> None:
        self.now_s = 0.0
        self.replicas = {
            acceptor.name: Replica(
                acceptor, histories=dict, timing=Timing(), now_s=0.0, draw=0.5, chunk_bytes_max=64
            )
            for acceptor in acceptors
        }
        self.wal = bytearray()
        self.wal_start = 0
        self.silent: set[str] = set()
        self.sent: list[tuple[str, str, Message]] = []

    def __getitem__(self, name: str) -> Replica:
        return self.replicas[name]

    def connect(self) -> None:
        for name, replica in self.replicas.items():
            for peer in self.replicas:
                if peer != name:
                    replica.proposer.on_connected(peer, self.now_s)
        self.settle()

    def settle(self) -> None:
        """Until nobody has anything to say."""
        while sum(self._settle(replica) for replica in self.replicas.values()):
            pass

    def _settle(self, replica: Replica) -> bool:
        ready = replica.ready(self.now_s)
        if ready is None:
            return False
        for to, request in ready.requests:
            message = request.with_wal(self._read(request)) if isinstance(request, WalRange) else request
            self._deliver(replica.name, to, message)
        if ready.disk is not None:
            for to, answer in replica.on_done(ready.disk, self.now_s, 0.5):
                self.sent.append((replica.name, to, answer))
                if not self.silent & {replica.name, to}:
                    self._answer(replica.name, to, answer)
        return True

    def _answer(self, sender: str, to: str, answer: Message) -> None:
        with contextlib.suppress(NotAMember):  # It hangs up.
            self.replicas[to].on_answer(sender, answer, self.now_s, 0.5)

    def _read(self, request: WalRange) -> bytes:
        return bytes(self.wal[request.start_lsn - self.wal_start : request.end_lsn - self.wal_start])

    def _deliver(self, sender: str, to: str, message: Message) -> None:
        self.sent.append((sender, to, message))
        if not self.silent & {sender, to}:
            try:
                self.replicas[to].on_request(sender, message, self.now_s)
            except NotAMember:  # It is told so.
                assert isinstance(message, Greeting)
                answer = self.replicas[to].acceptor.introduction()
                if message.generation < answer.generation:
                    self._answer(to, sender, answer)

    def tick(self, *names: str, at_s: float) -> None:
        """Time passes for these; the others do not notice."""
        self.now_s = at_s
        for name in names:
            self.replicas[name].tick(at_s, 0.5)
        self.settle()

    def elect(self, name: str, *, at_s: float = 1.0) -> Replica:
        """Let that one stand; a group without a log learns of a primary first."""
        replica = self.replicas[name]
        if replica.acceptor.write_lsn == INVALID_LSN:
            replica.proposer.on_primary(primary(), self.now_s)
        self.tick(name, at_s=at_s)
        assert replica.is_proposing
        if not self.wal_start:
            self.wal_start = replica.acceptor.state.local_start_lsn
        return replica

    def write(self, name: str, wal: bytes) -> None:
        """WAL from the primary."""
        replica = self.replicas[name]
        self.wal += wal
        replica.on_primary_wal(replica.acceptor.write_lsn, wal, self.now_s)
        self.settle()


def primary(
    *, flush: int = START, tli: int = 1, history: bytes = b"", restart: int = START + 7
) -> PrimaryIdentity:
    return PrimaryIdentity(CLUSTER, tli, Lsn(flush), Lsn(restart), "test", history)


def trio() -> Group:
    """Three members without a log, connected."""
    group = Group(new_acceptor(name) for name in TRIO.members)
    group.connect()
    return group
