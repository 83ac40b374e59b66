"""A group made by an earlier version becomes one of this version, node by node and under load."""

import sys
import time
from pathlib import Path

import psycopg
import pytest

from tests.e2e.test_quorum_processes import assert_logs_are_equal
from tests.fix_results import Keep
from tests.fix_stack import NewStack
from tools.ledger import Ledger, longest_stall
from tools.release import interpreter
from tools.stack import Program, Stack
from tools.wait import until

NOT_YET = (psycopg.Error, OSError)


@pytest.fixture
def earlier(request: pytest.FixtureRequest) -> Path:
    """The interpreter of the version that the upgrade begins with."""
    return interpreter(request.config.getoption("--upgrade-from"))


@pytest.mark.upgrade
def test_a_rolling_upgrade_costs_no_commit_and_little_time(
    earlier: Path, new_stack: NewStack, keep: Keep
) -> None:
    stack = new_stack()
    for program in (*stack.nodes, stack.pageserver):
        program.turn_to(earlier)
    stack.start()
    ledger = Ledger(stack.primary, scale=5)
    ledger.create()
    load = ledger.start(clients=4, duration_s=600)
    until(lambda: rows(stack) > 100, what="the load runs")

    # The one that leads comes second: of its two followers then one is of each version.
    first, last = stack.acceptors()
    second = stack.proposer()
    begun_s = time.time()
    upgrade(stack, first)
    killed = stack.proposer()
    killed_s = time.time()
    killed.kill()  # An election among both versions.
    until(lambda: leads(stack, killed), what="another node takes over")
    killed.start()
    killed.ready()
    until(lambda: all_follow(stack), what="the killed one follows", ignoring=NOT_YET)
    healed_s = time.time()
    for node in (second, last):
        upgrade(stack, node)
    stack.pageserver.stop()
    stack.pageserver.turn_to(sys.executable)
    stack.pageserver.start()
    stack.wait_for_pages()
    before = rows(stack)
    until(lambda: rows(stack) > before + 100, what="the load still runs")
    load.stop()

    report = stack.verify()
    commits = ledger.commits()
    stalls = {
        "first": longest_stall(commits, from_s=begun_s, to_s=killed_s - 1),
        "kill": longest_stall(commits, from_s=killed_s - 1, to_s=healed_s),
        "others": longest_stall(commits, from_s=healed_s),
    }
    print(f"{len(commits)} commits, stalls {stalls}")
    keep(
        commits=len(commits),
        stalls_s={name: round(stall_s, 3) for name, stall_s in stalls.items()},
        pages=report["pages"],
        different=report["different"],
    )
    assert ledger.missing_from(stack.primary) == set()
    assert report["differences"] == []
    assert report["exit_code"] == 0
    assert max(stalls.values()) < 10
    assert_logs_are_equal(stack)
    stack.stop()


def rows(stack: Stack) -> int:
    return int(stack.primary.value("select count(*) from ledger"))


def upgrade(stack: Stack, node: Program) -> None:
    assert node.stop() == 0
    node.turn_to(sys.executable)
    node.start()
    node.ready()
    until(lambda: all_follow(stack), what=f"{node.name} has caught up", ignoring=NOT_YET)


def leads(stack: Stack, than: Program) -> bool:
    return any(status["role"] == "proposer" for node, status in stack.roles() if node is not than)


def all_follow(stack: Stack) -> bool:
    peers = stack.proposer().status()["peers"].values()
    return len(peers) == 2 and all(peer["streaming"] and peer["lag_bytes"] < 1 << 20 for peer in peers)
