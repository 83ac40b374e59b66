"""``make redo-coverage``: the table of `docs/redo-coverage.md`, from what the runs of the oracle found."""

from collections.abc import Iterator
from pathlib import Path

from tests.oracle.finding import Finding
from tools.postgres import MAJORS
from walcore._native import record_types

PAGE = Path(__file__).parents[2] / "docs/redo-coverage.md"
LETTERS = {"mixed": "m", "regression": "r", "rare": "o"}

ALWAYS_IMAGE = (
    "its page is always in the record, as an image that redo takes over: nothing is left to compare"
)
# Why records of a type are never compared, or never seen; for all of a resource manager or for one record.
NO_PAGE = {
    "XLOG": "changes no page",
    "Transaction": "changes no page of a relation; the commit log is compared by `pageserver verify`",
    "Storage": "creates or cuts a relation: sizes are compared by `pageserver verify`",
    "CLOG": "changes no page of a relation; the commit log is compared by `pageserver verify`",
    "Database": "copies or drops whole databases: compared by `pageserver verify`",
    "Tablespace": "changes no page",
    "MultiXact": "changes no page of a relation",
    "RelMap": "changes no page of a relation",
    "Standby": "changes no page",
    "CommitTs": "changes no page of a relation",
    "ReplicationOrigin": "changes no page",
    "LogicalMessage": "changes no page",
    "XLOG/FPI": ALWAYS_IMAGE,
    "Heap/TRUNCATE": "changes no page: for logical decoding",
    "Heap2/REWRITE": "changes no page: for logical decoding",
    "Heap2/NEW_CID": "changes no page: for logical decoding",
    "Btree/REUSE_PAGE": "changes no page: a conflict for hot standbys",
    "Gist/PAGE_REUSE": "changes no page: a conflict for hot standbys",
    "Gist/ASSIGN_LSN": "changes no page: takes a place in the WAL",
    "Hash/SPLIT_PAGE": ALWAYS_IMAGE,
    "Gin/SPLIT": ALWAYS_IMAGE,
    "Gin/VACUUM_PAGE": ALWAYS_IMAGE,
}
NEVER_WRITTEN = {
    "XLOG/NOOP": "never written by any server",
    "Heap/HOT_UPDATE+INIT": "never written: the old version of the row stands on the same page",
}

INTRODUCTION = """\
# What redo was compared with

Made by `make redo-coverage` from the files in [results](results), which `make oracle` writes. Each run is a stock
server with `wal_consistency_checking = all`: it puts the page as it is after a record into that record, and
`pageserver check-wal` compares it with what our redo made of the page before, both masked as PostgreSQL masks them.
A number counts compared pages (a record can have several); `seen` counts records where there is nothing to compare.
Letters tell the workloads: `m` the mixed one (`tests/workloads`, two rounds), `r` PostgreSQL's own regression suite
with its parallel schedule, `o` records provoked on purpose (`tests/oracle/rare.py`). `none`: that major has no such
record.
"""


class Unexplained(Exception):
    """A record type was never seen or never compared, and no reason is given. Provoke it, or give one."""


def page(findings: list[Finding]) -> str:
    """The text of it.

    Raises:
        Unexplained: a record type has neither a comparison nor a reason.
    """
    return "\n".join(_lines(findings)) + "\n"


def _lines(findings: list[Finding]) -> Iterator[str]:
    yield INTRODUCTION
    yield "| run | server | WAL, GB | compared | different | without redo | |"
    yield "|---|---|---:|---:|---:|---:|---|"
    for found in sorted(findings, key=lambda found: (list(LETTERS).index(found.workload), found.major)):
        figures = (
            f"{found.wal_bytes / 1e9:.1f}",
            f"{found.compared:,}",
            f"{found.different:,}",
            f"{found.unsupported:,}",
        )
        yield f"| {found.workload} | {found.version} | {' | '.join(figures)} | {_extra(found)} |"
    yield ""
    yield f"| rmgr | record | {' | '.join(map(str, MAJORS))} | |"
    yield f"|---|---|{'---|' * len(MAJORS)}---|"
    for rmgr, record in _types():
        cells = [_cell(findings, rmgr, record, major) for major in MAJORS]
        yield f"| {rmgr} | {record} | {' | '.join(cells)} | {_reason(findings, rmgr, record)} |"


def _types() -> list[tuple[str, str]]:
    """Every record of every major, resource managers in the order of their numbers."""
    types: dict[str, list[str]] = {}
    for major in MAJORS:
        for rmgr, record in record_types(major):
            records = types.setdefault(rmgr, [])
            if record not in records:
                records.append(record)
    return [(rmgr, record) for rmgr, records in types.items() for record in records]


def _cell(findings: list[Finding], rmgr: str, record: str, major: int) -> str:
    if (rmgr, record) not in record_types(major):
        return "none"
    letters, total = "", [0, 0, 0, 0]
    for workload, letter in LETTERS.items():
        for found in findings:
            figures = found.counts.get(rmgr, {}).get(record)
            if found.major == major and found.workload == workload and figures is not None:
                letters += letter
                total = [a + b for a, b in zip(total, figures, strict=True)]
    seen, compared, different, unsupported = total
    bad = f" **different {different + unsupported:,}**" if different + unsupported else ""
    if compared:
        return f"{letters} {compared:,}{bad}"
    return f"{letters} seen {seen:,}{bad}" if seen else "not seen"


def _reason(findings: list[Finding], rmgr: str, record: str) -> str:
    name = f"{rmgr}/{record}"
    if never := NEVER_WRITTEN.get(name):
        return never
    rows = [figures for found in findings if (figures := found.counts.get(rmgr, {}).get(record)) is not None]
    if any(compared for _, compared, _, _ in rows):
        return ""
    if not rows:
        raise Unexplained(f"{name} was not seen in any run")
    reason = NO_PAGE.get(name) or NO_PAGE.get(rmgr)
    if reason is None:
        raise Unexplained(f"{name} was seen and never compared")
    return reason


def _extra(found: Finding) -> str:
    if not (verified := found.extra.get("verify")):
        return ""
    passed, failed = found.extra["tests_passed"], found.extra["tests_failed"]
    tests = f"{passed} tests as expected" + (f", {len(failed)} not" if failed else "")
    return f"{tests}; afterwards verified: {verified['pages']:,} pages, {verified['different']} different"
