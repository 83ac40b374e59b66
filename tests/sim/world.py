"""A whole quorum in one thread from one seed: clock, network, disks and primaries are values."""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import Random

from tests.sim.check import Checker
from tests.sim.disk import SimDisk
from tests.sim.toywal import CLUSTER, START, make_scanner, record
from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.errors import MessageRefused
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import Message, decode, encode
from walproxy.quorum.primary import PrimaryIdentity
from walproxy.quorum.proposer import Timing, WalRange
from walproxy.quorum.replica import Replica
from walproxy.quorum.state import ControlState
from walproxy.wire.lsn import INVALID_LSN, Lsn


@dataclass(frozen=True)
class Faults:
    """How bad the world is; probabilities are per message or per action."""

    lose: float = 0.02
    duplicate: float = 0.02
    delay_max_s: float = 0.05
    straggle: float = 0.05  # Delayed much longer, so that others overtake it.
    sync_max_s: float = 0.02
    crash_every_s: float = 2.0
    cut_every_s: float = 2.0
    write_every_s: float = 0.02


@dataclass
class SimNode:
    name: str
    disk: SimDisk
    life: int = 0
    replica: Replica | None = None
    # WAL taken from the primary in this term, which may not be on disk yet.
    tail_start: int = 0
    tail: bytearray = field(default_factory=bytearray)
    tail_term: int = 0
    # The primary of this proposer's own term: it extends the proposer's log and nobody else's.
    primary: bytearray = field(default_factory=bytearray)
    primary_start: int = 0
    primary_prev: int = 0
    sent: int = 0
    tick_at_s: float = -1.0
    connections: dict[str, int] = field(default_factory=dict)  # That it dialled, by peer.


class World:
    """Runs until it is told to stop; every random choice comes from one seed."""

    def __init__(
        self, seed: int, *, names: tuple[str, ...] = ("a", "b", "c"), faults: Faults | None = None
    ) -> None:
        self.rng = Random(seed)
        self.now_s = 0.0
        self.faults = faults or Faults()
        self.membership = Membership(1, names)
        self.nodes = {name: SimNode(name, SimDisk()) for name in names}
        self.checker = Checker({name: node.disk for name, node in self.nodes.items()})
        self.cut: set[frozenset[str]] = set()
        self.is_healed = False
        self.steps = self.elections = self.crashes = self.refusals = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._connection_ids = itertools.count(1)
        self._last_arrival_s: dict[tuple[str, str, bool], float] = {}
        for node in self.nodes.values():
            self._boot(node)
        self._at(self._draw(self.faults.crash_every_s), self._random_crash)
        self._at(self._draw(self.faults.cut_every_s), self._random_cut)

    # --- time ------------------------------------------------------------------------------------------

    def _at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), action))

    def _draw(self, most: float) -> float:
        return self.rng.random() * most

    def run(self, until_s: float) -> None:
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(self._events)
            self.steps += 1
            action()
        self.now_s = until_s

    def heal(self) -> None:
        """From now on nothing fails; whoever is down comes up."""
        self.faults = Faults(0, 0, 0.01, 0, 0.005, 1e9, 1e9, self.faults.write_every_s)
        self.is_healed = True
        self.cut.clear()
        for node in self.nodes.values():
            if node.replica is None:
                self._boot(node)
            for peer in self.nodes:
                self._dial_soon(node, peer)

    # --- nodes -----------------------------------------------------------------------------------------

    def _boot(self, node: SimNode) -> None:
        node.life += 1
        disk = node.disk
        state = disk.load()
        end, last = INVALID_LSN, INVALID_LSN
        if state is None:
            state = ControlState(node.name, self.rng.randbytes(16), self.membership)
            disk.save(state)
        elif state.must_create:
            disk.create(state.local_start_lsn)
            end = state.local_start_lsn
        elif state.has_log:
            end, last = disk.recover(state.recover_from_lsn, state.truncating_to_lsn)
        acceptor = Acceptor(
            state,
            record_end_lsn=end,
            last_record_lsn=last,
            tlis=(),
            make_scanner=make_scanner,
            leader_timeout_s=1.0,
        )
        node.replica = Replica(
            acceptor,
            histories=dict,
            timing=Timing(),
            now_s=self.now_s,
            draw=self.rng.random(),
            window_bytes_max=2000,
            chunk_bytes_max=500,
        )
        node.tail, node.tail_start, node.tail_term, node.tick_at_s = bytearray(), 0, 0, -1.0
        node.connections = {}
        for peer in self.nodes:
            self._dial_soon(node, peer)
            self._dial_soon(self.nodes[peer], node.name)
        self._settle(node)

    def crash(self, node: SimNode) -> None:
        if node.replica is None:
            return
        self.crashes += 1
        node.replica = None
        node.disk.lose_power(self.rng)
        for peer in self.nodes.values():
            for dialler, listener in ((node, peer), (peer, node)):
                self._hang_up(dialler, listener.name)
        self._at(self._draw(3.0), lambda: self._boot(node) if node.replica is None else None)

    def _random_crash(self) -> None:
        if self.is_healed:
            return
        self.crash(self.rng.choice(list(self.nodes.values())))
        self._at(self._draw(2 * self.faults.crash_every_s), self._random_crash)

    def _random_cut(self) -> None:
        if self.is_healed:
            return
        pair = frozenset(self.rng.sample(list(self.nodes), 2))
        self.cut.add(pair)
        self._at(self._draw(3.0), lambda: self.cut.discard(pair))
        self._at(self._draw(2 * self.faults.cut_every_s), self._random_cut)

    # --- network ---------------------------------------------------------------------------------------

    def _dial_soon(self, node: SimNode, peer: str) -> None:
        if peer != node.name:
            self._at(self._draw(0.1), lambda: self._dial(node, peer))

    def _dial(self, node: SimNode, peer: str) -> None:
        listener = self.nodes[peer]
        if node.replica is None or listener.replica is None or peer in node.connections:
            return
        connection = next(self._connection_ids)
        node.connections[peer] = connection
        node.replica.proposer.on_connected(peer, self.now_s)
        self._settle(node)

    def _hang_up(self, dialler: SimNode, peer: str) -> None:
        """Both ends of a connection learn that it is over."""
        if dialler.connections.pop(peer, None) is None:
            return
        listener = self.nodes[peer]
        if dialler.replica is not None:
            dialler.replica.proposer.on_disconnected(peer)
            self._dial_soon(dialler, peer)
        if listener.replica is not None:
            listener.replica.on_leader_lost(dialler.name, self.now_s, self.rng.random())
            self._retick(listener)

    def _send(self, sender: SimNode, to: str, message: Message, *, is_request: bool) -> None:
        """In order, but for those that are lost, doubled or late; late ones outlive their connection."""
        data = encode(message)
        faults, pair = self.faults, frozenset((sender.name, to))
        for _ in range(2 if self.rng.random() < faults.duplicate else 1):
            if self.rng.random() < faults.lose:
                continue
            way = (sender.name, to, is_request)
            at_s = max(self._last_arrival_s.get(way, 0.0), self.now_s + self._draw(faults.delay_max_s))
            if self.rng.random() < faults.straggle:
                at_s = self.now_s + 30 * self._draw(faults.delay_max_s)
            else:
                self._last_arrival_s[way] = at_s
            self._at(
                at_s - self.now_s,
                lambda: self._deliver(sender.name, to, pair, data, is_request=is_request),
            )

    def _deliver(self, sender: str, to: str, pair: frozenset[str], data: bytes, *, is_request: bool) -> None:
        node = self.nodes[to]
        if node.replica is None or pair in self.cut:
            return
        message = decode(data)
        try:
            if is_request:
                node.replica.on_request(sender, message, self.now_s)
            else:
                node.replica.on_answer(sender, message, self.now_s, self.rng.random())
        except MessageRefused:
            self.refusals += 1
            dialler, listener = (self.nodes[sender], to) if is_request else (node, sender)
            self._hang_up(dialler, listener)
        self._settle(node)

    # --- the driver ------------------------------------------------------------------------------------

    def _settle(self, node: SimNode) -> None:
        """Carry out what the core wants done, and look whether all still holds."""
        replica = node.replica
        if replica is None:
            return
        while (ready := replica.ready(self.now_s)) is not None:
            self._take_primary(node)
            for to, message in ready.requests:
                if isinstance(message, WalRange):
                    wal = self._read(node, message.start_lsn, message.end_lsn)
                    self._send(node, to, message.with_wal(wal), is_request=True)
                else:
                    self._send(node, to, message, is_request=True)
            if ready.disk is not None:
                self._work(node, node.life, ready.disk, self._disk_steps(node.disk, ready.disk))
                break
        self._take_primary(node)
        self._check(node)
        self._retick(node)

    def _disk_steps(self, disk: SimDisk, work: DiskWork) -> list[Callable[[], None]]:
        """One entry a thing that is on disk or not when the power goes."""
        steps: list[Callable[[], None]] = []
        if work.control:
            state = work.control
            steps.append(lambda: disk.save(state))
        if work.new_log:
            start = work.new_log.start_lsn
            steps.append(lambda: disk.create(start))
        if work.cut_to_lsn is not None:
            to = work.cut_to_lsn
            steps.append(lambda: disk.truncate(to))
        if work.control_after_cut:
            after = work.control_after_cut
            steps.append(lambda: disk.save(after))
        steps += [lambda write=write: disk.write(write.lsn, write.wal) for write in work.wal]  # type: ignore[misc]
        if work.wal:
            steps.append(disk.sync)
        return steps

    def _work(self, node: SimNode, life: int, work: DiskWork, steps: list[Callable[[], None]]) -> None:
        if node.life != life or node.replica is None:
            return
        if steps:
            steps[0]()
            self._check(node)
            delay_s = self._draw(self.faults.sync_max_s) / len(steps)
            self._at(delay_s, lambda: self._work(node, life, work, steps[1:]))
            return
        for to, message in node.replica.on_done(work, self.now_s, self.rng.random()):
            self._send(node, to, message, is_request=False)
        self._settle(node)

    def _retick(self, node: SimNode) -> None:
        if node.replica is None:
            return
        due_s = max(node.replica.proposer.deadline_s, self.now_s + 0.001)
        if node.tick_at_s <= self.now_s or due_s < node.tick_at_s:
            node.tick_at_s = due_s
            life = node.life
            self._at(due_s - self.now_s, lambda: self._tick(node, life))

    def _tick(self, node: SimNode, life: int) -> None:
        if node.replica is None or node.life != life:
            return
        node.tick_at_s = -1.0
        if node.replica.proposer.wants_primary and node.replica.acceptor.write_lsn == INVALID_LSN:
            node.replica.proposer.on_primary(self._identity(START), self.now_s)
        node.replica.tick(self.now_s, self.rng.random())
        self._settle(node)

    def _check(self, node: SimNode) -> None:
        replica = node.replica
        if replica is not None:
            log_start = replica.acceptor.state.local_start_lsn
            log = self._read(node, log_start, replica.acceptor.write_lsn) if replica.is_proposing else b""
            self.checker.after_step(node.name, node.life, replica, log, log_start)

    def _read(self, node: SimNode, lsn: int, end: int) -> bytes:
        """Our own log, of which the last part may be in memory only."""
        if not node.tail_start or node.tail_term != self._term(node) or end <= node.disk.end:
            return node.disk.read(lsn, end)
        head = node.disk.read(lsn, node.tail_start) if lsn < node.tail_start else b""
        at = max(lsn, node.tail_start) - node.tail_start
        return head + bytes(node.tail[at : end - node.tail_start])

    def _term(self, node: SimNode) -> int:
        assert node.replica is not None
        return node.replica.proposer.term

    # --- the primary -----------------------------------------------------------------------------------

    def _identity(self, flush_lsn: int) -> PrimaryIdentity:
        return PrimaryIdentity(CLUSTER, 1, Lsn(flush_lsn), Lsn(START + 100), "sim")

    def _take_primary(self, node: SimNode) -> None:
        """A proposer elected just now finds a primary that extends exactly its log."""
        replica = node.replica
        if replica is None or not replica.is_proposing or node.tail_term == replica.proposer.term:
            return
        acceptor = replica.acceptor
        if (
            acceptor.write_lsn == INVALID_LSN
            or acceptor.state.term_history.last_term != replica.proposer.term
        ):
            return
        self.elections += 1
        node.tail_term = replica.proposer.term
        node.tail_start, node.tail = acceptor.write_lsn, bytearray()
        node.primary_start, node.primary = acceptor.write_lsn, bytearray()
        node.primary_prev = acceptor.last_record_lsn or self._last_record(node, acceptor)
        node.sent = acceptor.write_lsn
        plan = replica.proposer.on_primary(self._identity(acceptor.write_lsn), self.now_s)
        assert plan is not None
        life, term = node.life, node.tail_term
        self._at(0.01, lambda: self._primary_writes(node, life, term))

    def _last_record(self, node: SimNode, acceptor: Acceptor) -> Lsn:
        """After a cut the acceptor does not know it; the primary, which has the whole log, does."""
        start, end = acceptor.state.local_start_lsn, acceptor.record_end_lsn
        scanner = make_scanner(start, prev_lsn=INVALID_LSN, cluster=CLUSTER)
        if end > start:
            scanner.feed(self._read(node, start, end))
        return Lsn(scanner.last_record_lsn)

    def _primary_writes(self, node: SimNode, life: int, term: int) -> None:
        replica = node.replica
        if replica is None or node.life != life or not replica.is_proposing or replica.proposer.term != term:
            return
        for _ in range(self.rng.choice((1, 1, 3))):
            lsn = node.primary_start + len(node.primary)
            node.primary += record(lsn, node.primary_prev, self.rng)
            node.primary_prev = lsn
        # Chunks end anywhere, within records too.
        end = node.primary_start + len(node.primary)
        stop = end if self.rng.random() < 0.5 else self.rng.randrange(node.sent, end + 1)
        wal = bytes(node.primary[node.sent - node.primary_start : stop - node.primary_start])
        if wal and replica.acceptor.write_lsn == node.sent:
            replica.on_primary_wal(Lsn(node.sent), wal, self.now_s)
            node.tail += wal
            node.sent = stop
        self._settle(node)
        self._at(self._draw(2 * self.faults.write_every_s), lambda: self._primary_writes(node, life, term))


def calm(seed: int) -> World:
    """A world without faults."""
    return World(
        seed, faults=replace(Faults(), lose=0, duplicate=0, straggle=0, crash_every_s=1e9, cut_every_s=1e9)
    )
