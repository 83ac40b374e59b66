"""Mishaps: what befalls the world from outside, and the administrator who mends it."""

import contextlib

from tests.sim.changes import Changes
from tests.sim.node import SimNode
from tests.sim.toywal import START
from tests.sim.world import FIRST, World
from walproxy.quorum.errors import HandoverRefused
from walproxy.wire.lsn import INVALID_LSN


class Mishaps:
    """Schedules them all, as often as the world's faults say."""

    def __init__(self, world: World) -> None:
        self._world = world
        faults = world.faults
        for mean_s, action in (
            (faults.kill_every_s, lambda: self._crash(loses_power=False)),
            (faults.power_every_s, lambda: self._crash(loses_power=True)),
            (faults.cut_every_s, self._cut),
            (faults.slow_disk_every_s, self._slow_disk),
            (faults.full_disk_every_s, self._full_disk),
            (faults.primary_crash_every_s, self._crash_primary),
            (faults.promotion_every_s, self._promote),
            (faults.transfer_every_s, self._transfer),
            (faults.seal_every_s, self._seal),
        ):
            world.every(mean_s, action)
        if faults.lose_disk:
            world.at(1.0 + world.draw(3.0), self._lose_disk)
        world.at(0.3, self._mend)

    # --- members ---------------------------------------------------------------------------------------

    def _some_node(self) -> SimNode:
        return self._world.rng.choice(list(self._world.nodes.values()))

    def _crash(self, *, loses_power: bool) -> None:
        everyone = self._world.rng.random() < 0.05
        for node in list(self._world.nodes.values()) if everyone else [self._some_node()]:
            self._world.crash(node, loses_power=loses_power)

    def _cut(self) -> None:
        """One way or both, between two members or around one."""
        world = self._world
        started = list(world.nodes)
        one = world.rng.choice(started)
        others = [name for name in started if name != one]
        if world.rng.random() < 0.6:
            others = [world.rng.choice(others)]
        shape = world.rng.randrange(3)
        ways = [(one, other) for other in others] if shape != 0 else []
        ways += [(other, one) for other in others] if shape != 1 else []
        world.cuts.update(ways)
        world.counts["cuts"] += 1

        def mend() -> None:
            if not world.is_healed:
                world.cuts.subtract(ways)

        world.at(world.draw(3.0), mend)

    def _slow_disk(self) -> None:
        node = self._some_node()
        node.slow = self._world.rng.choice((10.0, 50.0))
        self._world.counts["slow disks"] += 1
        self._world.at(self._world.draw(2.0), lambda: setattr(node, "slow", 1.0))

    def _full_disk(self) -> None:
        node = self._some_node()
        node.full_at = node.disk.end + self._world.rng.randrange(1000)
        self._world.counts["full disks"] += 1
        self._world.at(self._world.draw(2.0), lambda: setattr(node, "full_at", None))

    def _lose_disk(self) -> None:
        """A member comes back empty under its old name; all others have met it before."""
        world = self._world
        if world.is_healed:
            return
        names = list(FIRST.members)
        states = {name: world.nodes[name].disk.load() for name in names}
        lost = world.rng.choice(names)
        if not all(state and lost in dict(state.peer_ids) for name, state in states.items() if name != lost):
            world.at(0.5, self._lose_disk)
            return
        world.counts["lost disks"] += 1
        node = world.nodes[lost]
        world.crash(node, loses_power=True)
        node.life += 1
        node.is_gone = True
        world.checker.lost[lost] = node.disk.end
        node.disk.wipe()
        world.start(lost, FIRST)

    # --- the primary -----------------------------------------------------------------------------------

    def _crash_primary(self) -> None:
        world = self._world
        if world.primary.is_up:
            world.counts["primary crashes"] += 1
            world.primary.crash()
            incarnation = world.primary.incarnation
            world.at(world.draw(1.0), lambda: self._start_primary(incarnation))

    def _start_primary(self, incarnation: int) -> None:
        if self._world.primary.incarnation == incarnation:
            self._world.primary.is_up = True

    def _promote(self) -> None:
        """The primary is gone for good; a standby that followed some member takes over.

        An early one ends anywhere in what is committed: if it lacks the end of the log it must be refused.
        """
        world = self._world
        source = self._best_log()
        if source is None:
            return
        node, end = source
        if world.rng.random() < world.faults.early_promotion:
            node = world.rng.choice([n for n in world.running if n.disk.start and not n.is_gone] or [node])
            assert node.replica is not None
            end = min(node.replica.acceptor.commit_lsn, node.disk.end)
        if end > max(START, node.disk.start):
            self._promote_from(node, end)

    def _best_log(self) -> tuple[SimNode, int] | None:
        """A proposer, if there is one, whose log is all on disk, and where that ends."""
        for node in self._world.running:
            replica = node.replica
            assert replica is not None
            acceptor = replica.acceptor
            if replica.is_proposing and acceptor.durable_flush_lsn == acceptor.record_end_lsn > INVALID_LSN:
                return node, acceptor.record_end_lsn
        return None

    def _promote_from(self, node: SimNode, end: int) -> None:
        world = self._world
        assert node.replica is not None
        history = node.replica.acceptor.state.term_history.up_to(end)
        tli = history.last_tli
        switches: list[tuple[int, int]] = []
        for entry, after in zip(history.entries, history.entries[1:], strict=False):
            if entry.tli != after.tli:
                switches.append((entry.tli, after.start_lsn))
        world.counts["promotions"] += 1
        before = bytes(world.checker.committed[: node.disk.start - START])
        world.primary.promote(before + node.disk.read(node.disk.start, end), tuple(switches), tli)

    def _transfer(self) -> None:
        """A planned hand-over, to a member or to any. Source: docs/quorum.md rule 27."""
        world = self._world
        for node in world.running:
            replica = node.replica
            assert replica is not None
            if replica.is_proposing:
                with contextlib.suppress(HandoverRefused):
                    replica.transfer(world.rng.choice((None, "a", "b", "c")), world.now_s)
                    world.counts["hand-overs begun"] += 1
                world.settle(node)

    def _seal(self) -> None:
        """The log is ended; later a standby is promoted there, or the log opened. Source: rule 25."""
        world = self._world
        node = self._some_node()
        replica = node.replica
        if replica is None or not replica.is_proposing:
            return
        with contextlib.suppress(HandoverRefused):
            replica.seal(world.now_s, world.rng.random())
            world.counts["seals begun"] += 1
        world.settle(node)
        world.at(0.05 + world.draw(0.5), self._after_seal)

    def _after_seal(self) -> None:
        """If it stands on a majority. What the primary wrote meanwhile is never acknowledged."""
        world = self._world
        for node in world.running:
            replica = node.replica
            assert replica is not None
            proposer = replica.proposer
            sealed_lsn = proposer.term_history.sealed_lsn
            if not replica.is_proposing or not sealed_lsn or proposer.commit_lsn < sealed_lsn:
                continue
            if world.rng.random() < 0.5:
                with contextlib.suppress(HandoverRefused):
                    replica.unseal(world.now_s, world.rng.random())
                    world.counts["seals taken back"] += 1
                world.settle(node)
            elif replica.acceptor.durable_flush_lsn == sealed_lsn > START:
                world.counts["promotions at a seal"] += 1
                self._promote_from(node, sealed_lsn)

    def _mend(self) -> None:
        """A primary that was refused is rebuilt from the quorum's own log."""
        world = self._world
        world.at(0.3, self._mend)
        source = self._best_log()
        if source is None or world.now_s - world.follower.refused_s > 0.5:
            return
        node, end = source
        stream = node.stream
        if end > START and (stream is None or not stream.sent):
            world.counts["primaries rebuilt"] += 1
            self._promote_from(node, end)


def new_world(seed: int, *, with_membership: bool | None = None) -> World:
    """A world with all that may befall it."""
    world = World(seed, with_membership=with_membership)
    Mishaps(world)
    Changes(world)
    return world
