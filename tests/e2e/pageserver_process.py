"""What tests ask of a pageserver process: has it everything, are its pages those of a quiet primary."""

import struct
import time

from tools.process import Process
from tools.server import Server
from tools.stack import Program
from tools.wait import until
from walcore._native import mask_page
from walproxy.wire.lsn import Lsn, parse_lsn

LOGGED = """
    select format('%s/%s/%s', coalesce(nullif(c.reltablespace, 0), d.dattablespace),
                  case when c.relisshared then 0 else d.oid end, pg_relation_filenode(c.oid)),
           c.oid::regclass::text, coalesce(a.amname, 'heap'), pg_relation_size(c.oid) / 8192,
           pg_relation_size(c.oid, 'vm') / 8192
    from pg_class c join pg_database d on d.datname = current_database()
      left join pg_am a on a.oid = c.relam and c.relkind = 'i'
    where c.relkind in ('r', 'i', 't', 'm') and c.relpersistence = 'p'
"""


def catch_up(primary: Server, pageserver: Program) -> str:
    """Wait until the pageserver has everything; the LSN."""
    lsn: str = primary.value("select pg_current_wal_insert_lsn()::text")
    pageserver.query("select wait_for_lsn(%s::pg_lsn, 60)", lsn)
    return lsn


def differences(primary: Server, pageserver: Program) -> tuple[int, list[str]]:
    """Compare every page of a quiet primary's database; how many, and which differ."""
    primary.query("create extension if not exists pageinspect")
    primary.reload(autovacuum=False)
    workers = "select count(*) = 0 from pg_stat_activity where backend_type = 'autovacuum worker'"
    until(lambda: primary.value(workers), what="no autovacuum runs")
    lsn = catch_up(primary, pageserver)
    pages = 0
    different = []
    with primary.connect() as live, pageserver.connect() as ours:
        for rel, name, method, main_blocks, vm_blocks in live.execute(LOGGED.encode()).fetchall():
            for fork, blocks in (("main", main_blocks), ("vm", vm_blocks)):
                query = b"select * from get_raw_pages(%s, %s, %s::int8[], %s::pg_lsn[])"
                (size,) = ours.execute(b"select relation_size(%s, %s, %s)", (rel, fork, lsn)).fetchone() or (
                    None,
                )
                theirs = dict(
                    live.execute(
                        b"select b, get_raw_page(%s, %s, b) from generate_series(0, %s) b",
                        (name, fork, blocks - 1),
                    ).fetchall()
                )
                trailing = [theirs[block] for block in range(size or 0, blocks)]
                if any(page_lsn(page) for page in trailing):
                    different.append(f"{name} {fork}: {size} blocks, not {blocks}")
                if not size:
                    continue
                for start in range(0, size, 500):
                    asked = list(range(start, min(start + 500, size)))
                    # Our own look at the catalogs may have pruned a page of them meanwhile.
                    lsns = [str(max(parse_lsn(lsn), page_lsn(theirs[block]))) for block in asked]
                    for block, page, error in ours.execute(query, (rel, fork, asked, lsns)):
                        pages += 1
                        how = "vm" if fork == "vm" else method
                        if error is not None or masked(page, how, block) != masked(theirs[block], how, block):
                            different.append(f"{name} {fork} {block}: {error}")
    return pages, different


def page_lsn(page: bytes) -> Lsn:
    high, low = struct.unpack_from("<II", page)
    return Lsn(high << 32 | low)


def masked(page: bytes, method: str, block: int) -> bytes:
    """As WAL decides it: pd_lsn and all that Postgres' own mask functions leave."""
    return page[:8] + mask_page(page, access_method=method, blkno=block)[8:]


def load(server: Server, seconds: int) -> Process:
    process = server.background("pgbench", "-n", "-c", 4, "-T", seconds, name=f"load-{time.monotonic_ns()}")
    process.start()
    return process
