"""Commits through three nodes, beside three ``pg_receivewal --synchronous`` and beside no standby at all.

One-row inserts, and pgbench's own tpcb-like transaction.
"""

import itertools
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from tests.bench.harness import Result, compare, percentile, rounds
from tools.process import Process
from tools.server import Server
from tools.stack import Stack
from tools.wait import until

CLIENTS = (1, 8, 32)
ROW = "insert into commits values (:client_id, 'one row of a hundred bytes or so ' || repeat('x', 70));\n"
TPCB_SCALE = 10
OURS, RECEIVERS, ALONE = "three nodes", "ANY 2 of three pg_receivewal", "no standby"


def run(
    folder: Path, bindir: Path, *, runs: int, duration_s: int, say: Callable[[str], None]
) -> list[Result]:
    """All results of this benchmark: throughput and latency at each number of clients, against both peers."""
    results: list[Result] = []
    with ExitStack() as cleanup:
        servers = {name: cleanup.enter_context(_primary(folder / key, bindir)) for name, key in _KEYS.items()}
        stack = Stack(folder / "nodes", servers[OURS])
        cleanup.callback(stack.kill)
        arrangements: Mapping[str, Callable[[], AbstractContextManager[None]]] = {
            OURS: lambda: _nodes(stack),
            RECEIVERS: lambda: _receivers(servers[RECEIVERS]),
            ALONE: lambda: _alone(servers[ALONE]),
        }
        for load, clients in itertools.product(("row", "tpcb"), CLIENTS):

            def measure(
                name: str, load: str = load, clients: int = clients
            ) -> Callable[[], Mapping[str, float]]:
                def take() -> Mapping[str, float]:
                    with arrangements[name]():
                        return _load(servers[name], load, clients, duration_s)

                return take

            taken = rounds({name: measure(name) for name in arrangements}, runs=runs, say=say)
            results += _results(load, clients, taken)
    return results


_KEYS = {OURS: "ours", RECEIVERS: "receivers", ALONE: "alone"}


def _results(load: str, clients: int, taken: Mapping[str, list[Mapping[str, float]]]) -> Iterator[Result]:
    for peer in (RECEIVERS, ALONE):
        for figure, unit in (("throughput", "commits/s"), ("p50", "ms"), ("p99", "ms")):
            yield compare(
                f"commit {figure}, {load}, {clients} client{'s' if clients > 1 else ''}",
                unit,
                ours=[figures[figure] for figures in taken[OURS]],
                peer=[figures[figure] for figures in taken[peer]],
                peer_name=peer,
                better="higher" if figure == "throughput" else "lower",
            )


@contextmanager
def _primary(folder: Path, bindir: Path) -> Iterator[Server]:
    server = Server(folder, bindir, name=folder.name).initdb()
    try:
        server.configure(max_wal_size="4GB", checkpoint_timeout="30min", autovacuum=False).start()
        server.query("create table commits (client int, filler text)")
        server.run("pgbench", "-i", "-q", "-s", TPCB_SCALE)
        yield server
    finally:
        server.destroy()


@contextmanager
def _nodes(stack: Stack) -> Iterator[None]:
    stack.start(pageserver=False)
    try:
        yield
    finally:
        stack.primary.reload(synchronous_standby_names="")
        for node in stack.nodes:
            node.stop()


@contextmanager
def _receivers(server: Server) -> Iterator[None]:
    names = ("a", "b", "c")
    receivers = [_receiver(server, name) for name in names]
    server.reload(synchronous_standby_names="ANY 2 (a, b, c)", synchronous_commit="on")
    try:
        for receiver in receivers:
            receiver.start()
        waiting = "select count(*) = 3 from pg_stat_replication where sync_state = 'quorum'"
        until(lambda: server.value(waiting), what="three receivers are synchronous")
        yield
    finally:
        server.reload(synchronous_standby_names="")
        for receiver in receivers:
            receiver.stop()


def _receiver(server: Server, name: str) -> Process:
    target = server.own(server.folder / f"wal-{name}")
    if not server.value("select count(*) from pg_replication_slots where slot_name = %s", f"slot_{name}"):
        server.query("select pg_create_physical_replication_slot(%s, true)", f"slot_{name}")
    options = ("--synchronous", "--no-password", "-D", str(target), "-S", f"slot_{name}")
    dsn = server.conninfo(application_name=name)
    return server.background("pg_receivewal", *options, "-d", dsn, name=f"receiver-{name}")


@contextmanager
def _alone(server: Server) -> Iterator[None]:
    assert server.value("show synchronous_standby_names") == ""
    yield


def _load(server: Server, load: str, clients: int, duration_s: int) -> Mapping[str, float]:
    folder = server.own(server.folder / "load")
    for old in folder.iterdir():
        old.unlink()
    script = folder / "row.sql"
    script.write_text(ROW)
    what = ("-f", script) if load == "row" else ("-b", "tpcb-like")
    shape = ("-n", "-c", clients, "-j", min(clients, 2), "-T", duration_s)
    server.run("pgbench", *shape, "-M", "prepared", *what, "-l", "--log-prefix", folder / "log")
    lines = [line.split() for log in folder.glob("log.*") for line in log.read_text().splitlines()]
    latencies_ms = [int(fields[2]) / 1000 for fields in lines]
    return {
        "throughput": len(latencies_ms) / duration_s,
        "p50": statistics.median(latencies_ms),
        "p99": percentile(latencies_ms, 0.99),
    }
