"""A whole quorum in one thread from one seed: clock, network, disks and the primary are values."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from random import Random

from tests.sim.check import Checker
from tests.sim.disk import SimDisk
from tests.sim.faults import NEVER_S, Faults, drawn, healed
from tests.sim.follower import Follower
from tests.sim.node import SimNode, disk_steps
from tests.sim.primary import SimPrimary
from tests.sim.toywal import SEGMENT, START, make_scanner
from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.errors import MessageRefused, NotAMember
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import Message, decode, encode
from walproxy.quorum.replica import Replica
from walproxy.quorum.state import ControlState
from walproxy.quorum.timing import Timing
from walproxy.quorum.walrange import WalRange
from walproxy.wire.lsn import INVALID_LSN, Lsn

FIRST = Membership(1, ("a", "b", "c"))
_TIMING = Timing()


class World:
    """Runs until it is told to stop; every random choice comes from one seed."""

    def __init__(
        self, seed: int, *, faults: Faults | None = None, with_membership: bool | None = None
    ) -> None:
        self.rng = Random(seed)
        self.now_s = 0.0
        self.faults = faults or drawn(self.rng, with_membership=with_membership)
        self.nodes: dict[str, SimNode] = {}
        self.disks: dict[str, SimDisk] = {}
        self.checker = Checker(self.disks)
        self.primary = SimPrimary()
        self.follower = Follower(self)
        self.cuts: Counter[tuple[str, str]] = Counter()
        self.is_healed = False
        self.steps = 0
        self.counts: Counter[str] = Counter()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._breaking: set[tuple[str, str]] = set()
        self._last_arrival_s: dict[tuple[str, str, bool], float] = {}
        for name in FIRST.members:
            self.start(name, FIRST)
        self.follower.begin()

    # --- time ------------------------------------------------------------------------------------------

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._order), action))

    def draw(self, most: float) -> float:
        return self.rng.random() * most

    def every(self, mean_s: float, action: Callable[[], None]) -> None:
        """Again and again as long as the world is bad."""
        if mean_s < NEVER_S:
            self.at(self.draw(2 * mean_s), lambda: self._again(mean_s, action))

    def _again(self, mean_s: float, action: Callable[[], None]) -> None:
        if not self.is_healed:
            action()
            self.every(mean_s, action)

    def run(self, until_s: float) -> None:
        events = self._events
        while events and events[0][0] <= until_s:
            self.now_s, _, action = heapq.heappop(events)
            self.steps += 1
            action()
        self.now_s = until_s

    def heal(self) -> None:
        """From now on nothing fails; whoever is down comes up."""
        self.faults = healed(self.faults)
        self.is_healed = True
        self.cuts.clear()
        for node in self.nodes.values():
            node.slow, node.full_at = 1.0, None
            if node.is_stopped:
                continue
            if node.replica is None:
                self.boot(node)
            self.dial_all(node)

    # --- nodes -----------------------------------------------------------------------------------------

    @property
    def running(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.replica is not None]

    def start(self, name: str, membership: Membership) -> None:
        """For the first time, with an empty disk."""
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = SimNode(name, SimDisk())
            self.disks[name] = node.disk
        node.disk.save(ControlState(node.name, self.rng.randbytes(16), membership))
        self.boot(node)

    def boot(self, node: SimNode) -> None:
        node.life += 1
        disk = node.disk
        state = disk.load()
        assert state is not None
        end, last = INVALID_LSN, INVALID_LSN
        if state.must_create:
            disk.create(state.local_start_lsn)
            end = state.local_start_lsn
        elif state.has_log:
            end, last = disk.recover(state.recover_from_lsn, state.truncating_to_lsn)
        acceptor = Acceptor(
            state,
            record_end_lsn=end,
            last_record_lsn=last,
            make_scanner=make_scanner,
            leader_timeout_s=_TIMING.election_timeout_s,
        )
        if state.has_log:
            acceptor.on_removed(Lsn(disk.start))
        node.replica = Replica(
            acceptor,
            histories=lambda: disk.histories,
            timing=_TIMING,
            now_s=self.now_s,
            draw=self.rng.random(),
            window_bytes_max=2000,
            chunk_bytes_max=500,
        )
        node.tail_start, node.seen_term, node.seen_commit, node.tick_at_s = 0, 0, 0, -1.0
        node.stream = None
        node.connections = set()
        self.follower.note_slots(node)
        self.dial_all(node)
        self.settle(node)

    def crash(self, node: SimNode, *, loses_power: bool) -> None:
        if node.replica is None:
            return
        self.counts["power losses" if loses_power else "kills"] += 1
        node.replica = node.stream = None
        if loses_power:
            node.disk.lose_power(self.rng)
        for peer in self.nodes.values():
            self._hang_up(node, peer.name)
            self._hang_up(peer, node.name)
        if node.is_stopped:
            return
        down_s = self.draw(0.3) if self.rng.random() < 0.5 else self.draw(3.0)
        life = node.life
        self.at(down_s, lambda: self._boot_again(node, life))

    def _boot_again(self, node: SimNode, life: int) -> None:
        if node.replica is None and node.life == life and not node.is_stopped:
            self.boot(node)

    # --- network ---------------------------------------------------------------------------------------

    def dial_all(self, node: SimNode) -> None:
        """Connect it with every member it knows, both ways; hang up on those that left."""
        assert node.replica is not None
        for peer in sorted(node.connections - set(node.replica.peers_to_dial)):
            self._hang_up(node, peer)
        for peer in node.replica.peers_to_dial:
            self._dial_soon(node, peer)
            if peer in self.nodes:
                self._dial_soon(self.nodes[peer], node.name)

    def _dial_soon(self, node: SimNode, peer: str) -> None:
        if peer != node.name and peer not in node.connections:
            self.at(self.draw(0.1), lambda: self._dial(node, peer))

    def _dial(self, node: SimNode, peer: str) -> None:
        if node.replica is None or peer in node.connections:
            return
        if peer not in node.replica.peers_to_dial:
            return
        if peer not in self.nodes or self.nodes[peer].replica is None:  # It dials us when it comes up.
            return
        node.connections.add(peer)
        node.replica.proposer.on_connected(peer, self.now_s)
        self.settle(node)

    def _hang_up(self, dialler: SimNode, peer: str) -> None:
        """Both ends of a connection learn that it is over."""
        if peer not in dialler.connections:
            return
        dialler.connections.remove(peer)
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
        faults, random = self.faults, self.rng.random
        way = (sender.name, to, is_request)
        for _ in range(2 if random() < faults.duplicate else 1):
            if random() < faults.lose:
                self._break(way)
                continue
            if random() < faults.straggle:
                at_s = self.now_s + 30 * self.draw(faults.delay_max_s)
            else:
                at_s = self.now_s + self.draw(faults.delay_max_s)
                at_s = self._last_arrival_s[way] = max(self._last_arrival_s.get(way, 0.0), at_s)
            self.at(at_s - self.now_s, lambda: self._deliver(way, data))

    def _break(self, way: tuple[str, str, bool]) -> None:
        """Something was lost: after a while both ends find that out. What is sent meanwhile may arrive."""
        sender, to, is_request = way
        dialler, listener = (sender, to) if is_request else (to, sender)
        if (dialler, listener) not in self._breaking:
            self._breaking.add((dialler, listener))

            def end() -> None:
                self._breaking.remove((dialler, listener))
                self._hang_up(self.nodes[dialler], listener)

            self.at(self.draw(1.5), end)

    def _deliver(self, way: tuple[str, str, bool], data: bytes) -> None:
        sender, to, is_request = way
        node = self.nodes[to]
        if node.replica is None:
            return
        if self.cuts[sender, to] > 0:
            self._break(way)
            return
        try:
            if is_request:
                node.replica.on_request(sender, decode(data), self.now_s)
            else:
                node.replica.on_answer(sender, decode(data), self.now_s, self.rng.random())
        except MessageRefused as error:
            self.counts["refusals"] += 1
            message = decode(data)
            generation = node.replica.acceptor.generation
            if isinstance(error, NotAMember) and is_request and message.generation < generation:
                self._send(node, sender, node.replica.acceptor.introduction(), is_request=False)
            dialler, listener = (self.nodes[sender], to) if is_request else (node, sender)
            self._hang_up(dialler, listener)
        self.settle(node)

    # --- the driver ------------------------------------------------------------------------------------

    def settle(self, node: SimNode) -> None:
        """Carry out what the core wants done, and look whether all still holds."""
        replica = node.replica
        if replica is None:
            return
        if not replica.is_proposing:
            node.begin_tail(0)
        # What is counted counts, also if the work that follows is its end.
        self._look_at_progress(node, replica)
        while (ready := replica.ready(self.now_s)) is not None:
            node.forget_beyond(replica.acceptor.write_lsn)
            for to, request in ready.requests:
                if to not in node.connections:
                    continue
                if isinstance(request, WalRange):
                    if request.start_lsn < node.disk.start:
                        replica.proposer.on_wal_removed(to, "it stays behind")
                        continue
                    wal = node.read(request.start_lsn, request.end_lsn)
                    self._send(node, to, request.with_wal(wal), is_request=True)
                else:
                    self._send(node, to, request, is_request=True)
            if ready.disk is not None:
                self._work(node, node.life, ready.disk, disk_steps(node.disk, ready.disk))
                break
        if node.replica is replica:
            if node.seen_generation != replica.acceptor.generation:
                node.seen_generation = replica.acceptor.generation
                self.checker.membership(replica.acceptor.state.membership)
                self.dial_all(node)
            self._look(node, replica)
            self._retick(node)

    def _work(self, node: SimNode, life: int, work: DiskWork, steps: list[Callable[[], None]]) -> None:
        replica = node.replica
        if node.life != life or replica is None:
            return
        if not steps:
            for to, message in replica.on_done(work, self.now_s, self.rng.random()):
                self._send(node, to, message, is_request=False)
            self.settle(node)
            return
        if self.rng.random() < self.faults.fail_sync:
            # Source: docs/quorum.md rule 23. What it was doing may be done or not.
            if self.rng.random() < 0.5:
                steps[0]()
            self.counts["failed syncs"] += 1
            self.crash(node, loses_power=True)
            return
        if work.cut_to_lsn is not None:
            self.checker.cut(node.name, work.cut_to_lsn, replica.acceptor.commit_lsn)
        steps[0]()
        delay_s = self.draw(self.faults.sync_max_s) * node.slow / len(steps)
        self.at(delay_s, lambda: self._work(node, life, work, steps[1:]))

    def _retick(self, node: SimNode) -> None:
        if node.replica is None:
            return
        due_s = max(node.replica.proposer.deadline_s, self.now_s + 0.001)
        if node.tick_at_s <= self.now_s or due_s < node.tick_at_s:
            node.tick_at_s = due_s
            life = node.life
            self.at(due_s - self.now_s, lambda: self._tick(node, life, due_s))

    def _tick(self, node: SimNode, life: int, due_s: float) -> None:
        replica = node.replica
        if replica is None or node.life != life or node.tick_at_s != due_s:
            return
        node.tick_at_s = -1.0
        acceptor = replica.acceptor
        acceptor.room_end_lsn = None if node.full_at is None else Lsn(node.full_at)
        replica.tick(self.now_s, self.rng.random())
        if not replica.has_disk_work_out and acceptor.state.has_log:
            horizon = min((acceptor.horizon_lsn, acceptor.restart_lsn, *node.disk.slots.values()))
            if horizon >= node.disk.start + SEGMENT:
                node.disk.remove_before(horizon)
                acceptor.on_removed(Lsn(node.disk.start))
                self.counts["removals"] += 1
        self.settle(node)

    def _look(self, node: SimNode, replica: Replica) -> None:
        proposer = replica.proposer
        self._look_at_progress(node, replica)
        self.checker.after_step(node.name, node.life, replica)
        # One that joins may be overtaken by what was let go before.
        is_joining = self.faults.membership_every_s < NEVER_S or self.is_healed
        for name, peer in proposer.peers.items():
            if "stays behind" in peer.refused and not is_joining:
                # A greeting that comes late names an end that is long past: look at the disk itself.
                start = node.disk.start
                assert self.checker.agreed(name, start) >= start, (
                    "rule 18: WAL that a member needs was removed"
                )
        self.follower.notice(node)

    def _look_at_progress(self, node: SimNode, replica: Replica) -> None:
        proposer = replica.proposer
        if replica.is_proposing and node.seen_term == proposer.term:
            assert proposer.commit_lsn >= node.seen_commit, "I5: a proposer's commit lsn went back"
        if replica.is_proposing and proposer.commit_lsn >= proposer.term_start_lsn:
            self._look_at_commit(node, replica)
        if replica.is_proposing and node.seen_term != proposer.term:
            self._look_at_elected(node, replica)

    def _look_at_elected(self, node: SimNode, replica: Replica) -> None:
        self.counts["elections"] += 1
        proposer = replica.proposer
        node.seen_term, node.seen_commit = proposer.term, 0
        start = replica.acceptor.state.local_start_lsn or Lsn(START)
        log = node.read(start, proposer.term_start_lsn) if proposer.term_start_lsn > start else b""
        self.checker.elected(node.name, node.life, replica, log, start)

    def _look_at_commit(self, node: SimNode, replica: Replica) -> None:
        proposer = replica.proposer
        if node.seen_term != proposer.term:
            self._look_at_elected(node, replica)
        if proposer.commit_lsn <= node.seen_commit:
            return
        start = max(replica.acceptor.state.local_start_lsn, min(node.seen_commit, self.checker.committed_end))
        node.seen_commit = proposer.commit_lsn
        self.checker.committed_by(replica, start, node.read(start, proposer.commit_lsn))
