"""Records that neither the mixed workload nor the regression suite writes, each provoked on purpose."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import psycopg

from pageserver import checkwal
from tests.oracle.finding import Finding
from tools.server import Server, Setting
from walproxy.wire.lsn import parse_lsn, segment_name

SETTINGS: dict[str, Setting] = {
    "wal_consistency_checking": "all",
    "full_page_writes": False,
    "wal_keep_size": "10GB",
    "autovacuum": False,
    "fsync": False,
    "wal_log_hints": True,
    "track_commit_timestamp": True,
    "wal_level": "logical",
}
SEGMENT_BYTES = 16 << 20
XID = (
    115 * 32 * 819 - 1000
)  # In the third segment of the commit log, and soon in the next one of commit times.

# With little WAL, an index that came with its table is not logged page by page.
MINIMAL = """
    begin; create table unlogged_points(p point); create index on unlogged_points using gist(p);
        insert into unlogged_points select point(g, g % 77) from generate_series(1, 1000) g; commit;
"""

REUSED = """
    create table numbers as select n from generate_series(1, 20000) n;
    create index on numbers(n);
    create table points as select point(g, g) as p from generate_series(1, 4000) g;
    create index on points using gist(p);
    delete from numbers where n between 3000 and 18000;
    delete from points;
    vacuum numbers, points;
    vacuum points;
    select txid_current();
    select txid_current();
    vacuum numbers, points;
    insert into numbers select g % 15000 + 3000 from generate_series(1, 9000) g;
    insert into points select point(g, g) from generate_series(1, 2500) g;
"""

KILLED = """
    create table hashed as select 1 as k, n from generate_series(1, 4000) n;
    create index on hashed using hash(k);
    delete from hashed where n % 5 < 2;
    vacuum hashed;
    create table killed(k int);
    create index on killed using hash(k);
    insert into killed select 1 from generate_series(1, 300);
    delete from killed;
    select count(*) from killed where k = 1;
    insert into killed select 1 from generate_series(1, 300);
    create table places(p point);
    create index on places using gist(p);
    insert into places select point(1, 1) from generate_series(1, 400);
    delete from places;
    select count(*) from places where p <@ box '(0,0),(2,2)';
    insert into places select point(1, 1) from generate_series(1, 400);
    create table words(w text);
    create index on words using spgist(w);
    insert into words values ('a'), ('b'), ('c');
    delete from words where w = 'b';
    vacuum words;
    create table arrays as select '{1}'::int[] as a from generate_series(1, 40000);
    create index on arrays using gin(a);
    delete from arrays where ctid >= '(50,0)' and ctid < '(150,0)';
    vacuum arrays;
    create table once(id int primary key);
    insert into once values (1), (2) on conflict do nothing;
"""

BLOOM = """
    create extension bloom;
    create table blooming(a int, b int);
    create index on blooming using bloom(a, b);
    insert into blooming select g, g % 10 from generate_series(1, 2000) g;
    delete from blooming where b = 3;
    vacuum blooming;
"""

STANDALONE = """
    select pg_create_logical_replication_slot('changes', 'pgoutput');
    create table noticed(i int);
    vacuum full pg_class;
    select pg_drop_replication_slot('changes');
    select pg_replication_origin_create('elsewhere');
    select pg_replication_origin_advance('elsewhere', '0/100');
    select pg_replication_origin_drop('elsewhere');
    set allow_in_place_tablespaces = on;
    create tablespace place location '';
    drop tablespace place;
    create table hinted as select generate_series(1, 500) as i;
    checkpoint;
    select count(*) from hinted;
    select pg_create_restore_point('here');
    select pg_switch_wal();
"""

# Multixacts of 2,100 different pairs, and 3,000 commits.
MULTIXACTS = """
    do $$ begin
        for i in 1..2100 loop perform 1 from held where id = i for key share; commit; end loop;
    end $$
"""
COMMITS = "do $$ begin for i in 1..3000 loop perform txid_current(); commit; end loop; end $$"


def run(folder: Path, bindir: Path) -> Finding:
    """Provoke all of them on one server, and check its WAL."""
    server = Server(folder / "primary", bindir).initdb().configure(**SETTINGS)
    try:
        _far_ahead(server)
        server.configure(wal_level="minimal", max_wal_senders=0).start()
        _execute(server, MINIMAL)
        server.stop()
        server.configure(wal_level="logical", max_wal_senders=20).start()
        _multixacts(server)
        _locked_behind_update(server)
        for statements in (REUSED, KILLED):
            _execute(server, statements)
        with contextlib.suppress(psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile):
            _execute(server, BLOOM)
        server.reload(full_page_writes=True)
        _execute(server, STANDALONE)
        _backup(server)
        server.reload(full_page_writes=False)
        server.query("checkpoint")
        _truncate_logs(server)
        version = str(server.value("show server_version"))
        _torn_record(server)
        _promote(server)
        server.stop()
        report = checkwal.check(server.data_dir / "pg_wal")
        return Finding.of("rare", report, version=version, settings=SETTINGS)
    finally:
        server.destroy()


def _execute(server: Server, statements: str) -> None:
    with server.connect() as connection:
        for setting in ("enable_seqscan", "enable_bitmapscan"):
            connection.execute(f"set {setting} = off".encode())
        for statement in _split(statements):
            connection.execute(statement.encode())


def _split(statements: str) -> Sequence[str]:
    return [statement for part in statements.split(";\n") if (statement := part.strip())]


def _far_ahead(server: Server) -> None:
    """Leave two whole segments of the commit log behind, before the first record that is looked at."""
    server.run("pg_resetwal", "-x", XID, "-D", server.data_dir)
    server.write(f"pg_xact/{XID >> 20:04X}", bytes(32 * 8192))


def _multixacts(server: Server) -> None:
    server.query("create table held as select generate_series(1, 2100) as id")
    with server.connect() as holder:
        holder.execute("begin")
        holder.execute("select count(*) from (select 1 from held for key share) locked")
        server.query(MULTIXACTS)
        holder.execute("commit")


def _locked_behind_update(server: Server) -> None:
    server.query("create table rows as select 1 as id, 'a' as v")
    server.query("create unique index on rows(id)")
    with server.connect() as writer, server.connect() as reader:
        writer.execute("begin")
        writer.execute("update rows set v = 'b'")
        reader.execute("select id from rows where id = 1 for key share")
        writer.execute("commit")


def _backup(server: Server) -> None:
    with server.connect() as connection:
        connection.execute("select pg_backup_start('here', true)")
        connection.execute("select pg_backup_stop(false)")


def _truncate_logs(server: Server) -> None:
    """Freeze everything: commit log, commit times and multixacts lose what came before."""
    server.query(COMMITS)
    server.query("alter database template0 allow_connections true")
    for database in ("template0", "template1", "postgres"):
        server.query("vacuum (freeze)", dbname=database)


def _torn_record(server: Server) -> None:
    """End the WAL within a record that the first segment begins."""
    server.query("checkpoint")
    size = 3 * SEGMENT_BYTES
    end_lsn = parse_lsn(
        str(server.value("select pg_logical_emit_message(false, 'torn', repeat('x', %s))", size))
    )
    server.stop(immediate=True)
    kept = segment_name(1, end_lsn - size, SEGMENT_BYTES)
    for path in (server.data_dir / "pg_wal").iterdir():
        if path.is_file() and path.name > kept:
            path.unlink()
    server.start()


def _promote(server: Server) -> None:
    server.stop()
    server.write("standby.signal", b"")
    server.start()
    server.query("select pg_promote()")
    server.query("create table promoted as select 1 as i")
