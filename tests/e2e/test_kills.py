"""``kill -9`` of any one process under load loses no acknowledged commit; without a majority none returns."""

import random
import threading
import time
from pathlib import Path

import pytest

from tests.fix_results import Keep
from tests.fix_stack import NewStack
from tools.ledger import Ledger
from tools.process import Process
from tools.recovery import hold_wal, recover_from_each_majority
from tools.stack import Stack
from tools.wait import until

LOAD_S = 8


def run_kills(
    new_stack: NewStack, folder: Path, draw: random.Random, keep: Keep, *, scale: int, load_s: float
) -> None:
    """Kill each process once, each under a load of its own and in drawn order, and look for every commit."""
    drawn = {
        "full_page_writes": draw.choice((True, False)),
        "wal_compression": draw.choice(("off", "pglz")),
        "checksums": draw.choice((True, False)),
    }
    print(drawn)
    stack = new_stack(primary=drawn | {"autovacuum_naptime": "2s"})
    stack.primary.start()
    ledger = Ledger(stack.primary, scale=scale)
    ledger.create()
    stack.start()
    backup = hold_wal(stack, folder / "backup")
    victims: list[Process] = [*stack.nodes, stack.pageserver, stack.primary.process]
    draw.shuffle(victims)
    for victim in victims:
        kill_under_load(stack, victim, ledger, draw, load_s)
    assert ledger.start(clients=2, duration_s=1).wait() == 0

    report = stack.verify()
    commits = ledger.commits()
    lost = {
        found.nodes: found.missing
        for found in recover_from_each_majority(stack, backup, ledger, folder / "r")
    }

    keep(
        **drawn,
        killed=[victim.name for victim in victims],
        commits=len(commits),
        lost={" and ".join(nodes): len(missing) for nodes, missing in lost.items()},
        pages=report["pages"],
        different=report["different"],
        masked={name: section["masked"] for name, section in report["sections"].items()},
    )
    assert report["differences"] == []
    assert report["exit_code"] == 0
    assert len({commit.id.run for commit in commits}) == len(victims) + 1
    assert lost == dict.fromkeys(lost, frozenset())
    assert len(lost) == 3


def kill_under_load(
    stack: Stack, victim: Process, ledger: Ledger, draw: random.Random, load_s: float
) -> None:
    load = ledger.start(clients=4, duration_s=load_s)
    time.sleep(draw.uniform(0.5, load_s / 2))
    print(f"kill {victim.name}")
    victim.kill()
    time.sleep(draw.uniform(0.0, 2.0))
    if victim is stack.primary.process:
        assert load.wait() != 0
        stack.primary.start()
    else:
        victim.start()
        assert load.wait(deadline_s=load_s + 60) == 0, load.tail()
    stack.wait_for_quorum(deadline_s=60)
    for program in (*stack.nodes, stack.pageserver):
        program.ready()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_kill_loses_a_commit(new_stack: NewStack, folder: Path, draw: random.Random, keep: Keep) -> None:
    run_kills(new_stack, folder, draw, keep, scale=2, load_s=LOAD_S)


@pytest.mark.matrix
@pytest.mark.parametrize("number", range(10))
def test_no_kill_loses_a_commit_ten_times(
    new_stack: NewStack, folder: Path, draw: random.Random, keep: Keep, number: int
) -> None:
    run_kills(new_stack, folder, draw, keep, scale=20, load_s=12 + number % 2)


@pytest.mark.slow
def test_without_a_majority_no_commit_returns(stack: Stack, draw: random.Random) -> None:
    stack.primary.query("create table t (id int)")
    stopped = draw.sample(stack.nodes, 2)
    for node in stopped:
        node.pause()
    insert = threading.Thread(target=stack.primary.query, args=("insert into t values (1)",), daemon=True)

    insert.start()
    insert.join(timeout=8)
    assert insert.is_alive(), "a commit returned although two of three nodes are stopped"

    for node in stopped:
        node.resume()
    until(lambda: not insert.is_alive(), what="the commit returns once the nodes are back", deadline_s=60)
    assert stack.primary.query("select id from t") == [(1,)]
