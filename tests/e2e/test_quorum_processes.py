"""Three node processes behind a stock primary: what is acknowledged stays, whoever dies. docs/quorum.md."""

import shutil
import subprocess
import time
from pathlib import Path
from threading import Thread

import psycopg
import pytest

from tests.fix_pg import NewServer
from tests.fix_stack import NewStack
from tools.ledger import Ledger, longest_stall
from tools.logs import log_differences
from tools.process import Process
from tools.stack import Program, Stack
from tools.wait import until
from walproxy.wire.lsn import Lsn, parse_lsn

SEGMENT_BYTES = 16 << 20
NOT_YET = (psycopg.Error, OSError)


def commit_of(node: Program) -> Lsn:
    return parse_lsn(str(node.status()["commit_lsn"]))


def assert_logs_are_equal(stack: Stack) -> None:
    """Byte by byte, up to a commit LSN that all have reached."""
    end = until(lambda: max(map(commit_of, stack.nodes)), what="a commit lsn", ignoring=NOT_YET)
    until(
        lambda: all(commit_of(node) >= end for node in stack.nodes),
        what=f"all reach {end}",
        ignoring=NOT_YET,
    )
    assert list(log_differences(stack.nodes, end, SEGMENT_BYTES)) == []


def commits_in_time(stack: Stack, value: int, *, timeout_s: float = 30.0) -> bool:
    """True if a commit is acknowledged in time. The attempt goes on in the background otherwise."""
    done: list[int] = []

    def attempt() -> None:
        with stack.primary.connect() as connection:
            connection.execute("insert into t values (%s)", [value])
            done.append(value)

    thread = Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return bool(done)


@pytest.fixture
def quorum(new_stack: NewStack) -> Stack:
    """Three nodes behind a running primary, with a table t."""
    stack = new_stack().start(pageserver=False)
    stack.primary.query("create table t (id int)")
    return stack


def test_a_proposer_killed_under_load_costs_no_commit_and_little_time(quorum: Stack) -> None:
    ledger = Ledger(quorum.primary)
    ledger.create()
    load = ledger.start(clients=4, duration_s=10)
    until(lambda: quorum.primary.value("select count(*) from ledger") > 100, what="the load runs")

    killed = quorum.proposer()
    killed_s = time.time()
    killed.kill()
    other = until(lambda: other_proposer(quorum, killed), what="another node takes over")
    killed.start()
    assert load.wait(deadline_s=60) == 0

    commits = ledger.commits()
    assert other is not killed
    assert sum(commit.at_s > killed_s + 1 for commit in commits) > 100
    assert longest_stall(commits, from_s=killed_s - 1, to_s=killed_s + 5) < 10
    assert ledger.missing_from(quorum.primary) == set()
    assert_logs_are_equal(quorum)


def other_proposer(stack: Stack, than: Program) -> Program | None:
    found = [node for node, status in stack.roles() if status["role"] == "proposer" and node is not than]
    return found[0] if found else None


def test_with_two_of_three_stopped_no_commit_returns(quorum: Stack) -> None:
    assert commits_in_time(quorum, 1)
    acceptors = quorum.acceptors()

    for node in acceptors:
        node.pause()
    try:
        assert not commits_in_time(quorum, 2, timeout_s=4)
    finally:
        for node in acceptors:
            node.resume()

    assert until(lambda: quorum.primary.value("select count(*) from t where id = 2") == 1, what="it returns")
    quorum.wait_for_quorum()
    assert commits_in_time(quorum, 3)
    assert_logs_are_equal(quorum)


def test_a_stopped_proposer_is_soon_replaced_and_follows_when_it_wakes(quorum: Stack) -> None:
    stopped = quorum.proposer()
    # From its last word on, the primary keeps the slot for a stopped proposer.
    quorum.primary.query("insert into t values (0)")

    stopped.pause()
    try:
        assert commits_in_time(quorum, 1)
        assert other_proposer_running(quorum, stopped)
    finally:
        stopped.resume()

    until(lambda: stopped.status()["role"] == "acceptor", what="the old proposer follows", ignoring=NOT_YET)
    assert commits_in_time(quorum, 2)
    assert_logs_are_equal(quorum)


def other_proposer_running(stack: Stack, stopped: Program) -> bool:
    return any(node.status()["role"] == "proposer" for node in stack.nodes if node is not stopped)


def test_any_one_node_may_be_killed_and_catches_up(quorum: Stack) -> None:
    for number, node in enumerate(quorum.nodes):
        node.kill()
        assert commits_in_time(quorum, number, timeout_s=15), f"without {node.name}"
        node.start()
        node.ready()

    assert_logs_are_equal(quorum)


def test_the_whole_group_killed_at_once_goes_on(quorum: Stack) -> None:
    assert commits_in_time(quorum, 1)

    for node in quorum.nodes:
        node.kill()
    for node in quorum.nodes:
        node.start()

    assert commits_in_time(quorum, 2, timeout_s=20)
    assert_logs_are_equal(quorum)


def test_a_primary_that_crashes_finds_its_quorum_again(quorum: Stack) -> None:
    assert commits_in_time(quorum, 1)

    quorum.primary.kill()
    quorum.primary.start()

    quorum.wait_for_quorum()
    assert commits_in_time(quorum, 2, timeout_s=10)
    assert_logs_are_equal(quorum)


def test_one_node_alone_is_a_quorum(new_stack: NewStack) -> None:
    stack = new_stack(nodes=1).start(pageserver=False)
    stack.primary.query("create table t (id int)")
    node = stack.nodes[0]

    node.kill()
    assert not commits_in_time(stack, 1, timeout_s=2)
    node.start()

    stack.wait_for_quorum()
    assert commits_in_time(stack, 2, timeout_s=10)
    assert node.status()["role"] == "proposer"


def test_nodes_stopped_in_good_order_end_with_zero_and_start_where_they_were(quorum: Stack) -> None:
    assert commits_in_time(quorum, 1)
    before = max(map(commit_of, quorum.nodes))

    assert [node.stop() for node in quorum.nodes] == [0, 0, 0]
    for node in quorum.nodes:
        node.start()
        node.ready()

    assert min(map(commit_of, quorum.nodes)) >= before - SEGMENT_BYTES
    assert commits_in_time(quorum, 2, timeout_s=20)


def refusal(stack: Stack, reason: str) -> dict[str, object]:
    """Wait until the proposer refuses the primary for that reason, and give its status."""

    def look() -> dict[str, object] | None:
        for _, status in stack.roles():
            upstream = status["upstream"]
            if upstream["state"] == "refused" and reason in upstream["error"]:
                return dict(status)
        return None

    return until(look, what=f"the primary is refused: {reason}", deadline_s=40, ignoring=NOT_YET)


def swap_data(stack: Stack, data: Path) -> None:
    """Put another data directory in the place of the primary's, and start it."""
    stack.primary.kill()
    shutil.rmtree(stack.primary.data_dir)
    subprocess.run(["cp", "-a", data, stack.primary.data_dir], check=True)
    stack.primary.start()


def test_a_primary_that_is_behind_is_refused_and_nothing_touched(quorum: Stack, folder: Path) -> None:
    quorum.primary.stop(immediate=True)
    subprocess.run(["cp", "-a", quorum.primary.data_dir, folder / "older"], check=True)
    quorum.primary.start()
    quorum.wait_for_quorum()
    assert commits_in_time(quorum, 1, timeout_s=10)
    before = max(map(commit_of, quorum.nodes))

    swap_data(quorum, folder / "older")

    status = refusal(quorum, "behind")
    assert "what to do" in str(status["upstream"])
    assert max(map(commit_of, quorum.nodes)) >= before
    assert_logs_are_equal(quorum)


def test_another_cluster_is_refused(quorum: Stack, new_server: NewServer) -> None:
    stranger = new_server("stranger").start()
    stranger.stop()
    before = max(map(commit_of, quorum.nodes))

    swap_data(quorum, stranger.data_dir)

    refusal(quorum, "another cluster")
    assert max(map(commit_of, quorum.nodes)) >= before


def test_a_primary_that_diverged_is_refused(quorum: Stack, folder: Path) -> None:
    quorum.primary.stop(immediate=True)
    subprocess.run(["cp", "-a", quorum.primary.data_dir, folder / "older"], check=True)
    quorum.primary.start()
    quorum.wait_for_quorum()
    assert commits_in_time(quorum, 1, timeout_s=10)
    before = max(map(commit_of, quorum.nodes))

    for node in quorum.nodes:
        node.pause()
    swap_data(quorum, folder / "older")
    quorum.primary.reload(synchronous_standby_names="")
    # Other WAL at the same place, and more of it.
    quorum.primary.query("create table elsewhere as select generate_series(1, 20000) as id")
    quorum.primary.query("checkpoint")
    for node in quorum.nodes:
        node.resume()

    refusal(quorum, "diverged")
    assert max(map(commit_of, quorum.nodes)) >= before
    assert_logs_are_equal(quorum)


def limit_file_size(process: Process, size: int) -> None:
    """From now on a write beyond ``size`` fails, as it would on a broken disk."""
    subprocess.run(["prlimit", "--pid", str(process.pid), f"--fsize={size}"], check=True)


def test_a_failed_write_ends_the_node_with_its_own_code(quorum: Stack) -> None:
    node = quorum.acceptors()[0]

    limit_file_size(node, 4096)
    quorum.primary.query("insert into t select generate_series(1, 1000)")

    assert node.wait(deadline_s=20) == 4
    assert commits_in_time(quorum, 1)
    node.start()
    node.ready()
    assert_logs_are_equal(quorum)


def test_a_proposer_whose_disk_fails_hands_over(quorum: Stack) -> None:
    failing = quorum.proposer()

    limit_file_size(failing, 4096)

    assert commits_in_time(quorum, 1, timeout_s=15)
    assert failing.wait(deadline_s=20) == 4


def test_a_second_process_on_the_same_data_is_refused(quorum: Stack) -> None:
    node = quorum.nodes[0]

    done = subprocess.run(
        node.cli("run", "--config", str(node.config)), capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "data_dir" in done.stderr


def test_a_damaged_control_file_stops_the_node_and_says_what_to_do(quorum: Stack) -> None:
    node = quorum.acceptors()[0]
    node.stop()
    control = node.data_dir / "control"
    content = bytearray(control.read_bytes())
    content[len(content) // 2] ^= 1
    control.write_bytes(content)

    node.start()

    assert node.wait(deadline_s=20) == 3
    assert "damaged" in node.tail()
    assert control.read_bytes() == bytes(content)
