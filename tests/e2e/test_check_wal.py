"""Redo proven by Postgres: every page image that `wal_consistency_checking` puts into the WAL."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pageserver import checkwal
from pageserver.errors import ConfigInvalid
from tests.fix_pg import NewServer

TABLES = """
    create table plain(id serial primary key, k int, v text);
    create index on plain(k);
    create unlogged table unlogged(id int primary key);
    create table parts(k int, v text) partition by range (k);
    create table part1 partition of parts for values from (0) to (100);
    create table part2 partition of parts for values from (100) to (200);
"""
CHANGES = """
    insert into plain(k, v) select g % 50, repeat('x', g % 90) from generate_series(1, 4000) g;
    begin; insert into plain(k) values (1); savepoint s; delete from plain where k = 2; rollback to s; commit;
    update plain set v = v || 'y' where id % 3 = 0;
    update plain set k = k + 1 where id % 7 = 0;
    select count(*) from (select 1 from plain where id < 300 for update) locked;
    delete from plain where id % 5 = 0;
    copy plain(k, v) from program 'yes 7,copied | head -n 2000' with (format csv);
    insert into plain values (1, 1, 'z'), (90000, 1, 'z') on conflict (id) do update set v = excluded.v;
    insert into parts select g % 200, 'row' from generate_series(1, 500) g;
    update parts set k = k + 100 where k < 20;
    vacuum plain;
    delete from plain where id between 900 and 80000;
    vacuum (freeze) plain;
    insert into plain(k, v) select 3, 'again' from generate_series(1, 3000) g;
    create table copied as select * from plain;
    truncate part1;
    drop table copied;
    create index on plain(v);
    reindex index plain_pkey;
"""
WRITTEN = {
    ("Heap", "INSERT"),
    ("Heap", "INSERT+INIT"),
    ("Heap", "DELETE"),
    ("Heap", "UPDATE"),
    ("Heap", "HOT_UPDATE"),
    ("Heap", "LOCK"),
    ("Heap", "HEAP_CONFIRM"),
    ("Heap", "INPLACE"),
    ("Heap2", "VISIBLE"),
    ("Heap2", "MULTI_INSERT"),
    ("Btree", "INSERT_LEAF"),
    ("Btree", "INSERT_UPPER"),
    ("Btree", "SPLIT_R"),
    ("Btree", "DEDUP"),
    ("Btree", "VACUUM"),
    ("Btree", "MARK_PAGE_HALFDEAD"),
    ("Btree", "UNLINK_PAGE"),
    ("Btree", "NEWROOT"),
    ("Sequence", "LOG"),
}


@pytest.fixture
def wal_dir(new_server: NewServer) -> Path:
    """WAL of a stopped server: every page changed without an image to start from, and with one to compare."""
    server = new_server(
        wal_consistency_checking="all", full_page_writes=False, wal_keep_size="10GB", autovacuum=False
    )
    server.start()
    for statements in (TABLES, CHANGES):
        with server.connect() as connection:
            for statement in statements.split(";\n"):
                connection.execute(statement.strip().encode())
    server.stop()
    return server.data_dir / "pg_wal"


def test_every_page_is_the_one_that_postgres_logged(wal_dir: Path, major: int) -> None:
    report = checkwal.check(wal_dir)

    assert report.major == major
    assert report.differences == ()
    assert report.different == 0
    assert report.unsupported == 0
    assert report.compared > 10_000
    assert WRITTEN - {(count.rmgr, count.record) for count in report.counts if count.compared} == set()


def test_the_command_reports_what_it_compared(wal_dir: Path) -> None:
    app = typer.Typer()
    app.command()(checkwal.command)

    done = CliRunner().invoke(app, [str(wal_dir), "--json"])

    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["differences"] == []
    assert sum(count["compared"] for count in report["counts"]) > 10_000


def test_a_directory_without_wal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no WAL segment files"):
        checkwal.check(tmp_path)
