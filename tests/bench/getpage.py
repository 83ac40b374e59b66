"""Pages at an LSN from the pageserver, beside the live pages of pageinspect, through one connection each."""

import random
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from tests.bench.harness import Result, compare, percentile, rounds
from tools.server import Server
from tools.stack import Stack

PEER = "pageinspect"
TABLE = "pgbench_accounts"
REL = """
    select format('%%s/%%s/%%s', d.dattablespace, d.oid, pg_relation_filenode(c.oid)),
        pg_relation_size(c.oid) / 8192
    from pg_class c, pg_database d where c.oid = %s::regclass and d.datname = current_database()
"""


def run(
    folder: Path, bindir: Path, *, runs: int, duration_s: int, say: Callable[[str], None]
) -> list[Result]:
    """Random pages of a table with some history, one request at a time."""
    with ExitStack() as cleanup:
        primary = Server(folder / "primary", bindir, name="primary").initdb()
        cleanup.callback(primary.destroy)
        stack = Stack(folder / "stack", primary, nodes=1)
        cleanup.callback(stack.kill)
        primary.configure(checkpoint_timeout="30min", max_wal_size="8GB").start()
        primary.run("pgbench", "-i", "-q", "-s", 10)
        primary.query("create extension pageinspect")
        stack.start()
        primary.run("pgbench", "-n", "-c", 4, "-t", 5000)
        rel, blocks = primary.query(REL, TABLE)[0]
        lsn = primary.value("select pg_current_wal_insert_lsn()::text")
        stack.pageserver.query("select wait_for_lsn(%s::pg_lsn)", lsn)
        ours = cleanup.enter_context(stack.pageserver.connect())
        peer = cleanup.enter_context(primary.connect())
        draw = random.Random(5)  # The same pages in every run of the benchmark.

        def measure(
            connection: psycopg.Connection[Any], query: str, first: str, *more: str
        ) -> Mapping[str, float]:
            asked = [draw.randrange(blocks) for _ in range(200_000)]
            return _requests(
                connection, query, lambda at: (first, "main", asked[at % len(asked)], *more), duration_s
            )

        taken = rounds(
            {
                "pageserver": lambda: measure(
                    ours, "select get_raw_page(%s, %s, %s::int8, %s::pg_lsn)", rel, lsn
                ),
                PEER: lambda: measure(peer, "select get_raw_page(%s, %s, %s::int8)", TABLE),
            },
            runs=runs,
            say=say,
        )
    return [
        compare(
            f"GetPage@LSN {figure}",
            unit,
            ours=[figures[figure] for figures in taken["pageserver"]],
            peer=[figures[figure] for figures in taken[PEER]],
            peer_name=f"{PEER}, one connection",
            better="higher" if figure == "throughput" else "lower",
        )
        for figure, unit in (("throughput", "pages/s"), ("p50", "us"), ("p99", "us"))
    ]


def _requests(
    connection: psycopg.Connection[Any],
    query: str,
    arguments: Callable[[int], tuple[object, ...]],
    duration_s: float,
) -> Mapping[str, float]:
    latencies_us: list[float] = []
    begin_s = now_s = time.perf_counter()
    with connection.cursor(binary=True) as cursor:
        while now_s - begin_s < duration_s:
            page = cursor.execute(query.encode(), arguments(len(latencies_us)), prepare=True).fetchone()
            assert page is not None
            assert len(page[0]) == 8192
            then_s, now_s = now_s, time.perf_counter()
            latencies_us.append((now_s - then_s) * 1e6)
    return {
        "throughput": len(latencies_us) / (now_s - begin_s),
        "p50": percentile(latencies_us, 0.5),
        "p99": percentile(latencies_us, 0.99),
    }
