"""WAL goes when nobody needs it, stays as long as a restart does, and a full node says so and lives on."""

from pathlib import Path
from threading import Thread

import psycopg
import pytest

from tests.fix_stack import NewStack
from tools.stack import Program, Stack
from tools.wait import until
from walproxy.wire.lsn import parse_lsn

MIB = 1 << 20
NOT_YET = (psycopg.Error, OSError)


def segments(node: Program) -> list[Path]:
    return [file for file in (node.data_dir / "wal").iterdir() if len(file.name.partition(".")[0]) == 24]


def fill(stack: Stack, mib: int) -> None:
    """Write and commit that much WAL, a little at a time."""
    for _ in range(mib * 4):
        stack.primary.query(f"select pg_logical_emit_message(true, 'fill', repeat('x', {MIB // 4}))")


def start_lsn(node: Program) -> int:
    return parse_lsn(str(node.status()["start_lsn"]))


@pytest.fixture
def small(new_stack: NewStack) -> Stack:
    """Three nodes behind a primary with segments of 1 MiB."""
    return new_stack(primary={"segment_size_mb": 1, "full_page_writes": False})


def test_a_node_killed_after_removal_starts_again_and_commits_go_on(small: Stack) -> None:
    small.start(pageserver=False)
    first = {node.name: start_lsn(node) for node in small.nodes}

    fill(small, 6)
    until(
        lambda: all(start_lsn(node) > first[node.name] for node in small.nodes),
        what="old segments go",
        ignoring=NOT_YET,
    )
    for node in small.nodes:
        node.kill()
    for node in small.nodes:
        node.start()
        node.ready()
    small.wait_for_quorum()

    fill(small, 1)


@pytest.mark.slow
def test_a_full_group_stops_commits_and_goes_on_when_there_is_room(new_stack: NewStack) -> None:
    stack = new_stack(primary={"segment_size_mb": 1}, max_wal_size_bytes=64 * MIB).start(pageserver=False)
    for node in stack.nodes:
        with node.connect(replication="true") as connection:
            connection.execute(b"CREATE_REPLICATION_SLOT holds PHYSICAL RESERVE_WAL")

    load = Thread(target=fill, args=(stack, 80), daemon=True)
    load.start()
    until(
        lambda: stack.proposer().status()["upstream"]["state"] == "no room",
        what="the proposer has no room",
        deadline_s=60,
        ignoring=NOT_YET,
    )

    assert load.is_alive()
    for node in stack.nodes:
        assert node.alive
        assert node.status()["wal_size_bytes"] <= 64 * MIB
    for node in stack.nodes:
        with node.connect(replication="true") as connection:
            connection.execute(b"DROP_REPLICATION_SLOT holds")
    load.join(timeout=60)
    assert not load.is_alive()


@pytest.mark.slow
def test_a_pageserver_that_moved_lets_go_of_the_node_it_left(stack: Stack) -> None:
    def holders() -> list[str]:
        return [
            node.name
            for node in stack.nodes
            if node.alive and "pageserver" in [slot["name"] for slot in node.status()["slots"]]
        ]

    (left,) = (node for node in stack.nodes if node.name in holders())
    left.kill()
    until(lambda: len(holders()) == 1, what="the pageserver moved", deadline_s=60, ignoring=NOT_YET)
    left.start()
    left.ready()

    until(lambda: holders() and left.name not in holders(), what="it let go", deadline_s=60, ignoring=NOT_YET)
