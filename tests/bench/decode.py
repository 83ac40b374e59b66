"""Decoding WAL: ``walproxy inspect --stats=record``, our own table, beside ``pg_waldump --stats=record``."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.harness import Result, compare, rounds
from tools.server import Server

PEER = "pg_waldump --stats=record"
WAL_BYTES = 1 << 30


def run(folder: Path, bindir: Path, *, runs: int, say: Callable[[str], None]) -> list[Result]:
    """Whole commands, their start included, over a gigabyte of WAL of pgbench with images."""
    server = Server(folder / "decode", bindir, name="decode").initdb()
    try:
        segments = _write_wal(server)
        first, last = segments[0], segments[-1]
        megabytes = sum(path.stat().st_size for path in segments) / 1e6
        stats = ("inspect", str(first.parent), "--stats=record")
        taken = rounds(
            {
                "walproxy inspect": lambda: _timed([sys.executable, "-m", "walproxy", *stats], megabytes),
                PEER: lambda: _timed(
                    [str(bindir / "pg_waldump"), "--stats=record", str(first), str(last)], megabytes
                ),
            },
            runs=runs,
            say=say,
        )
    finally:
        server.destroy()
    return [
        compare(
            "decoding with statistics",
            "MB/s",
            ours=[figures["MB/s"] for figures in taken["walproxy inspect"]],
            peer=[figures["MB/s"] for figures in taken[PEER]],
            peer_name=PEER,
        )
    ]


def _write_wal(server: Server) -> Sequence[Path]:
    """Whole segments of pgbench's WAL, in a folder of their own."""
    server.configure(fsync=False, synchronous_commit=False, max_wal_size="16GB", wal_keep_size="8GB").start()
    server.run("pgbench", "-i", "-q", "-s", 10)
    start = server.value("select pg_current_wal_lsn()::text")
    while server.value("select pg_current_wal_lsn() - %s::pg_lsn", start) < WAL_BYTES:
        server.run("pgbench", "-n", "-c", 4, "-j", 2, "-t", 4_000)
        server.query("checkpoint")
    first, last = server.query(
        "select pg_walfile_name(%s::pg_lsn + 16777216), pg_walfile_name(pg_switch_wal())", start
    )[0]
    server.stop()
    kept = server.own(server.folder / "wal")
    for path in sorted((server.data_dir / "pg_wal").glob("[0-9A-F]*")):
        if len(path.name) == 24 and first <= path.name < last:
            path.rename(kept / path.name)
    return sorted(kept.iterdir())


def _timed(command: Sequence[str], megabytes: float) -> Mapping[str, float]:
    begin_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    taken_s = time.perf_counter() - begin_s
    # pg_waldump says with an error that the last record goes on in a segment it was not given.
    assert done.stdout, f"{command[0]} gave nothing: {done.stderr[-500:]}"
    return {"MB/s": megabytes / taken_s}
