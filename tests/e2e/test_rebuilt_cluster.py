"""A stock server on nothing but rebuilt pages: amcheck, which knows what they must hold, finds nothing wrong."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fix_pageserver import NewPageserver, serving
from tests.fix_pg import NewServer
from tools.server import Server
from tools.stack import Program
from tools.wait import until

PAGE_BYTES = 8192
# btpo_flags: BTP_LEAF; BTP_DELETED, BTP_META and BTP_HALF_DEAD.
LEAF, NOT_LIVE = 1, 4 | 8 | 16
WORKLOAD = Path(__file__).parents[1] / "workloads" / "mixed.sh"
RELATION = re.compile(r"(?P<rel>\d+)(?:_(?P<fork>vm|init))?(?:\.\d+)?")
INDEXES = """
    select c.oid::regclass::text, c.oid::int8
    from pg_class c join pg_am a on a.oid = c.relam join pg_index i on i.indexrelid = c.oid
    where a.amname = 'btree' and c.relkind = 'i' and c.relpersistence = 'p' and i.indisvalid and i.indisready
"""
CHECK_TABLES = """
    select c.oid::regclass::text, v.blkno, v.offnum, v.msg
    from pg_class c, lateral verify_heapam(c.oid, check_toast => true) v
    where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'
"""
COUNT_CHECKED = """
    select count(*) from pg_class c left join pg_am a on a.oid = c.relam
    where c.relpersistence = 'p' and (c.relkind in ('r', 'm', 't') or a.amname = 'btree')
"""


def test_amcheck_passes_on_a_cluster_of_rebuilt_pages_and_fails_where_a_byte_of_one_is_wrong(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server(checksums=True, wal_level="logical", fsync=False, autovacuum_naptime="1s").start()
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    mixed_workload(primary)
    primary.stop()
    checkpoint = shutdown_checkpoint(primary)
    pageserver.query("select wait_for_lsn(%s::pg_lsn, 60)", checkpoint)
    assert pageserver.stop() == 0

    assert remove_logged_forks(primary) > 300
    report = write_files(pageserver, primary)
    assert report["unreadable"] == []
    assert report["pages"] > 2000

    primary.start()
    complaints, checked = amcheck(primary)
    assert not complaints, "\n".join(complaints[:20])
    assert checked > 300
    assert primary.value("select sum(checksum_failures) from pg_stat_database") == 0, (
        "pages are stamped as the cluster wants them"
    )

    flipped = {relation: file_of(primary, relation) for relation in ("t_hot", "t_btree_k_idx")}
    primary.configure(ignore_checksum_failure=True)
    primary.stop()
    for path in flipped.values():
        flip_in_an_item(path)
    primary.start()
    # Only these two: a server may crash where it reads a damaged tuple through another index.
    assert primary.query("select msg from verify_heapam('t_hot')"), "a wrong byte of a table"
    with pytest.raises(psycopg.Error, match="t_btree_k_idx"):
        primary.query("select bt_index_check('t_btree_k_idx', true)")


def mixed_workload(server: Server) -> None:
    """One short round of it."""
    environment = server.environment | {"ROUNDS": "1", "TX": "40"}
    subprocess.run(["bash", WORKLOAD], env=environment, check=True, timeout=240)


def shutdown_checkpoint(server: Server) -> str:
    """Where the last checkpoint of a stopped server starts."""
    shown = server.run("pg_controldata", server.data_dir).stdout
    found = re.search(r"Latest checkpoint location: +(\S+)", shown)
    assert found
    return found[1]


def relation_folders(data_dir: Path) -> list[Path]:
    tablespaces = data_dir.glob("pg_tblspc/*/PG_*/[0-9]*")
    return [data_dir / "global", *data_dir.glob("base/[0-9]*"), *tablespaces]


def remove_logged_forks(server: Server) -> int:
    """Leave no page that WAL decides: a page not rebuilt is then a page missed. How many files went.

    An unlogged relation's main fork is not in WAL, and stays.
    """
    removed = 0
    for folder in relation_folders(server.data_dir):
        unlogged = {path.name.removesuffix("_init") for path in folder.glob("*_init")}
        for path in sorted(folder.iterdir()):
            match = RELATION.fullmatch(path.name)
            if match and (match["fork"] == "init" or match["rel"] not in unlogged):
                path.unlink()
                removed += 1
    return removed


def write_files(pageserver: Program, server: Server) -> dict[str, Any]:
    """What ``pageserver write-files`` says it did."""
    arguments = (
        "write-files",
        str(server.data_dir),
        "--config",
        str(pageserver.config),
        "--no-sync",
        "--json",
    )
    done = subprocess.run(
        pageserver.cli(*arguments), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def amcheck(server: Server) -> tuple[list[str], int]:
    """What amcheck finds wrong in every database, and how many relations it was asked to look at."""
    complaints: list[str] = []
    checked = 0
    until(lambda: server.value("select not pg_is_in_recovery()"), what="it takes writes")
    for (name,) in server.query("select datname from pg_database where datallowconn"):
        server.query("create extension if not exists amcheck", dbname=name)
        checked += server.value(COUNT_CHECKED, dbname=name)
        found = server.query(CHECK_TABLES, dbname=name)
        complaints += [f"{table}: block {block} item {item}: {said}" for table, block, item, said in found]
        complaints += index_complaints(server, name)
    return complaints, checked


def index_complaints(server: Server, dbname: str) -> list[str]:
    """bt_index_check ends at the first fault: each index is asked about alone."""
    complaints = []
    with server.connect(dbname=dbname) as connection:
        for name, oid in server.query(INDEXES, dbname=dbname):
            try:
                connection.execute(b"select bt_index_check(%s::oid::regclass, true)", (oid,))
            except psycopg.Error as error:
                complaints.append(f"{name}: {error}")
    return complaints


def file_of(server: Server, relation: str) -> Path:
    path: str = server.value("select pg_relation_filepath(%s::regclass)", relation)
    return server.data_dir / path


def flip_in_an_item(path: Path) -> None:
    """Change one byte of an item of the first page that has one: a heap tuple's ``t_hoff``, an index tuple's key."""
    pages = bytearray(path.read_bytes())
    starts = range(0, len(pages), PAGE_BYTES)
    item, is_heap = next(found for page in starts if (found := item_of(pages, page)) is not None)
    pages[item + (22 if is_heap else 8)] ^= 0x40
    path.write_bytes(pages)


def item_of(pages: bytearray, page: int) -> tuple[int, bool] | None:
    """Where the first live item behind the first line pointer lies, which may be a high key's; is it a heap's."""
    lower, special = (int.from_bytes(pages[page + at : page + at + 2], "little") for at in (12, 16))
    is_heap = special == PAGE_BYTES
    if not is_heap and pages[page + special + 12] & (LEAF | NOT_LIVE) != LEAF:
        return None
    lines = (int.from_bytes(pages[at : at + 4], "little") for at in range(page + 28, page + lower, 4))
    return next(((page + (line & 0x7FFF), is_heap) for line in lines if line >> 15 & 3 == 1), None)
