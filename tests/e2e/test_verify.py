"""`pageserver verify` against live and stopped servers: nothing on a busy one, and all that is wrong."""

import json
import random
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.fix_pageserver import NewPageserver, configure, serving
from tests.fix_pg import NewServer
from tools.server import Server
from tools.stack import Program

PAGE_BYTES = 8192
OLTP = {
    "autovacuum_naptime": "1s",
    "autovacuum_vacuum_scale_factor": "0.01",
    "autovacuum_vacuum_cost_delay": "0",
    "checkpoint_timeout": "30s",
    "shared_buffers": "16MB",
}


def verify(pageserver: Program, *arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Run it as a user would: exit code and report."""
    command = [
        *pageserver.cli("verify", "--pageserver", pageserver.conninfo(), "--json"),
        *map(str, arguments),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.stdout, f"exit={done.returncode}\n{done.stderr[-3000:]}"
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


def refusal(pageserver: Program, *arguments: str | Path) -> tuple[int, str]:
    """Run it where it cannot work: exit code and what it says."""
    command = [*pageserver.cli("verify", "--pageserver", pageserver.conninfo()), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def identical(found: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    """The report, if it says that all is the same."""
    code, report = found
    assert report["differences"] == []
    assert report["not_checked"] == []
    assert code == 0
    assert report["ok"]
    assert report["identical"] == report["pages"] > 0
    return report


def the_difference(found: tuple[int, dict[str, Any]]) -> dict[str, Any]:
    """The only difference that a report has."""
    code, report = found
    assert code == 3
    assert not report["ok"]
    assert report["differences_found"] == 1, report["differences"]
    (difference,) = report["differences"]
    assert isinstance(difference, dict)
    return difference


@contextmanager
def running(server: Server) -> Iterator[None]:
    """A load of transactions, vacuum and DDL for as long as the block takes."""
    stop = threading.Event()
    failures: list[Exception] = []

    def change_schema() -> None:
        number = 0
        try:
            with server.connect() as connection:
                while not stop.is_set():
                    number += 1
                    for statement in ddl(number):
                        connection.execute(statement.encode())
        except psycopg.Error as error:
            failures.append(error)

    bench = server.background("pgbench", "-n", "-c", 4, "-T", 600, "-M", "prepared")
    thread = threading.Thread(target=change_schema)
    bench.start()
    thread.start()
    try:
        yield
        assert bench.alive, bench.tail()
    finally:
        stop.set()
        thread.join()
        bench.kill()
    assert not failures


def ddl(number: int) -> Iterator[str]:
    table = f"made_{number}"
    yield f"create table {table} (id int primary key, body text)"
    yield f"insert into {table} select i, repeat('x', i % 900) from generate_series(1, 1500) i"
    yield f"create index on {table} using hash (id)"
    yield f"create index on {table} using gin ((array[id]))"
    yield f"create index on {table} using gist (point(id, id))"
    yield f"create index on {table} using spgist (body)"
    yield f"create index on {table} using brin (id)"
    yield f"update {table} set body = body || 'y' where id % 3 = 0"
    yield f"alter table {table} alter id type bigint"
    yield f"create sequence {table}_seq increment {-7 if number % 2 else 5}"
    yield f"select nextval('{table}_seq') from generate_series(1, 40)"
    yield f"create unlogged table {table}_unlogged (id serial primary key)"
    yield f"insert into {table}_unlogged select from generate_series(1, 100)"
    yield f"delete from {table} where id > 500"
    yield f"vacuum {table}"
    if number > 2:
        yield f"vacuum full made_{number - 1}"
        yield f"truncate made_{number - 2}"
        yield f"drop table made_{number - 2}"
        yield f"drop sequence made_{number - 2}_seq"


@pytest.mark.slow
@pytest.mark.parametrize("full_page_writes", [True, False], ids=["images", "no-images"])
def test_a_busy_server_is_identical_page_by_page(
    full_page_writes: bool, draw: random.Random, new_server: NewServer, new_pageserver: NewPageserver
) -> None:
    checksums = draw.choice((True, False))  # They log hint bits.
    print(f"checksums={checksums}")
    primary = new_server(checksums=checksums, full_page_writes=full_page_writes, **OLTP).start()
    primary.run("pgbench", "-i", "-q", "-s", 3)
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)

    with running(primary):
        identical(verify(pageserver, "--primary", primary.conninfo(), "--create-extension"))
        report = identical(verify(pageserver, "--primary", primary.conninfo()))

    assert set(report["databases"]) == {"postgres", "template0", "template1"}
    assert report["sections"]["refused"]["pages"] > 500
    assert report["sections"]["relations"]["masked"]["hint_bits"] > 0
    assert set(report["exceptions"]) >= {"hint_bits", "prune_xid"}
    primary.stop()
    stopped = identical(verify(pageserver, "--pgdata", primary.data_dir))
    assert stopped["pages"] > report["sections"]["relations"]["pages"] / 2


@pytest.fixture
def quiet(new_server: NewServer, new_pageserver: NewPageserver) -> tuple[Server, Program]:
    """A primary with a table of 3000 rows that nothing changes, and its pageserver."""
    primary = new_server(autovacuum=False).start()
    primary.query("create extension pageinspect")
    primary.query("create table t (id int primary key, body text)")
    primary.query("insert into t select i, md5(i::text) from generate_series(1, 3000) i")
    primary.query("vacuum freeze t")
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    primary.query("update t set body = 'changed' where id = 1")
    return primary, pageserver


def heap_file(server: Server, name: str = "t", suffix: str = "") -> Path:
    path: str = server.value("select pg_relation_filepath(%s)", name)
    return server.data_dir / (path + suffix)


def overwrite(path: Path, offset: int, new: bytes) -> bytes:
    """Write into a file; the bytes that were there."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(len(new))
        file.seek(offset)
        file.write(new)
    return old


def tuple_start(path: Path, block: int, number: int) -> int:
    """Where a tuple begins within its page."""
    with path.open("rb") as file:
        file.seek(block * PAGE_BYTES + 24 + 4 * (number - 1))
        (word,) = struct.unpack("<I", file.read(4))
    return int(word & 0x7FFF)


def test_one_flipped_byte_of_the_live_server_is_found_and_explained(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    path = heap_file(primary)
    identical(verify(pageserver, "--primary", primary.conninfo()))
    primary.stop()
    start = tuple_start(path, 3, 5)
    (old,) = overwrite(path, 3 * PAGE_BYTES + start, b"\x00")
    overwrite(path, 3 * PAGE_BYTES + start, bytes([old ^ 0x40]))
    primary.start()

    found = verify(pageserver, "--primary", primary.conninfo())

    difference = the_difference(found)
    assert difference["relation"] == "public.t"
    assert (difference["fork"], difference["block"], difference["database"]) == ("main", 3, "postgres")
    assert (difference["what"], difference["first_different_byte"]) == ("bytes differ", start)
    names = [field["name"] for field in difference["fields"]]
    assert names == [f"byte {start} (t_xmin of item 5)", "t_xmin"]
    live, ours = (int(difference["fields"][1][side]) for side in ("live", "ours"))
    assert live == ours ^ 0x40
    assert found[1]["identical"] == found[1]["pages"] - 1


def test_a_lost_write_is_found(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    path = heap_file(primary)
    primary.query("checkpoint")
    before = path.read_bytes()[:PAGE_BYTES]
    primary.query("update t set body = 'again' where id = 2")
    primary.stop()
    overwrite(path, 0, before)

    difference = the_difference(verify(pageserver, "--pgdata", primary.data_dir))

    assert (difference["fork"], difference["block"]) == ("main", 0)
    assert difference["key"].endswith(f"/{path.name}")
    assert difference["fields"][0]["name"] == "pd_lsn"


def test_an_lsn_that_no_record_explains_is_a_difference(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    path = heap_file(primary)
    primary.stop()
    old = overwrite(path, 4, bytes(4))
    overwrite(path, 4, struct.pack("<I", struct.unpack("<I", old)[0] - 8))

    difference = the_difference(verify(pageserver, "--pgdata", primary.data_dir))

    assert (difference["what"], difference["block"]) == ("pd_lsn differs", 0)
    assert difference["first_different_byte"] is None


def test_one_visibility_bit_is_found(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    path = heap_file(primary, suffix="_vm")
    primary.stop()
    (old,) = overwrite(path, 25, b"\x00")
    assert old == 0xFF, "blocks 4 to 7 are visible and frozen"
    overwrite(path, 25, b"\xf7")
    primary.start()

    difference = the_difference(verify(pageserver, "--primary", primary.conninfo()))

    assert (difference["what"], difference["fork"]) == ("visibility bits differ", "vm")
    assert difference["first_different_byte"] == 25
    assert {"name": "heap block 5", "live": "visible", "ours": "visible, frozen"} in difference["fields"]


def test_a_page_beyond_what_was_logged_must_be_empty(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    path = heap_file(primary)
    primary.stop()
    pages = path.read_bytes()
    path.write_bytes(pages + bytes(PAGE_BYTES))
    report = identical(verify(pageserver, "--pgdata", primary.data_dir))
    assert report["sections"]["relations"]["masked"]["extended_without_wal"] == 1
    path.write_bytes(pages + pages[:PAGE_BYTES])

    difference = the_difference(verify(pageserver, "--pgdata", primary.data_dir))

    assert (difference["what"], difference["block"]) == ("no such block", len(pages) // PAGE_BYTES)


def test_a_file_that_is_cut_short_or_gone_is_found(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    path, toast = heap_file(primary), heap_file(primary, "pg_toast.pg_toast_2619")
    primary.stop()
    path.write_bytes(path.read_bytes()[:-PAGE_BYTES])
    toast.unlink()

    code, report = verify(pageserver, "--pgdata", primary.data_dir)

    assert code == 3
    found = {(one["what"], one["key"].rpartition("/")[2]) for one in report["differences"]}
    assert found == {
        ("longer than the live fork", path.name),
        ("the live server has no such fork", toast.name),
    }


def test_the_status_of_one_transaction_is_found(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    primary.query("begin; select pg_current_xact_id(); rollback")
    xid = int(primary.value("select xmin::text from t where id = 1"))
    report = identical(verify(pageserver, "--primary", primary.conninfo()))
    assert report["sections"]["clog"]["pages"] == 1
    primary.stop()
    path = primary.data_dir / "pg_xact" / "0000"
    (old,) = overwrite(path, xid // 4, b"\x00")
    overwrite(path, xid // 4, bytes([old ^ 3 << 2 * (xid % 4)]))

    difference = the_difference(verify(pageserver, "--pgdata", primary.data_dir))

    assert difference["what"] == "transaction status differs"
    assert difference["first_different_byte"] == xid // 4
    assert difference["fields"] == [{"name": f"xid {xid}", "live": "aborted", "ours": "committed"}]


def test_relations_and_databases_can_be_chosen(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    primary.query("create database other")
    primary.query("create table only_here (id int)", dbname="other")
    source = ("--primary", primary.conninfo())

    whole = identical(verify(pageserver, *source, "--relation", "public.t"))
    index = identical(verify(pageserver, *source, "--relation", "t_pkey", "--database", "postgres"))
    other = identical(verify(pageserver, *source, "--database", "other", "--create-extension", "--jobs", "2"))

    assert whole["pages"] > index["pages"]
    assert whole["sections"]["relations"]["forks"] == 6, "table and TOAST table with maps and indexes"
    assert other["databases"] == ["other"]
    code, said = refusal(pageserver, *source, "--relation", "public.nowhere")
    assert (code, "no such relation" in said) == (1, True)
    code, said = refusal(pageserver, *source, "--database", "nowhere")
    assert (code, "no such database" in said) == (1, True)


def test_a_built_in_access_method_is_known_under_another_name(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    primary.query("create access method heap2 type table handler heap_tableam_handler")
    primary.query("create table renamed (id int) using heap2")
    primary.query("insert into renamed select generate_series(1, 100)")
    primary.query("select count(*) from renamed")  # Sets hint bits, which are not in the WAL.

    report = identical(verify(pageserver, "--primary", primary.conninfo(), "--relation", "renamed"))

    assert report["sections"]["relations"]["masked"]["hint_bits"] == 1


def test_what_cannot_be_verified_is_said_with_what_to_do(
    quiet: tuple[Server, Program], new_server: NewServer
) -> None:
    primary, pageserver = quiet
    primary.query("drop extension pageinspect")
    primary.query("create role reader login")
    stranger = new_server("stranger").start()
    source = ("--primary", primary.conninfo())

    code, said = refusal(pageserver, *source)
    assert (code, "create it or run with --create-extension database=postgres" in said) == (1, True)
    code, said = refusal(pageserver, "--primary", primary.conninfo(user="reader"))
    assert (code, "superuser" in said) == (1, True)
    code, said = refusal(pageserver, "--primary", stranger.conninfo())
    assert (code, "not the same cluster" in said) == (5, True)
    code, said = refusal(pageserver, "--pgdata", primary.data_dir)
    assert (code, "not shut down cleanly" in said) == (1, True)
    code, said = refusal(pageserver, "--pgdata", "/nowhere")
    assert (code, "not a data directory" in said) == (1, True)
    code, said = refusal(pageserver)
    assert (code, "either --primary or --pgdata" in said) == (1, True)
    pageserver.stop()
    code, said = refusal(pageserver, *source)
    assert (code, "refused" in said) == (2, True)


def test_a_pageserver_that_does_not_follow_is_said(quiet: tuple[Server, Program]) -> None:
    primary, pageserver = quiet
    pageserver.stop()
    configure(pageserver, primary, make_conninfo(primary.conninfo(), port=1))
    pageserver.start()
    serving(pageserver)
    primary.query("insert into t select i, 'more' from generate_series(4000, 5000) i")

    code, said = refusal(pageserver, "--primary", primary.conninfo(), "--wait-s", "1")

    assert (code, "the pageserver does not follow" in said) == (2, True)
