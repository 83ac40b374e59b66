"""Mishaps: what befalls the world from outside, and the administrator who mends or changes it."""

from functools import partial

from tests.sim.faults import NEVER_S
from tests.sim.node import SimNode
from tests.sim.toywal import START
from tests.sim.world import FIRST, World
from walproxy.quorum.membership import Membership, majority
from walproxy.quorum.state import ControlState
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
        ):
            world.every(mean_s, action)
        if faults.lose_disk:
            world.at(1.0 + world.draw(3.0), self._lose_disk)
        self._membership = FIRST
        if faults.membership_every_s < NEVER_S:
            world.at(world.draw(faults.membership_every_s), self._change_membership)
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

    # --- membership ------------------------------------------------------------------------------------

    def _change_membership(self) -> None:
        """By joint consensus. Source: docs/quorum.md rules 19 and 20."""
        world, old = self._world, self._membership
        if world.is_healed:
            return
        kept = world.rng.sample(old.members, world.rng.choice((0, 0, 1, 2)))
        # A former member that comes back comes as a new one.
        fresh = [f"n{len(world.nodes) + number}" for number in range(3 - len(kept))]
        new = tuple(sorted((*kept, *fresh)))
        self._membership = joint = Membership(old.generation + 1, old.members, new)
        world.counts["membership changes begun"] += 1
        for name in fresh:
            world.start(name, joint)
        self._settle_membership()

    def _settle_membership(self) -> None:
        """Tell members of it, a few at a time, until the next step may be made."""
        world, wanted = self._world, self._membership
        node = world.rng.choice([world.nodes[name] for name in wanted.everyone])
        if node.replica is not None and node.replica.acceptor.generation < wanted.generation:
            node.replica.acceptor.adopt(wanted)
            world.dial_all(node)
            world.settle(node)
        if wanted.new_members and self._may_finish(wanted):
            self._membership = Membership(wanted.generation + 1, wanted.new_members)
            world.counts["membership changes done"] += 1
            for name in wanted.members:
                if name not in wanted.new_members and world.rng.random() < 0.8:
                    world.at(world.draw(0.5), partial(self._stop, world.nodes[name]))
        elif (
            not wanted.new_members and self._holds(wanted.members, wanted.generation) and not world.is_healed
        ):
            world.at(world.draw(2 * world.faults.membership_every_s), self._change_membership)
            return
        world.at(0.02 + world.draw(0.1), self._settle_membership)

    def _stop(self, node: SimNode) -> None:
        node.is_stopped = True
        self._world.crash(node, loses_power=False)

    def _holds(self, members: tuple[str, ...], generation: int) -> bool:
        """A majority of them has it on disk."""
        states = [self._world.nodes[name].disk.load() for name in members]
        having = [s for s in states if isinstance(s, ControlState) and s.membership.generation >= generation]
        return len(having) >= majority(len(members))

    def _may_finish(self, joint: Membership) -> bool:
        """Both majorities know of it, and a proposer elected under it has committed in its term."""
        if not all(self._holds(members, joint.generation) for members in joint.sets):
            return False
        for node in self._world.running:
            replica = node.replica
            assert replica is not None
            proposer = replica.proposer
            if not replica.is_proposing or replica.acceptor.generation != joint.generation:
                continue
            if node.elected_generation != joint.generation:
                proposer.step_aside(self._world.now_s, 0.0)
                self._world.settle(node)
            elif proposer.commit_lsn:
                return True
        return False


def new_world(seed: int, *, with_membership: bool | None = None) -> World:
    """A world with all that may befall it."""
    world = World(seed, with_membership=with_membership)
    Mishaps(world)
    return world
