"""Seen in system calls: no vote and no flush position leaves a node before its sync has returned."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.promises import Node, acknowledged_too_early
from tests.fix_stack import NewStack
from tools import strace
from tools.ledger import Ledger


@pytest.mark.slow
@pytest.mark.timeout(600)  # strace stops every process at each system call.
def test_promises_leave_after_their_syncs(new_stack: NewStack, folder: Path) -> None:
    stack = new_stack()
    traces = {node.name: folder / f"{node.name}.strace" for node in stack.nodes}
    for node in stack.nodes:
        node.wrap(*strace.wrapper(traces[node.name]))
    ledger = Ledger(stack.primary.start())
    ledger.create()  # Before the nodes: what they need not carry need not be traced.
    stack.start(pageserver=False)

    assert ledger.start(clients=4, duration_s=4).wait(deadline_s=90) == 0
    killed = stack.proposer()
    taken = [node.status()["appends_taken_natively"] for node in stack.nodes if node is not killed]
    killed.kill()
    stack.wait_for_quorum(deadline_s=60)
    assert ledger.start(clients=4, duration_s=3).wait(deadline_s=90) == 0
    stack.kill()

    traced = [followed(name, trace) for name, trace in traces.items()]
    assert [breach for node in traced for breach in node.breaches] == []
    assert acknowledged_too_early(traced, quorum=2) == []
    # A check that saw nothing would prove nothing.
    assert min(taken) > 0
    assert sum(node.seen.get("VoteReply", 0) for node in traced) >= 2
    assert all(node.seen.get("AppendReply", 0) > 100 for node in traced if node.name != killed.name)
    assert sum(len(node.acknowledged) for node in traced) > 100


def followed(name: str, trace: Path) -> Node:
    node = Node(name)
    with trace.open(errors="replace") as lines:
        node.follow(list(strace.parse(lines)))
    return node


def test_strace_works_here(folder: Path) -> None:
    trace = folder / "trace"

    subprocess.run([*strace.wrapper(trace), "sync", "-d", str(folder)], check=True)

    assert trace.exists()
