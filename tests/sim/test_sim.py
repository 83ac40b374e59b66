"""The quorum under random faults, one seed a test: what docs/quorum.md promises holds after every step."""

import os

import pytest

from tests.sim.faults import Faults
from tests.sim.mishaps import new_world
from tests.sim.seeds import run, run_seed
from tests.sim.world import World

SEEDS = int(os.environ.get("SIM_SEEDS", "60"))
FIRST = int(os.environ.get("SEED", "0"))


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_all_holds_under_faults(seed: int) -> None:
    counts = run_seed(seed)

    assert counts["elections"] > 0


def test_without_faults_one_election_is_enough() -> None:
    world = World(1, faults=Faults())

    run(world, bad_s=5.0, good_s=4.0)

    assert world.counts["elections"] == 1
    assert world.counts["refusals"] == 0


def test_a_world_can_be_run_again_from_its_seed() -> None:
    first, second = new_world(3), new_world(3)

    first.run(until_s=6.0)
    second.run(until_s=6.0)

    assert (first.steps, bytes(first.checker.committed)) == (second.steps, bytes(second.checker.committed))
