"""Members come, go and are replaced while commits go on: none is lost, none waits long. docs/quorum.md rules 19, 20."""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.e2e.test_quorum_processes import assert_logs_are_equal
from tests.fix_stack import NewStack
from tools.ledger import Ledger, longest_stall
from tools.process import Process
from tools.stack import Program, Stack
from tools.wait import until
from walproxy.wire.lsn import parse_lsn

NOT_YET = (psycopg.Error, OSError)
LONGEST_STALL_S = 10.0  # A bound for a busy machine; `make failover` measures.


def member(stack: Stack, *arguments: str, asked: Program | None = None) -> subprocess.CompletedProcess[str]:
    """Run `walproxy member …` with the file of a node that may be stopped."""
    node = asked or stack.nodes[0]
    command = node.cli("member", *arguments, "--config", str(node.config))
    return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)


def changed(stack: Stack, *arguments: str, asked: Program | None = None) -> None:
    done = member(stack, *arguments, asked=asked)
    assert done.returncode == 0, f"member {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"


def names(stack: Stack) -> set[str]:
    done = member(stack, "list", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["phase"] == "settled", shown
    return {row["name"] for row in shown["members"]}


@pytest.fixture
def group(new_stack: NewStack) -> Stack:
    return new_stack().start(pageserver=False)


def started(stack: Stack, name: str, watched: list[Process]) -> Program:
    """A node that waits to be added."""
    node = stack.new_node(name)
    watched.append(node)
    node.start()
    return node.ready()


def added(stack: Stack, name: str, watched: list[Process]) -> Program:
    node = started(stack, name, watched)
    changed(stack, "add", name, "--address", node.conninfo())
    stack.nodes.append(node)
    return node


def removed(stack: Stack, node: Program) -> None:
    changed(stack, "remove", node.name, asked=next(other for other in stack.nodes if other is not node))
    stack.nodes.remove(node)


@contextlib.contextmanager
def load(stack: Stack) -> Iterator[None]:
    """Commits all the while; afterwards each that was acknowledged is there, and none waited long."""
    ledger = Ledger(stack.primary)
    ledger.create()
    running = ledger.start(clients=4, duration_s=240)
    try:
        until(lambda: stack.primary.value("select count(*) from ledger") > 100, what="the load runs")
        yield
        before = stack.primary.value("select count(*) from ledger")
        until(lambda: stack.primary.value("select count(*) from ledger") > before + 100, what="it still runs")
    finally:
        running.stop()
    commits = ledger.commits()
    stall = longest_stall(commits)
    print(f"{len(commits)} commits, longest stall {stall:.3f} s")
    assert ledger.missing_from(stack.primary) == set()
    assert stall < LONGEST_STALL_S, f"{stall} s"
    assert_logs_are_equal(stack)


@pytest.mark.slow
def test_a_killed_node_whose_disk_is_deleted_is_replaced_under_its_own_name(group: Stack) -> None:
    lost = group.acceptors()[0]
    old_id = lost.status()["node_id"]
    with load(group):
        lost.kill()
        shutil.rmtree(lost.data_dir)
        lost.start()
        lost.ready()

        changed(group, "replace", lost.name, lost.name, "--address", lost.conninfo(), asked=group.proposer())

        assert lost.status()["node_id"] != old_id
        until(lambda: lost.status()["role"] == "acceptor", what="it has a vote", ignoring=NOT_YET)
        assert names(group) == {node.name for node in group.nodes}


@pytest.mark.slow
def test_two_are_added_and_two_removed_the_proposer_too(group: Stack, watched: list[Process]) -> None:
    with load(group):
        for name in ("node-x", "node-y"):
            added(group, name, watched)
        assert names(group) == {"node-a", "node-b", "node-c", "node-x", "node-y"}

        leaving = group.proposer()
        removed(group, leaving)
        removed(group, group.acceptors()[0])

        assert len(names(group)) == 3
        until(lambda: leaving.status()["role"] == "removed", what="it knows", ignoring=NOT_YET)
        assert "not a member of its group" in leaving.tail(400)
        term = group.proposer().status()["term"]
        until(lambda: leaving.status()["role"] == "removed", what="it still answers", ignoring=NOT_YET)
        assert group.proposer().status()["term"] == term
        assert leaving.stop() == 0


@pytest.mark.slow
def test_all_three_are_replaced_one_by_one(group: Stack, watched: list[Process]) -> None:
    with load(group):
        for old, name in zip(list(group.nodes), ("node-x", "node-y", "node-z"), strict=True):
            new = started(group, name, watched)
            changed(group, "replace", old.name, name, "--address", new.conninfo(), asked=group.nodes[-1])
            group.nodes.remove(old)
            group.nodes.append(new)
            assert old.stop() == 0

        assert names(group) == {"node-x", "node-y", "node-z"}


@pytest.mark.slow
def test_a_rolling_restart_costs_no_commit_and_little_time(group: Stack) -> None:
    with load(group):
        for node in group.nodes:
            assert node.stop() == 0
            node.start()
            node.ready()
            until(lambda: all_follow(group), what="it has caught up", ignoring=NOT_YET)


def all_follow(group: Stack) -> bool:
    peers = group.proposer().status()["peers"].values()
    return len(peers) == 2 and all(peer["streaming"] and peer["lag_bytes"] < 1 << 20 for peer in peers)


def test_an_old_copy_of_a_replaced_node_gets_no_vote(group: Stack, watched: list[Process]) -> None:
    lost = group.acceptors()[0]
    lost.kill()
    old_copy = lost.folder / "old"
    lost.data_dir.rename(old_copy)
    new = started(group, "node-x", watched)
    changed(group, "replace", lost.name, new.name, "--address", new.conninfo(), asked=group.proposer())

    old_copy.rename(lost.data_dir)
    lost.start()

    until(lambda: lost.status()["role"] == "removed", what="it knows", ignoring=NOT_YET)
    group.nodes.remove(lost)
    group.nodes.append(new)
    assert names(group) == {node.name for node in group.nodes}
    status = subprocess.run(
        group.nodes[0].cli("status", "--config", str(group.nodes[0].config)),
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "250", "PATH": ""},
    )
    assert status.returncode == 0, status.stdout
    assert lost.stop() == 0


def test_a_member_that_came_since_the_file_was_written_leads_and_is_found(
    group: Stack, watched: list[Process]
) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        asked = group.nodes[0].cli(*arguments, "--json")
        return subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)

    file, one = ("--config", str(group.nodes[0].config)), ("--node", group.nodes[1].conninfo())
    assert "[members]" in group.nodes[0].config.read_text()
    new = added(group, "node-x", watched)

    def leads() -> bool:
        handed = command("transfer", "--to", new.name, *file)
        # On a slow machine another may be elected, or itself before it is asked to.
        return handed.returncode == 0 or "node-x is the proposer already" in handed.stderr

    until(leads, what="node-x leads")
    group.wait_for_quorum()
    sealed = command("seal", *one)
    assert sealed.returncode == 0, sealed.stderr
    assert command("seal", *file).stdout == sealed.stdout
    sealed_lsn = json.loads(sealed.stdout)["sealed_lsn"]
    assert group.proposer().status()["sealed_lsn"] == sealed_lsn
    opened = command("unseal", *one)
    assert opened.returncode == 0, opened.stderr
    assert parse_lsn(json.loads(opened.stdout)["open_from_lsn"]) >= parse_lsn(sealed_lsn)


def test_nonsense_is_refused(group: Stack) -> None:
    a, b = group.nodes[:2]
    for arguments, code, said in (
        (("remove", "node-q"), 1, "no such member"),
        (("replace", "node-q", "node-r", "--address", "host=127.0.0.1 port=1"), 1, "no such member"),
        (("add", "node-q", "--address", b.conninfo()), 1, "another node answers there"),
        (("add", "node-q", "--address", "host=127.0.0.1 port=1"), 2, "does not answer"),
        (("replace", a.name, b.name, "--address", b.conninfo()), 1, "both are members"),
    ):
        done = member(group, *arguments)
        assert (done.returncode, said in done.stderr) == (code, True), f"{arguments}: {done.stderr}"
    changed(group, "add", b.name, "--address", b.conninfo())
    assert group.proposer().status()["generation"] == 1


def test_a_set_that_could_not_commit_and_the_last_member_are_refused(new_stack: NewStack) -> None:
    group = new_stack(nodes=2).start(pageserver=False)
    leaving = group.proposer()
    group.acceptors()[0].pause()
    try:
        done = member(group, "remove", leaving.name, "--timeout", "5", asked=leaving)
        assert done.returncode == 2, done.stderr
    finally:
        for node in group.nodes:
            node.resume()
    until(lambda: all(node.status()["leader"] for node in group.nodes), what="a proposer", ignoring=NOT_YET)
    removed(group, group.acceptors()[0])

    done = member(group, "remove", group.nodes[0].name)

    assert (done.returncode, "last member" in done.stderr) == (1, True), done.stderr


@pytest.mark.slow
def test_a_newcomer_that_stops_half_way_stalls_nobody_and_begins_again(
    new_stack: NewStack, watched: list[Process]
) -> None:
    stack = new_stack(primary={"segment_size_mb": 1, "full_page_writes": False})
    group = stack.start(pageserver=False)
    new = started(group, "node-x", watched)
    new.pause()
    asking = member(group, "add", new.name, "--address", new.conninfo(), "--force", "--timeout", "1")
    assert asking.returncode == 2
    assert group.proposer().status()["membership"]["phase"] == "learning"
    refused = member(group, "remove", group.nodes[0].name)
    assert (refused.returncode, "another change" in refused.stderr) == (2, True)

    new.resume()
    changed(group, "add", new.name, "--address", new.conninfo())
    assert "node-x" in names(group)
