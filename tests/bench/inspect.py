"""Reading WAL for people: ``walproxy inspect --format=pg_waldump`` beside pg_waldump of the same major.

Whole commands, their start included, output thrown away: text over WAL of the mixed workload, totals by record over
at least 4 GB of WAL.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.harness import Result, compare, rounds
from tools.server import Server

WORKLOADS = Path(__file__).parent.parent / "workloads"
PEER = "pg_waldump"
TEXT_TX = 2_500
TOTALS_BYTES = 4 << 30
KEPT: Mapping[str, str | bool] = {
    "fsync": False,
    "synchronous_commit": False,
    "max_wal_size": "16GB",
    "wal_keep_size": "16GB",
}


def run(folder: Path, bindir: Path, *, runs: int, say: Callable[[str], None]) -> list[Result]:
    """Text, then totals."""
    results = []
    for name, options, write in (("text", (), _mixed), ("stats", ("--stats=record",), _updates)):
        server = Server(folder / name, bindir, name=name).initdb()
        try:
            server.configure(**KEPT).start()
            write(server)
            start = "0/1000000"
            end = server.value("select pg_switch_wal()::text")
            server.stop()
            # Not the switch itself: a reader may stop at its end.
            command = ("-p", str(server.data_dir / "pg_wal"), "-s", start, "-e", end, *options)
            results += _compare(f"inspect {name}", command, bindir, runs=runs, say=say)
        finally:
            server.destroy()
    return results


def _mixed(server: Server) -> None:
    environment = server.environment | {"TX": str(TEXT_TX), "ROUNDS": "1"}
    subprocess.run(["bash", WORKLOADS / "mixed.sh"], env=environment, check=True)


def _updates(server: Server) -> None:
    server.run("pgbench", "-i", "-q", "-s", 15)
    while server.value("select pg_current_wal_lsn() - '0/0'::pg_lsn") < TOTALS_BYTES + (16 << 20):
        server.query("update pgbench_accounts set abalance = abalance + 1")
        server.run("pgbench", "-n", "-c", 4, "-j", 2, "-t", 2_000)


def _compare(
    name: str, command: Sequence[str], bindir: Path, *, runs: int, say: Callable[[str], None]
) -> list[Result]:
    ours = [sys.executable, "-m", "walproxy", "inspect", "--format=pg_waldump", *command]
    theirs = [str(bindir / "pg_waldump"), *command]
    taken = rounds(
        {"walproxy inspect": lambda: _timed(ours), PEER: lambda: _timed(theirs)}, runs=runs, say=say
    )
    return [
        compare(
            f"{name}, {figure}",
            "s",
            ours=[figures[figure] for figures in taken["walproxy inspect"]],
            peer=[figures[figure] for figures in taken[PEER]],
            peer_name=PEER,
            better="lower",
        )
        for figure in ("wall", "cpu")
    ]


def _timed(command: Sequence[str]) -> Mapping[str, float]:
    before, begin_s = _cpu_s(), time.perf_counter()
    with Path(os.devnull).open("wb") as out:
        subprocess.run(command, stdout=out, check=True)
    return {"wall": time.perf_counter() - begin_s, "cpu": _cpu_s() - before}


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
