"""State that is no page, at any LSN, against the server's files: counters, relation maps, prepared transactions."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pageserver.basestate import parse_origins
from tests.e2e.pageserver_process import catch_up
from tests.fix_pageserver import NewPageserver, serving
from tests.fix_pg import NewServer
from tools.server import Server
from tools.stack import Program

PAGE = 8192
XIDS_PER_SEGMENT = 1 << 20  # Of the commit log: 32 pages.
SLRUS = ("pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts")
# A subtransaction and two members of a multixact each: more than one file of commit timestamps, and one of members.
LOCKS = """
    do $$
    begin
        perform 1 from shared for key share;
        for i in 1..27000 loop
            begin
                perform 1 from shared where id = i for no key update;
            exception when raise_exception then null;
            end;
        end loop;
    end $$
"""
# Ours, and what pg_controldata calls it.
CHECKPOINT = {
    "redo_lsn": "Latest checkpoint's REDO location",
    "tli": "Latest checkpoint's TimeLineID",
    "next_oid": "Latest checkpoint's NextOID",
    "next_multi": "Latest checkpoint's NextMultiXactId",
    "next_multi_offset": "Latest checkpoint's NextMultiOffset",
    "oldest_xid": "Latest checkpoint's oldestXID",
    "oldest_xid_db": "Latest checkpoint's oldestXID's DB",
    "oldest_active_xid": "Latest checkpoint's oldestActiveXID",
    "oldest_multi": "Latest checkpoint's oldestMultiXid",
    "oldest_multi_db": "Latest checkpoint's oldestMulti's DB",
    "oldest_commit_ts_xid": "Latest checkpoint's oldestCommitTsXid",
    "newest_commit_ts_xid": "Latest checkpoint's newestCommitTsXid",
}
PARAMETERS = {
    name: f"{name} setting"
    for name in ("wal_level", "max_connections", "max_wal_senders", "max_worker_processes")
} | {"max_prepared_transactions": "max_prepared_xacts setting"}
COUNTERS = (
    "next_xid",
    "next_multi",
    "next_multi_offset",
    "oldest_xid",
    "oldest_multi",
    "oldest_commit_ts_xid",
    "newest_commit_ts_xid",
)


@dataclass
class Moment:
    """What a quiet server's files held at an LSN, after a checkpoint."""

    name: str
    lsn: str
    control: dict[str, str]
    maps: dict[str, bytes]
    prepared: dict[str, bytes]
    origins: dict[str, str]
    tablespaces: dict[int, str]
    databases: set[str]
    slru_pages: dict[tuple[str, int], bytes]


@dataclass
class Follower:
    """A primary, its pageserver, and moments to ask for."""

    primary: Server
    pageserver: Program
    moments: list[Moment] = field(default_factory=list)

    def remember(self, name: str) -> None:
        self.primary.query("checkpoint")
        lsn = catch_up(self.primary, self.pageserver)
        data_dir = self.primary.data_dir
        databases = self.primary.query("select dattablespace, oid from pg_database")
        spaces = self.primary.query(
            "select oid, case when pg_tablespace_location(oid) like 'pg_tblspc/%%' then ''"
            " else pg_tablespace_location(oid) end from pg_tablespace where oid >= 16384",
        )
        self.moments.append(
            Moment(
                name,
                lsn,
                controldata(self.primary),
                relation_maps(data_dir),
                {path.name: path.read_bytes() for path in (data_dir / "pg_twophase").iterdir()},
                origins(data_dir),
                {int(spc): path for spc, path in spaces},
                {f"{spc}/{db}" for spc, db in databases},
                slru_pages(data_dir),
            )
        )

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self.pageserver.query(query, *values)

    def control_at(self, lsn: str) -> dict[str, Any]:
        ((text,),) = self.ask("select control_state(%s::pg_lsn)", lsn)
        control: dict[str, Any] = json.loads(text)
        return control


def controldata(server: Server) -> dict[str, str]:
    lines = server.run("pg_controldata", "-D", server.data_dir).stdout.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def relation_maps(data_dir: Path) -> dict[str, bytes]:
    maps = {"1664/0": (data_dir / "global/pg_filenode.map").read_bytes()}
    for path in data_dir.glob("base/*/pg_filenode.map"):
        maps[f"1663/{path.parent.name}"] = path.read_bytes()
    for path in data_dir.glob("pg_tblspc/*/*/*/pg_filenode.map"):
        maps[f"{path.parts[-4]}/{path.parent.name}"] = path.read_bytes()
    return maps


def origins(data_dir: Path) -> dict[str, str]:
    file = data_dir / "pg_logical/replorigin_checkpoint"
    found = parse_origins(file.read_bytes()) if file.exists() else []
    return {str(number): f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}" for number, lsn in found}


def slru_pages(data_dir: Path) -> dict[tuple[str, int], bytes]:
    pages = {}
    for kind in SLRUS:
        for path in (data_dir / kind).iterdir():
            data = path.read_bytes()
            for number in range(len(data) // PAGE):
                page = data[number * PAGE : (number + 1) * PAGE]
                pages[kind, int(path.name, 16) * 32 + number] = page
    return pages


def full_xid(text: str) -> int:
    epoch, _, xid = text.partition(":")
    return int(epoch) << 32 | int(xid)


@pytest.fixture
def follower(new_server: NewServer, new_pageserver: NewPageserver) -> Follower:
    """A server with a bit of everything from before its base backup, and a pageserver behind it."""
    primary = new_server(
        track_commit_timestamp=True,
        autovacuum=False,
        fsync=False,
        allow_in_place_tablespaces=True,
        wal_keep_size="1GB",
    ).start()
    linked = primary.own(primary.folder / "linked")
    for statement in (
        "create table shared as select g as id from generate_series(1, 27000) g",
        "create index on shared (id)",
        f"create tablespace linked location '{linked}'",
        "create tablespace inplace location ''",
        "create database there tablespace inplace strategy file_copy",
        "create table in_linked (id int) tablespace linked",
        "create table ended (id int)",
        "begin; insert into ended values (1); prepare transaction 'before'",
        "select pg_replication_origin_create('first')",
        "select pg_replication_origin_advance('first', '0/123')",
        "checkpoint",
    ):
        run_all(primary, statement)
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    return Follower(primary, pageserver)


def run_all(server: Server, statements: str, *, dbname: str = "postgres") -> None:
    """Run statements one by one over one connection."""
    with server.connect(dbname=dbname) as connection:
        for statement in statements.split("; "):
            connection.execute(statement.encode())


def wrong_at(follower: Follower, moment: Moment) -> list[str]:
    """What the pageserver does not give as the server had it."""
    wrong = []
    ask, lsn = follower.ask, moment.lsn

    def compare(what: str, ours: object, theirs: object) -> None:
        if ours != theirs:
            wrong.append(f"{moment.name}: {what}: {ours!r:.300}, on the server {theirs!r:.300}")

    control = follower.control_at(lsn)
    compare("last checkpoint", control["checkpoint_lsn"], moment.control["Latest checkpoint location"])
    for name, theirs in CHECKPOINT.items():
        compare(name, str(control["checkpoint"][name]), moment.control[theirs])
    next_xid = full_xid(moment.control["Latest checkpoint's NextXID"])
    compare("next_xid", control["checkpoint"]["next_xid"], next_xid)
    compare("next_xid now", control["now"]["next_xid"], next_xid)
    for name, theirs in PARAMETERS.items():
        compare(name, str(control["parameters"][name]), moment.control[theirs])
    tracked = "on" if control["parameters"]["track_commit_timestamp"] else "off"
    compare("track_commit_timestamp", tracked, moment.control["track_commit_timestamp setting"])
    compare("origins", control["origins"], moment.origins)
    for database, relation_map in moment.maps.items():
        ((ours,),) = ask("select get_relation_map(%s, %s::pg_lsn)", database, lsn)
        compare(f"relation map of {database}", ours, relation_map)
    prepared = ask("select * from prepared_transactions(%s::pg_lsn)", lsn)
    compare("prepared", {file: state for _, file, state in prepared}, moment.prepared)
    compare("tablespaces", dict(ask("select * from tablespaces(%s::pg_lsn)", lsn)), moment.tablespaces)
    compare("databases", {db for (db,) in ask("select * from databases(%s::pg_lsn)", lsn)}, moment.databases)
    return wrong + wrong_slru_pages(follower, moment)


def wrong_slru_pages(follower: Follower, moment: Moment) -> list[str]:
    """Pages of the SLRUs that differ, are missing, or should be."""
    wrong = []
    with follower.pageserver.connect() as connection:
        for kind in SLRUS:
            there = [number for of, number in moment.slru_pages if of == kind]
            for number in range(max(there, default=0) + 40):
                theirs = moment.slru_pages.get((kind, number))
                query = b"select get_slru_page(%s, %s, %s::pg_lsn)"
                ((ours,),) = connection.execute(query, (kind, number, moment.lsn)).fetchall()
                if ours != theirs and not (ours is None and theirs == bytes(PAGE)):
                    shown = [None if page is None else page.rstrip(b"\0")[-20:] for page in (ours, theirs)]
                    wrong.append(f"{moment.name}: {kind} {number}: {shown}")
    return wrong


def test_maps_prepared_transactions_and_counters_equal_the_servers_files(follower: Follower) -> None:
    primary = follower.primary
    follower.remember("after the base backup")
    for name, statements in {
        "maps change": "vacuum full pg_class; vacuum full pg_authid; reindex table pg_attribute",
        "more is prepared": "begin; savepoint a; insert into ended values (2); prepare transaction 'second'",
        "one is committed": "commit prepared 'before'; create table later as select 1 as id",
        "one is rolled back": "rollback prepared 'second'; select pg_replication_origin_create('second')",
        "origins move": "select pg_replication_origin_advance('second', '1/5');"
        " select pg_replication_origin_advance('first', '0/200')",
        "an origin goes": "select pg_replication_origin_drop('first');"
        " select pg_replication_origin_session_setup('second'); begin;"
        " select pg_replication_origin_xact_setup('2/7', now()); insert into ended values (3); commit",
        "databases come": "create database logged; create database copied template there strategy file_copy",
        "a database goes": "drop database logged; drop database there",
        "tablespaces change": "create tablespace second location '';"
        " alter database copied set tablespace second; drop tablespace inplace",
    }.items():
        run_all(primary, statements)
        follower.remember(name)
    run_all(primary, "begin; insert into ended values (4); prepare transaction 'left'")
    run_all(primary, "create table last as select oid from pg_class")
    primary.stop()

    wrong = [line for moment in follower.moments for line in wrong_at(follower, moment)]
    assert not wrong, "\n".join(wrong)
    # Rolled forward to just before the shutdown checkpoint, the counters are those that it says.
    at_end = controldata(primary)["Latest checkpoint location"]
    before = follower.control_at(at_end)
    assert before["checkpoint_lsn"] != at_end
    primary.start()
    catch_up(primary, follower.pageserver)
    after = follower.control_at(primary.value("select pg_current_wal_insert_lsn()::text"))
    assert after["checkpoint_lsn"] == at_end
    assert {name: before["now"][name] for name in COUNTERS} == {
        name: after["checkpoint"][name] for name in COUNTERS
    }
    assert before["now"]["next_oid"] >= after["checkpoint"]["next_oid"]


def test_status_pages_go_when_the_server_removes_them(follower: Follower) -> None:
    primary = follower.primary
    run_all(primary, "commit prepared 'before'; select pg_replication_origin_drop('first')")
    primary.query(LOCKS)
    follower.remember("filled")
    primary.query("alter database template0 allow_connections true")
    for dbname in ("postgres", "template0", "template1", "there"):
        primary.query("vacuum freeze", dbname=dbname)
    follower.remember("truncated")
    primary.configure(track_commit_timestamp=False)
    primary.restart()
    run_all(primary, "insert into ended values (5)")
    follower.remember("not tracked")
    primary.configure(track_commit_timestamp=True)
    primary.restart()
    run_all(primary, "insert into ended values (6)")
    follower.remember("tracked again")

    filled, truncated, untracked, again = follower.moments
    for kind in ("pg_commit_ts", "pg_multixact/members"):
        assert (kind, 0) in filled.slru_pages
        assert (kind, 0) not in truncated.slru_pages
    assert not [kind for kind, _ in untracked.slru_pages if kind == "pg_commit_ts"]
    assert [kind for kind, _ in again.slru_pages if kind == "pg_commit_ts"]
    wrong = [line for moment in follower.moments for line in wrong_at(follower, moment)]
    assert not wrong, "\n".join(wrong)


def test_pages_of_the_commit_log_go_when_vacuum_cuts_it(
    new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    primary = new_server(autovacuum=False, fsync=False, wal_keep_size="1GB")
    # Three segments of transactions long gone, but for the last hundred.
    primary.run("pg_resetwal", "-x", 3 * XIDS_PER_SEGMENT - 100, "-D", primary.data_dir)
    for number in range(3):
        path = primary.data_dir / f"pg_xact/{number:04X}"
        begun = path.read_bytes() if path.exists() else b""
        primary.write(f"pg_xact/{number:04X}", begun.ljust(32 * PAGE, b"\0"))
    primary.start()
    primary.query("alter database template0 allow_connections true")
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    follower = Follower(primary, pageserver)

    def freeze(name: str) -> None:
        for dbname in ("postgres", "template0", "template1"):
            primary.query("vacuum freeze", dbname=dbname)
        follower.remember(name)

    follower.remember("three segments")
    run_all(primary, "create table t (id int); begin; insert into t values (0); prepare transaction 'old'")
    primary.query("do $$ begin for i in 1..300 loop insert into t values (i); commit; end loop; end $$")
    follower.remember("in the fourth")
    freeze("cut as far as the prepared one")
    run_all(primary, "commit prepared 'old'; insert into t values (1)")
    freeze("cut to the last page")

    assert [first_page(moment, "pg_xact") for moment in follower.moments] == [0, 0, 64, 96]
    wrong = [line for moment in follower.moments for line in wrong_slru_pages(follower, moment)]
    assert not wrong, "\n".join(wrong)
    lsn = follower.moments[-1].lsn
    assert follower.ask("select get_slru_page('pg_xact', 95, %s::pg_lsn)", lsn) == [(None,)]


def first_page(moment: Moment, kind: str) -> int:
    """Number of the first page that the server's files hold."""
    return min(number for of, number in moment.slru_pages if of == kind)
