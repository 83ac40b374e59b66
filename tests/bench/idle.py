"""What a group of three nodes costs while its primary has nothing to say, beside one idle ``pg_receivewal``."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.harness import Result, compare, rounds
from tools.process import Process
from tools.server import Server
from tools.stack import Stack
from tools.wait import until

IDLE_S = 60.0
SETTLED_S = 5.0
OURS, PEER = "a node", "pg_receivewal --synchronous"


def run(folder: Path, bindir: Path, *, runs: int, say: Callable[[str], None]) -> list[Result]:
    """The share of a core that the busiest of the three nodes uses, in percent."""
    server = Server(folder / "primary", bindir, name="primary").initdb()
    stack = Stack(folder / "nodes", server)
    receiver = server.background(
        "pg_receivewal",
        "--synchronous",
        "-D",
        server.own(server.folder / "received"),
        "-d",
        server.conninfo(),
    )
    try:
        stack.start(pageserver=False)
        receiver.start()
        streaming = "select count(*) from pg_stat_replication where application_name = 'pg_receivewal'"
        until(lambda: server.value(streaming), what="pg_receivewal streams")
        server.query("checkpoint")
        time.sleep(SETTLED_S)
        taken = rounds({"idle": lambda: _idle(stack, receiver)}, runs=runs, say=say)["idle"]
    finally:
        receiver.kill()
        stack.kill()
        server.destroy()
    return [
        compare(
            "idle CPU of a core",
            "%",
            ours=[figures[OURS] for figures in taken],
            # Of a receiver that used no tick at all: half of one.
            peer=[max(figures[PEER], 0.5 / IDLE_S) for figures in taken],
            peer_name=PEER,
            better="lower",
        )
    ]


def _idle(stack: Stack, receiver: Process) -> Mapping[str, float]:
    before = [process.cpu_s for process in (*stack.nodes, receiver)]
    time.sleep(IDLE_S)
    *nodes, peer = (
        100 * (process.cpu_s - was) / IDLE_S
        for process, was in zip((*stack.nodes, receiver), before, strict=True)
    )
    return {OURS: max(nodes), PEER: peer}
