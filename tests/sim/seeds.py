"""One seed of the simulation: a bad time, then a good one in which all must come right again."""

from collections import Counter

from tests.sim.mishaps import new_world
from tests.sim.world import World


def run_seed(seed: int, *, with_membership: bool | None = None) -> Counter[str]:
    """What happened, counted. Raises AssertionError if something did not hold."""
    world = new_world(seed, with_membership=with_membership)
    run(world, bad_s=3.0 + world.draw(6.0), good_s=4.0)
    return world.counts + Counter({"events": world.steps, "seeds": 1})


def run(world: World, *, bad_s: float, good_s: float) -> None:
    world.run(until_s=bad_s)
    world.heal()
    world.run(until_s=bad_s + good_s / 2)
    halfway = world.checker.committed_end
    world.run(until_s=bad_s + good_s)

    assert world.checker.committed_end > halfway, "no progress although nothing fails any more"
    proposing = [node for node in world.running if node.replica and node.replica.is_proposing]
    assert len(proposing) == 1, f"who leads: {[node.name for node in proposing]}"
    leader = proposing[0].replica
    assert leader is not None
    membership = leader.acceptor.state.membership
    assert not membership.is_changing, f"the change does not end: {membership}"
    assert leader.proposer.is_in_force, f"the membership is not in force: {membership}"
    for name in leader.acceptor.state.membership.everyone:
        node = world.nodes[name]
        assert node.replica is not None
        if not node.is_gone and node.replica.acceptor.generation == leader.acceptor.generation:
            assert node.replica.leader == proposing[0].name, f"{name} follows another"
            assert node.replica.acceptor.commit_lsn >= halfway, f"{name} stays behind"
