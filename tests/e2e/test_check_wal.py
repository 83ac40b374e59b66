"""Redo proven by Postgres: every page image that `wal_consistency_checking` puts into the WAL."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pageserver import checkwal
from pageserver.errors import ConfigInvalid, ExitCode
from tests.fix_pg import NewServer
from tools.server import Server
from walproxy.wire.lsn import parse_lsn

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


INDEXES = """
    create table hashed(k int);
    create index on hashed using hash(k);
    insert into hashed select 1 from generate_series(1, 300);
    delete from hashed;
    select count(*) from hashed where k = 1;
    insert into hashed select 1 from generate_series(1, 300);
    insert into hashed select g % 7 from generate_series(1, 9000) g;
    delete from hashed where ctid::text like '%3)' or ctid::text like '%5)' or ctid::text like '%6)';
    vacuum hashed;

    create table points(p point);
    create index on points using gist(p);
    insert into points select point(1, 1) from generate_series(1, 400);
    delete from points;
    select count(*) from points where p <@ box '(0,0),(2,2)';
    insert into points select point(1, 1) from generate_series(1, 400);
    insert into points select point(g, g) from generate_series(1, 5000) g;
    delete from points;
    vacuum points;
    vacuum points;

    create table words(w text);
    create index on words using spgist(w);
    insert into words values ('a'), ('b'), ('c');
    delete from words where w = 'b';
    vacuum words;
    insert into words select md5(g::text) from generate_series(1, 3000) g;
    delete from words where w > '8';
    vacuum words;
    create table alike(w text);
    create index on alike using spgist(w);
    insert into alike select 'alike_' || md5(g::text) from generate_series(1, 500) g;
    insert into alike values ('alone'), ('al'), ('b');

    create table ranges(v text) with (fillfactor = 30);
    create index on ranges using brin(v) with (pages_per_range = 1);
    insert into ranges select string_agg(md5((g * 20 + i)::text), '')
        from generate_series(1, 500) g, generate_series(1, 10) i group by g;
    select brin_summarize_new_values('ranges_v_idx');
    update ranges set v = 'z' || (select string_agg(md5(i::text), '') from generate_series(1, 30) i)
        where ctid::text like '%,1)';
    select brin_desummarize_range('ranges_v_idx', 3);

    create table arrays(a int[]);
    copy arrays from program 'yes {1} | head -n 40000';
    create index on arrays using gin(a) with (fastupdate = off);
    create index waiting on arrays using gin(a);
    delete from arrays where ctid >= '(50,0)' and ctid < '(150,0)';
    vacuum arrays;
    insert into arrays select array[2, g] from generate_series(1, 3000) g;
    vacuum arrays;

    create extension if not exists bloom;
    create table blooming(a int, b int);
    create index on blooming using bloom(a, b);
    insert into blooming select g, g % 10 from generate_series(1, 3000) g;
    delete from blooming where b = 3;
    vacuum blooming;
"""
WRITTEN_TO_INDEXES = {
    ("Hash", "VACUUM_ONE_PAGE"),
    ("Hash", "INSERT"),
    ("Hash", "ADD_OVFL_PAGE"),
    ("Hash", "SPLIT_ALLOCATE_PAGE"),
    ("Hash", "SPLIT_COMPLETE"),
    ("Hash", "SQUEEZE_PAGE"),
    ("Hash", "DELETE"),
    ("Gist", "DELETE"),
    ("Gist", "PAGE_UPDATE"),
    ("Gist", "PAGE_SPLIT"),
    ("Gist", "PAGE_DELETE"),
    ("SPGist", "VACUUM_ROOT"),
    ("SPGist", "ADD_LEAF"),
    ("SPGist", "MOVE_LEAFS"),
    ("SPGist", "PICKSPLIT"),
    ("SPGist", "SPLIT_TUPLE"),
    ("SPGist", "VACUUM_LEAF"),
    ("BRIN", "INSERT"),
    ("BRIN", "UPDATE"),
    ("BRIN", "SAMEPAGE_UPDATE"),
    ("BRIN", "DESUMMARIZE"),
    ("Gin", "CREATE_PTREE"),
    ("Gin", "INSERT"),
    ("Gin", "DELETE_PAGE"),
    ("Gin", "UPDATE_META_PAGE"),
    ("Gin", "INSERT_LISTPAGE"),
    ("Gin", "DELETE_LISTPAGE"),
    ("Gin", "VACUUM_DATA_LEAF_PAGE"),
    ("Generic", "Generic"),
}


@pytest.fixture
def server(new_server: NewServer) -> Server:
    """Every page it changes has no image to start from, and one to compare."""
    return new_server(
        wal_consistency_checking="all", full_page_writes=False, wal_keep_size="10GB", autovacuum=False
    ).start()


def run(server: Server, statements: str) -> None:
    with server.connect() as connection:
        connection.execute("set enable_seqscan = off")
        connection.execute("set enable_bitmapscan = off")
        for statement in statements.split(";\n"):
            connection.execute(statement.strip().encode())


def stopped(server: Server) -> Path:
    """Where its WAL is, all of it."""
    server.stop()
    return server.data_dir / "pg_wal"


def compared(report: checkwal.Report) -> set[tuple[str, str]]:
    """The record types of which there was something to compare."""
    return {(count.rmgr, count.record) for count in report.counts if count.compared}


def test_every_page_is_the_one_that_postgres_logged(server: Server) -> None:
    run(server, TABLES)
    run(server, CHANGES)

    report = checkwal.check(stopped(server))

    assert report.major == server.major
    assert report.differences == ()
    assert (report.different, report.unsupported) == (0, 0)
    assert report.compared > 10_000
    assert WRITTEN - compared(report) == set()


def test_every_index_page_is_the_one_that_postgres_logged(server: Server) -> None:
    run(server, INDEXES)

    report = checkwal.check(stopped(server))

    assert report.differences == ()
    assert (report.different, report.unsupported) == (0, 0)
    assert WRITTEN_TO_INDEXES - compared(report) == set()


def test_a_row_version_locked_behind_its_update_is_redone(server: Server) -> None:
    run(server, "create table rows as select 1 as id, 'a' as v; create unique index on rows(id)")
    with server.connect() as writer, server.connect() as reader:
        writer.execute("begin")
        writer.execute("update rows set v = 'b'")
        reader.execute("select id from rows where id = 1 for key share")
        writer.execute("commit")

    report = checkwal.check(stopped(server))

    assert report.differences == ()
    assert ("Heap2", "LOCK_UPDATED") in compared(report)


def test_the_command_reports_what_it_compared(server: Server) -> None:
    run(server, TABLES)
    app = typer.Typer()
    app.command()(checkwal.command)

    done = CliRunner().invoke(app, [str(stopped(server)), "--json"])

    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert report["differences"] == []
    assert sum(count["compared"] for count in report["counts"]) > 100


def test_a_hole_in_an_archive_ends_the_check_and_is_said(server: Server, tmp_path: Path) -> None:
    run(server, TABLES)
    for _ in range(3):
        server.query("select pg_switch_wal()")
        server.query("create table if not exists more as select 1 as i")
        server.query("drop table more")
    segments = sorted(path for path in stopped(server).iterdir() if path.is_file())
    for path in [*segments[:2], segments[3]]:
        shutil.copy(path, tmp_path)

    report = checkwal.check(tmp_path)

    assert report.end_reason == f"a segment file is missing behind {segments[1].name}: 1 more were not read"
    assert report.compared > 100


def test_a_live_server_is_checked_up_to_its_end(server: Server) -> None:
    start_lsn = parse_lsn(str(server.value("select pg_current_wal_lsn()")))
    run(server, TABLES)
    end_lsn = parse_lsn(str(server.value("select pg_current_wal_flush_lsn()")))

    report = asyncio.run(checkwal.check_server(server.conninfo(), start_lsn))

    assert report.end_reason is None
    assert (report.start_lsn, report.major) == (start_lsn - start_lsn % 8192, server.major)
    assert report.end_lsn >= end_lsn
    assert report.differences == ()
    assert report.compared > 100


def test_a_place_that_a_live_server_has_not_come_to_is_refused(server: Server) -> None:
    with pytest.raises(ConfigInvalid, match="has not come to the start"):
        asyncio.run(checkwal.check_server(server.conninfo(), parse_lsn("F/0")))


def test_wal_without_images_is_not_called_checked(new_server: NewServer) -> None:
    server = new_server().start()
    app = typer.Typer()
    app.command()(checkwal.command)

    done = CliRunner().invoke(app, [server.conninfo()])

    assert done.exit_code == ExitCode.RUNTIME, done.output
    assert "nothing to compare with" in done.output


def test_a_directory_without_wal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="no WAL segment files"):
        checkwal.check(tmp_path)
