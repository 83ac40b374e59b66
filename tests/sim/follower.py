"""Follower: what stands between the members and the primary: connections, proofs, acknowledgements, standbys."""

from typing import TYPE_CHECKING

from tests.sim.faults import NEVER_S
from tests.sim.node import SimNode, Stream
from tests.sim.toywal import START
from walproxy.quorum.errors import MessageRefused, PrimaryRefused
from walproxy.quorum.messages import Feedback, SlotHorizon
from walproxy.quorum.primary import Overlap, StreamPlan
from walproxy.wire.lsn import Lsn

if TYPE_CHECKING:
    from tests.sim.world import World

_CHUNK_BYTES = 3000


class Follower:
    """Connects each member that wants it to the primary; several at a time, which a slot would not allow.

    Also a standby that wanders from member to member, with a slot on each.
    """

    def __init__(self, world: "World") -> None:
        self._world = world
        self._standby_lsn: int = START
        self.refused_s = -1.0
        # A member with a slot on it was lost, or is a member no more.
        self.slots_are_lost = world.faults.membership_every_s < NEVER_S or world.faults.lose_disk > 0

    def begin(self) -> None:
        self._world.nodes["a"].disk.slots["standby"] = START
        self.note_slots(self._world.nodes["a"])
        self._world.at(0.0, self._write)
        self._world.at(0.2, self._read)

    # --- the primary -----------------------------------------------------------------------------------

    def notice(self, node: SimNode) -> None:
        """After each step: connect, hang up, acknowledge."""
        world, replica, stream = self._world, node.replica, node.stream
        assert replica is not None
        proposer = replica.proposer
        if stream is not None:
            term = proposer.term if replica.is_proposing else 0
            if (
                stream.term != term
                or not proposer.wants_primary
                or stream.incarnation != world.primary.incarnation
            ):
                node.stream = stream = None
            elif stream.sent and stream.sent >= stream.proven and proposer.commit_lsn:
                self._acknowledge(stream, proposer.commit_lsn)
        if stream is None and proposer.wants_primary and (replica.is_proposing or proposer.primary is None):
            term = proposer.term if replica.is_proposing else 0
            node.stream = stream = Stream(world.primary.incarnation, term, world.primary.server)
            world.at(0.001 + world.draw(0.03), lambda: self._identify(node, stream))

    def _acknowledge(self, stream: Stream, lsn: int) -> None:
        server = stream.server
        if lsn > server.acknowledged:
            server.acknowledged = lsn
            self._world.checker.acknowledged(lsn, server.wal)

    def _drop(self, node: SimNode, stream: Stream, wait_s: float) -> None:
        def again() -> None:
            if node.stream is stream:
                node.stream = None
                self._world.settle(node)

        stream.sent = 0
        self._world.at(wait_s, again)

    def _identify(self, node: SimNode, stream: Stream) -> None:
        world, replica = self._world, node.replica
        if node.stream is not stream or replica is None:
            return
        primary = world.primary
        if not primary.is_up or stream.incarnation != primary.incarnation:
            self._drop(node, stream, 0.1)
            return
        try:
            plan = replica.proposer.on_primary(primary.server.identity(), world.now_s)
        except PrimaryRefused:
            world.counts["primaries refused"] += 1
            self.refused_s = world.now_s
            self._drop(node, stream, 0.3)
            return
        world.settle(node)
        if plan is not None and node.stream is stream:
            self._start(node, stream, plan)

    def _start(self, node: SimNode, stream: Stream, plan: StreamPlan) -> None:
        """As soon as all of our log is on disk."""
        world, replica = self._world, node.replica
        if node.stream is not stream or replica is None:
            return
        acceptor = replica.acceptor
        if replica.has_disk_work_out or acceptor.durable_flush_lsn < plan.proven_lsn:
            world.at(0.003, lambda: self._start(node, stream, plan))
            return
        if acceptor.write_lsn != plan.proven_lsn:
            self._drop(node, stream, 0.05)
            return
        node.begin_tail(acceptor.write_lsn)
        overlap = Overlap(plan.start_lsn, node.disk.read(plan.start_lsn, plan.proven_lsn))
        stream.tli, stream.sent, stream.proven = plan.tli, plan.start_lsn, plan.proven_lsn
        world.at(world.draw(world.faults.write_every_s), lambda: self._pump(node, stream, overlap))

    def _pump(self, node: SimNode, stream: Stream, overlap: Overlap) -> None:
        world, server, replica = self._world, stream.server, node.replica
        if node.stream is not stream or replica is None or stream.incarnation != world.primary.incarnation:
            return
        switch = server.switch_of(stream.tli)
        end = min(server.flushed, stream.sent + _CHUNK_BYTES, switch or server.flushed)
        try:
            if end > stream.sent:
                self._take(node, stream, overlap, end)
            elif switch and stream.sent == switch:
                plan = replica.proposer.on_timeline(
                    server.next_of(stream.tli), Lsn(switch), server.history(server.next_of(stream.tli))
                )
                world.counts["timelines followed"] += 1
                world.settle(node)
                self._start(node, stream, plan)
                return
        except (PrimaryRefused, MessageRefused) as error:
            world.counts["primaries refused" if isinstance(error, PrimaryRefused) else "wal refused"] += 1
            if isinstance(error, PrimaryRefused):
                self.refused_s = world.now_s
            world.settle(node)
            self._drop(node, stream, 0.1)
            return
        world.settle(node)
        world.at(world.draw(world.faults.write_every_s), lambda: self._pump(node, stream, overlap))

    def _take(self, node: SimNode, stream: Stream, overlap: Overlap, end: int) -> None:
        world, server, replica = self._world, stream.server, node.replica
        assert replica is not None
        wal = bytes(server.wal[stream.sent - START : end - START])
        if world.rng.random() < world.faults.bad_wal:
            at = world.rng.randrange(len(wal))
            wal = wal[:at] + bytes([wal[at] ^ 1]) + wal[at + 1 :]
        lsn, new = overlap.check(Lsn(stream.sent), wal)
        stream.sent = end
        if new:
            replica.on_primary_wal(lsn, new, world.now_s)
            node.tail += new

    def _write(self) -> None:
        world = self._world
        primary = world.primary
        if primary.is_up:
            for _ in range(world.rng.choice((1, 1, 3))):
                primary.server.write(world.rng)
            primary.server.flush(world.rng)
        world.at(world.draw(2 * world.faults.write_every_s), self._write)

    # --- a standby -------------------------------------------------------------------------------------

    def note_slots(self, node: SimNode) -> None:
        replica = node.replica
        assert replica is not None
        slots = tuple(SlotHorizon(name, Lsn(lsn)) for name, lsn in node.disk.slots.items())
        replica.acceptor.on_downstreams(Feedback(), slots)

    def _read(self) -> None:
        """The standby asks some member for what follows."""
        world = self._world
        world.at(0.05 + world.draw(0.3), self._read)
        node = world.rng.choice(list(world.nodes.values()))
        replica = node.replica
        if replica is None or not replica.acceptor.state.has_log or node.is_gone:
            return
        commit = replica.acceptor.commit_lsn
        if commit <= self._standby_lsn or commit > node.disk.end:
            return
        if node.disk.start > self._standby_lsn:
            assert self.slots_are_lost, "rule 18: WAL that a consumer needs was removed"
            self._standby_lsn = node.disk.start
        world.checker.served(self._standby_lsn, node.disk.read(self._standby_lsn, commit))
        self._standby_lsn = commit
        node.disk.slots["standby"] = commit
        self.note_slots(node)
