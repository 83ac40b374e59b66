"""A disk that fails a sync and is well again: nothing is lost that was acknowledged after it. Wants root."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_pg import NewServer
from tools.disk import Disk
from tools.process import Place, Process
from tools.stack import Program, Stack
from tools.wait import until
from walproxy.wire.lsn import Lsn, parse_lsn

TRIES = 5


@pytest.fixture
def disk(folder: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or not shutil.which("losetup") or not Path("/dev/loop-control").exists():
        pytest.skip("wants root and loop devices")
    made = Disk(folder / "disk", size_mb=512)
    yield made
    made.remove()


def lose_power(node: Program, disk: Disk) -> None:
    disk.fail()
    node.kill()
    disk.lose_power()


def fail_a_sync(stack: Stack, node: Program, disk: Disk) -> bool:
    """Let a large transaction meet a failing disk; False if the file system noticed it too, and gave up."""
    disk.sync()
    # Of small records: one that is not whole is forgotten anyway.
    query = (
        "select count(pg_logical_emit_message(true, 'test', repeat('x', 500))) from generate_series(1, 8000)"
    )
    attempt = stack.primary.background("psql", "-qAtc", query)
    disk.fail()
    attempt.start()
    try:
        assert node.wait(deadline_s=60) == 4
        disk.mend()
        if disk.is_read_only:
            disk.lose_power()
            return False
        node.start()
        node.ready(deadline_s=60)
        # The rest of it, and its acknowledgement.
        assert attempt.wait(deadline_s=60) == 0
        return True
    finally:
        attempt.kill()
        if not node.alive:
            node.start()


def log_end(node: Program) -> Lsn:
    """Where the log ended that it found when it started last."""
    found = re.findall(r'event="log recovered" end_lsn=(\S+)', node.tail(1000))
    return parse_lsn(found[-1])


@pytest.mark.slow
def test_after_a_failed_sync_nothing_counts_that_only_the_page_cache_has_rule_24(
    folder: Path, disk: Disk, new_server: NewServer, watched: list[Process]
) -> None:
    place = Place(data_dir=disk.folder / "data")
    stack = Stack(folder / "stack", new_server(), nodes=1, places={"node-a": place})
    (node,) = stack.nodes
    watched.append(node)
    try:
        stack.start(pageserver=False)
        for _ in range(TRIES):
            if fail_a_sync(stack, node, disk):
                break
            stack.wait_for_quorum(deadline_s=60)
        else:
            pytest.skip(f"the file system gave up {TRIES} times: nothing to see")
        acknowledged = parse_lsn(str(node.status()["commit_lsn"]))
        # It could only get it from there again.
        stack.primary.kill()

        lose_power(node, disk)
        node.start()
        node.ready(deadline_s=60)

        assert log_end(node) >= acknowledged
        until(lambda: node.status()["flush_lsn"], what="it says what it has")
    finally:
        stack.kill()
