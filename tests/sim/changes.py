"""Changes: the operator who adds, removes and replaces members through whoever proposes, as `walproxy member` does."""

from tests.sim.faults import NEVER_S
from tests.sim.node import SimNode
from tests.sim.world import World
from walproxy.quorum.errors import ChangeRefused
from walproxy.quorum.membership import NOBODY, Contact, Membership

_MEMBERS_MAX = 5


class Changes:
    """One change after the other, each watched until it is in force. Source: docs/quorum.md rules 19 and 20."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before: tuple[str, ...] = ()
        self._wanted: tuple[str, ...] = ()
        self._contacts: dict[str, Contact] = {}
        self._lost = ""  # A member whose disk was lost: it is removed first, and added again then.
        if world.faults.membership_every_s < NEVER_S:
            world.at(world.draw(world.faults.membership_every_s), self._begin)

    def _proposer(self) -> SimNode | None:
        proposing = [node for node in self._world.running if node.replica and node.replica.is_proposing]
        return max(
            proposing, key=lambda node: node.replica.proposer.term if node.replica else 0, default=None
        )

    def _begin(self) -> None:
        world, node = self._world, self._proposer()
        if not self._lost and self._comes_back(node):
            self._watch()
            return
        if world.is_healed:
            world.at(0.3, self._begin)
            return
        if node is None or node.replica is None or node.replica.acceptor.state.membership.is_changing:
            world.at(0.1, self._begin)
            return
        self._before = members = node.replica.acceptor.state.membership.members
        if self._lost:
            back = self._lost not in members
            self._wanted = (*members, self._lost) if back else tuple(m for m in members if m != self._lost)
            fresh = [self._lost] if back else []
            self._lost = "" if back else self._lost
            for name in fresh:
                world.nodes[name].is_gone = False
        else:
            lost = world.rng.random() < 0.25 and self._lose_disk(node, members)
            kept = [] if lost else world.rng.sample(members, world.rng.randrange(len(members) + 1))
            if lost:
                self._wanted, fresh = tuple(m for m in members if m != self._lost), []
            else:
                count = world.rng.randint(0 if kept else 1, max(1, _MEMBERS_MAX - len(kept)))
                fresh = [f"n{len(world.nodes) + number}" for number in range(count)]
                self._wanted = (*kept, *fresh)
        for name in fresh:
            if name not in world.nodes:
                world.start(name, NOBODY)
            state = world.nodes[name].disk.load()
            assert state is not None
            # An operator may name one that does not answer: its disk is known when it is met.
            node_id = state.node_id if world.rng.random() < 0.8 else b""
            self._contacts[name] = Contact(name, f"host={name}", node_id)
        world.counts["membership changes begun"] += 1
        self._watch()

    def _comes_back(self, node: SimNode | None) -> bool:
        """A change that was thought over, in the hands of a proposer who had it from one that was lost: end it."""
        if node is None or node.replica is None:
            return False
        now = node.replica.acceptor.state.membership
        if now.is_changing:
            self._wanted = now.members if now.is_learning else now.new_members
            self._world.counts["membership changes that came back"] += 1
        return now.is_changing

    def _lose_disk(self, proposer: SimNode, members: tuple[str, ...]) -> bool:
        """A member that all others have met loses its disk; its name is to come back with another."""
        world = self._world
        name = world.rng.choice(members)
        states = {member: world.nodes[member].disk.load() for member in members}
        has_met = all(state and name in dict(state.peer_ids) for m, state in states.items() if m != name)
        if len(members) < 3 or name == proposer.name or not has_met:
            return False
        world.counts["lost disks replaced"] += 1
        node = world.nodes[name]
        world.crash(node, loses_power=True)
        node.life += 1
        node.is_gone = True
        world.checker.lost[name] = max(world.checker.lost.get(name, 0), node.disk.end)
        node.disk.wipe()
        world.start(name, NOBODY)
        self._lost = name
        return True

    def _watch(self) -> None:
        """Ask for it again and again until it is done: asking is idempotent."""
        world, node = self._world, self._proposer()
        if node is None or node.replica is None:
            world.at(0.1, self._watch)
            return
        now, proposer = node.replica.acceptor.state.membership, node.replica.proposer
        if set(now.members) == set(self._wanted) and not now.is_changing:
            if proposer.is_in_force:
                self._done(now)
                return
        elif now.is_learning and world.rng.random() < 0.02 and set(now.members) - set(now.new_members):
            self._wanted = now.members  # It takes too long: rather not.
            world.counts["membership changes taken back"] += 1
        else:
            names = dict.fromkeys((*now.everyone, *self._wanted))
            contacts = [now.contact(n) or self._contacts.get(n) or Contact(n, f"host={n}") for n in names]
            contacts = [self._contacts.get(c.name, c) if c.name in self._wanted else c for c in contacts]
            try:
                node.replica.change_members(self._wanted, tuple(contacts), world.now_s)
            except ChangeRefused:
                world.counts["membership changes refused"] += 1
            world.settle(node)
        world.at(0.02 + world.draw(0.1), self._watch)

    def _done(self, now: Membership) -> None:
        world = self._world
        world.counts["membership changes done"] += 1
        if len(self._before) == len(now.members) == 3 and not {*self._before} & {*now.members}:
            world.counts["membership changes done, to three others"] += 1
        for node in list(world.nodes.values()):
            gone = node.name not in now.members and node.name != self._lost
            if gone and not node.is_stopped and world.rng.random() < 0.8:
                node.is_stopped = True
                world.crash(node, loses_power=False)
        wait_s = 0.05 if self._lost else world.draw(2 * world.faults.membership_every_s)
        if self._lost and world.is_healed:
            return
        world.at(wait_s, self._begin)
