"""The quorum under random faults, one seed a test: what docs/quorum.md promises holds after every step."""

import os

import pytest

from tests.sim.world import World, calm

SEEDS = int(os.environ.get("SIM_SEEDS", "60"))
FIRST = int(os.environ.get("SEED", "0"))


def run(world: World, bad_s: float, good_s: float) -> None:
    world.run(until_s=bad_s)
    world.heal()
    world.run(until_s=bad_s + good_s / 2)
    halfway = world.checker.committed_end
    world.run(until_s=bad_s + good_s)

    assert world.checker.committed_end > halfway, "no progress although nothing fails any more"
    leaders = {node.replica.leader for node in world.nodes.values() if node.replica}
    assert len(leaders) == 1, f"no agreement on who leads: {leaders}"
    for node in world.nodes.values():
        assert node.replica is not None
        assert node.replica.acceptor.commit_lsn >= halfway, f"{node.name} stays behind"


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_all_holds_under_faults(seed: int) -> None:
    world = World(seed)

    run(world, bad_s=12.0, good_s=6.0)

    assert world.elections > 0


def test_without_faults_one_election_is_enough() -> None:
    world = calm(1)

    run(world, bad_s=5.0, good_s=4.0)

    assert world.elections == 1
    assert world.refusals == 0


def test_a_world_can_be_run_again_from_its_seed() -> None:
    first, second = World(3), World(3)

    first.run(until_s=6.0)
    second.run(until_s=6.0)

    assert (first.steps, bytes(first.checker.committed)) == (second.steps, bytes(second.checker.committed))
