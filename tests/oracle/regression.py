"""PostgreSQL's own regression suite on a primary of the whole stack: every image in its WAL, then every page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pageserver import checkwal
from tests.oracle.finding import Finding
from tools import regress
from tools.server import Server, Setting
from tools.stack import Stack
from tools.wait import until
from walproxy.wire.lsn import parse_lsn

SETTINGS: dict[str, Setting] = {
    "wal_consistency_checking": "all",
    "full_page_writes": False,
    "wal_compression": "lz4",
    "fsync": False,
    "shared_buffers": "128MB",
    "wal_sender_timeout": "60s",
}
KEPT = (
    "pages",
    "identical",
    "different",
    "differences_found",
    "not_checked",
    "vanished",
    "sections",
    "databases",
)


def run(folder: Path, major: int, *, deadline_s: float = 3600.0) -> Finding:
    """Run the suite through the nodes, check the WAL that the pageserver has, compare the whole cluster."""
    suite = regress.suite(major)
    server = Server(folder / "primary", suite.bindir).initdb().configure(**SETTINGS)
    stack = Stack(folder / "stack", server)
    try:
        stack.start(deadline_s=300)
        outcome = regress.run(suite, server, folder / "output", deadline_s=deadline_s)
        version = str(server.value("show server_version"))
        end_lsn = parse_lsn(str(server.value("select pg_current_wal_insert_lsn()")))
        until(
            lambda: parse_lsn(stack.pageserver.status()["ingested_lsn"]) >= end_lsn,
            what="the pageserver has the WAL of the suite",
            deadline_s=deadline_s,
        )
        verified = stack.verify(deadline_s=deadline_s)
        stack.pageserver.stop()
        report = checkwal.check(stack.pageserver.data_dir / "wal")
        extra: Mapping[str, Any] = {
            "tests_passed": outcome.passed,
            "tests_failed": list(outcome.failed),
            "verify": {name: verified[name] for name in KEPT} | {"differences": verified["differences"][:20]},
        }
        return Finding.of("regression", report, version=version, settings=SETTINGS, extra=extra)
    finally:
        stack.kill()
        server.destroy()
