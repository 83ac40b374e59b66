"""The mixed workload of `tests/workloads` on a stock server, and every page image it logged."""

import subprocess
from pathlib import Path

from pageserver import checkwal
from tests.oracle.finding import Finding
from tools import postgres
from tools.server import Server, Setting

SCRIPT = Path(__file__).parents[1] / "workloads/mixed.sh"
ROUNDS = 2
TRANSACTIONS = 2500  # A client.

# Every page change carries an image to compare with, and none to start from.
SETTINGS: dict[str, Setting] = {
    "wal_consistency_checking": "all",
    "full_page_writes": False,
    "wal_level": "logical",
    "wal_keep_size": "100GB",
    "max_wal_size": "8GB",
    "fsync": False,
    "shared_buffers": "256MB",
}
# One way a major, so that each is read; 16 comes from a build that has only pglz.
COMPRESSION = {15: "lz4", 16: "pglz", 17: "zstd", 18: "lz4"}


def run(folder: Path, major: int, *, rounds: int = ROUNDS, transactions: int = TRANSACTIONS) -> Finding:
    """Run all of it, and check the WAL, which is removed with the server."""
    compression = COMPRESSION[major]
    features = () if compression == "pglz" else (compression,)
    server = Server(folder / "primary", postgres.bindir(major, features)).initdb()
    settings = SETTINGS | {"wal_compression": compression}
    server.configure(**settings).start()
    try:
        environment = server.environment | {"ROUNDS": str(rounds), "TX": str(transactions)}
        subprocess.run(["bash", SCRIPT], env=environment, check=True)
        version = str(server.value("show server_version"))
        server.stop(deadline_s=600)
        report = checkwal.check(server.data_dir / "pg_wal")
        return Finding.of("mixed", report, version=version, settings=settings)
    finally:
        server.destroy()
