"""Receiving what a primary has written in the meantime: three nodes, beside one ``pg_receivewal --synchronous``.

Wall time from the start of the programs to the end of WAL being safe: on a quorum, or flushed. CPU time is that of one
node, the mean of three, and that of pg_receivewal.
"""

import resource
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench.harness import Result, compare, rounds
from tools.server import Server
from tools.stack import Stack
from tools.wait import until
from walproxy.wire.lsn import Lsn, parse_lsn

BACKLOG_BYTES = 4 << 30
DEADLINE_S = 600.0
OURS, PEER = "three nodes", "pg_receivewal --synchronous"


def run(folder: Path, bindir: Path, *, runs: int, say: Callable[[str], None]) -> list[Result]:
    """Speed, and CPU time for each MB and node."""
    server = Server(folder / "primary", bindir, name="primary").initdb()
    stack = Stack(folder / "nodes", server)
    try:
        server.configure(
            max_wal_size="16GB", wal_keep_size="16GB", checkpoint_timeout="1h", autovacuum=False
        ).start()
        # Both begin here in each round: the nodes with the files they have now, the peer at a slot of its own.
        stack.start(pageserver=False)
        server.reload(synchronous_standby_names="")
        for node in stack.nodes:
            node.stop()
            shutil.copytree(node.data_dir, _as_it_was(node.data_dir))
        for number in range(runs):
            server.query("select pg_create_physical_replication_slot(%s, true)", f"slot_{number}")
        begin = parse_lsn(str(server.value("select pg_current_wal_flush_lsn()::text")))
        end = _write_backlog(server, begin)
        megabytes = (end - begin) / 1e6
        slots = iter(range(runs))
        taken = rounds(
            {
                OURS: lambda: _nodes(stack, end, megabytes),
                PEER: lambda: _receiver(server, next(slots), end, megabytes),
            },
            runs=runs,
            say=say,
        )
    finally:
        stack.kill()
        server.destroy()
    return [
        compare(
            f"backlog {figure}",
            unit,
            ours=[figures[figure] for figures in taken[OURS]],
            peer=[figures[figure] for figures in taken[PEER]],
            peer_name=PEER,
            better="higher" if figure == "speed" else "lower",
        )
        for figure, unit in (("speed", "MB/s"), ("cpu", "ms/MB a node"))
    ]


def _write_backlog(server: Server, begin: Lsn) -> Lsn:
    server.run("pgbench", "-i", "-q", "-s", 15)
    while parse_lsn(str(server.value("select pg_current_wal_lsn()::text"))) < begin + BACKLOG_BYTES:
        server.query("update pgbench_accounts set abalance = abalance + 1")
    return parse_lsn(str(server.value("select pg_switch_wal()::text")))


def _as_it_was(data_dir: Path) -> Path:
    return data_dir.with_name("as-it-was")


def _nodes(stack: Stack, end: Lsn, megabytes: float) -> Mapping[str, float]:
    for node in stack.nodes:
        shutil.rmtree(node.data_dir)
        shutil.copytree(_as_it_was(node.data_dir), node.data_dir)
    begun_s = time.perf_counter()
    for node in stack.nodes:
        node.start()
    for node in stack.nodes:
        node.ready()
    until(lambda: _committed(stack) >= end, what=f"{end} is committed", deadline_s=DEADLINE_S)
    wall_s = time.perf_counter() - begun_s
    cpu_s = sum(node.cpu_s for node in stack.nodes) / len(stack.nodes)
    for node in stack.nodes:
        node.stop()
    return {"speed": megabytes / wall_s, "cpu": 1000 * cpu_s / megabytes}


def _committed(stack: Stack) -> Lsn:
    return max(parse_lsn(str(status["commit_lsn"])) for _, status in stack.roles())


def _receiver(server: Server, number: int, end: Lsn, megabytes: float) -> Mapping[str, float]:
    target = server.own(server.folder / "received")
    options = ("--synchronous", "--no-password", "-D", target, "-S", f"slot_{number}", "--endpos", str(end))
    before_s, begun_s = _children_cpu_s(), time.perf_counter()
    server.run("pg_receivewal", *options, "-d", server.conninfo(), deadline_s=DEADLINE_S)
    wall_s = time.perf_counter() - begun_s
    cpu_s = _children_cpu_s() - before_s
    shutil.rmtree(target)
    return {"speed": megabytes / wall_s, "cpu": 1000 * cpu_s / megabytes}


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
