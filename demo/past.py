"""Pages remembered at an earlier LSN, and how fast pages of the past are given."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from pageserver.verify.compare import compare
from pageserver.verify.rule import asked_lsn
from tools.server import Server
from tools.stack import Program
from walproxy.wire.lsn import Lsn, parse_lsn

SEGMENT_BYTES = 16 * 1024 * 1024
TRIES_MAX = 3
FORKS = """
    select c.oid::regclass::text,
        format('%s/%s/%s', d.dattablespace, d.oid, pg_relation_filenode(c.oid)),
        pg_relation_size(c.oid) / 8192
    from pg_class c, pg_database d
    where d.datname = current_database() and c.relkind in ('r', 'i') and c.relpersistence = 'p'
        and c.reltablespace = 0 and pg_relation_size(c.oid) > 0
        and c.relname ~ '^(pgbench|ledger|pg_class|pg_attribute)'
"""
PAGE = "select get_raw_page(%s, 'main', %s::int8, %s::pg_lsn)"


@dataclass(frozen=True, slots=True)
class Remembered:
    """One page as the pageserver gave it, and the primary had it, when ``lsn`` was the present."""

    rel: str
    blkno: int
    lsn: Lsn
    page: bytes


def remember(primary: Server, pageserver: Program, *, pages: int) -> tuple[list[Remembered], int]:
    """Some pages of every table and index that pgbench writes to, and how many were not the primary's."""
    kept, different = [], 0
    draw = random.Random(2)
    with primary.connect() as live, pageserver.connect() as ours:
        forks = live.execute(FORKS.encode()).fetchall()
        for at in range(pages):
            name, rel, blocks = forks[at % len(forks)]
            blkno = draw.randrange(blocks)
            for _ in range(TRIES_MAX):
                lsn, page = _live_page(live, name, blkno)
                given = _page(ours, rel, blkno, lsn)
                if compare(page, given, kind=None, blkno=blkno).first_different is None:
                    kept.append(Remembered(rel, blkno, lsn, given))
                    break
            else:
                different += 1
    return kept, different


def _live_page(live: psycopg.Connection[Any], name: str, blkno: int) -> tuple[Lsn, bytes]:
    query = "select pg_current_wal_insert_lsn()::text"
    ((insert_lsn,),) = live.execute(query.encode()).fetchall()
    ((page,),) = live.execute("select get_raw_page(%s, 'main', %s)", (name, blkno)).fetchall()
    page_lsn = int.from_bytes(page[:4], "little") << 32 | int.from_bytes(page[4:8], "little")
    return asked_lsn(parse_lsn(insert_lsn), page_lsn, segment_size=SEGMENT_BYTES), page


def _page(ours: psycopg.Connection[Any], rel: str, blkno: int, lsn: Lsn) -> bytes:
    ((page,),) = ours.execute(PAGE.encode(), (rel, blkno, str(lsn))).fetchall()
    return bytes(page)


def changed(pageserver: Program, remembered: Sequence[Remembered]) -> int:
    """How many of the pages are not, byte for byte, what they were."""
    with pageserver.connect() as ours:
        return sum(_page(ours, page.rel, page.blkno, page.lsn) != page.page for page in remembered)


def latencies_us(pageserver: Program, remembered: Sequence[Remembered], *, requests: int) -> list[float]:
    """Of single requests through one connection: pages remembered, at LSNs between then and the last."""
    draw = random.Random(3)
    last = max(page.lsn for page in remembered)
    taken = []
    with pageserver.connect() as ours, ours.cursor(binary=True) as cursor:
        for _ in range(requests):
            page = draw.choice(remembered)
            lsn = Lsn(draw.randrange(page.lsn, last + 1))
            begin_s = time.perf_counter()
            cursor.execute(PAGE.encode(), (page.rel, page.blkno, str(lsn)), prepare=True).fetchone()
            taken.append((time.perf_counter() - begin_s) * 1e6)
    return sorted(taken)
