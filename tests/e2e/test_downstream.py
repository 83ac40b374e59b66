"""Stock consumers stream from a node: standbys, pg_receivewal, slots; and what bad requests get."""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import pq

from tests.fix_stack import NewStack
from tools.process import Process
from tools.server import Server
from tools.stack import Program, Stack
from tools.standby import make_standby, row_differences, wait_for_replay
from tools.wait import until
from walproxy.wire.lsn import parse_lsn, segment_start

SEGMENT = 1 << 20


@pytest.fixture
def one(new_stack: NewStack) -> Stack:
    """A node alone, in front of a primary with small segments."""
    return new_stack(nodes=1, primary={"segment_size_mb": 1}).start(pageserver=False)


def node_of(stack: Stack) -> Program:
    return stack.nodes[0]


def flush_lsn(server: Server) -> str:
    return str(server.value("select pg_current_wal_flush_lsn()::text"))


def write_some(server: Server, megabytes: int = 3) -> None:
    server.query("create table if not exists filler (i int, t text)")
    server.query(
        "insert into filler select i, repeat(md5(i::text), 30) from generate_series(1, %s) i",
        megabytes * 1000,
    )


@contextlib.contextmanager
def replication(node: Program) -> Iterator[psycopg.Connection[Any]]:
    """A replication connection, whatever state it is left in."""
    with contextlib.closing(
        psycopg.connect(node.conninfo(replication="true"), autocommit=True)
    ) as connection:
        yield connection


def command(connection: psycopg.Connection[Any], text: str) -> list[list[str | None]]:
    result = connection.pgconn.exec_(text.encode())
    if result.status in {pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.NONFATAL_ERROR}:
        raise psycopg.errors.error_from_result(result)
    assert result.status in {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK, pq.ExecStatus.COPY_BOTH}
    rows = [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
    return [[None if value is None else value.decode() for value in row] for row in rows]


def all_rows(connection: psycopg.Connection[Any]) -> list[list[bytes | None]]:
    """The rows of all results that are still to come."""
    rows = []
    while (result := connection.pgconn.get_result()) is not None:
        rows += [[result.get_value(r, c) for c in range(result.nfields)] for r in range(result.ntuples)]
    return rows


def copy_error(connection: psycopg.Connection[Any], text: str) -> psycopg.Error:
    """The error that a command ends with, be it only after its copy has begun."""
    try:
        command(connection, text)
    except psycopg.Error as error:
        return error
    while (got := connection.pgconn.get_copy_data(0))[0] > 0:
        del got
    return psycopg.errors.error_from_result(connection.pgconn.get_result())  # type: ignore[arg-type]


def test_a_stock_standby_follows_a_node(one: Stack, folder: Path, watched: list[Process]) -> None:
    node = node_of(one)
    standby = make_standby(folder / "standby", one.primary, node.conninfo(application_name="follower"))
    watched.append(standby.process)
    standby.configure(hot_standby_feedback=True, wal_receiver_status_interval="1s")
    try:
        standby.start()
        one.primary.run("pgbench", "-i", "-q", "-s", 2)
        one.primary.run("pgbench", "-c", 4, "-t", 200)
        wait_for_replay(standby, flush_lsn(one.primary))
        assert list(row_differences(one.primary, standby)) == []

        (row,) = node.status()["downstreams"]
        assert (row["application_name"], row["state"], row["tli"]) == ("follower", "streaming", 1)
        until(
            lambda: node.status()["downstreams"][0]["lag_bytes"] == 0, what="the standby reports all flushed"
        )
        until(lambda: node.status()["hot_standby_feedback"]["xmin"] > 0, what="its feedback is remembered")
        held = "select xmin is not null from pg_replication_slots where slot_name = 'walproxy'"
        until(lambda: one.primary.value(held), what="its feedback reaches the primary")
        assert standby.value("select sender_port from pg_stat_wal_receiver") == node.port
        assert standby.value("select status from pg_stat_wal_receiver") == "streaming"
    finally:
        standby.destroy()


def test_a_standby_with_a_slot_goes_on_where_it_was(one: Stack, folder: Path, watched: list[Process]) -> None:
    node = node_of(one)
    with replication(node) as connection:
        command(connection, "CREATE_REPLICATION_SLOT follower PHYSICAL (RESERVE_WAL)")
    standby = make_standby(folder / "standby", one.primary, node.conninfo(), slot="follower")
    watched.append(standby.process)
    try:
        standby.start()
        write_some(one.primary)
        wait_for_replay(standby, flush_lsn(one.primary))
        standby.stop()
        held_from = parse_lsn(node.status()["slots"][0]["restart_lsn"])
        write_some(one.primary, 12)
        time.sleep(3)  # Longer than a node waits before it removes what nobody needs.
        assert parse_lsn(node.status()["start_lsn"]) <= segment_start(held_from, SEGMENT)

        node.stop()
        node.start()
        node.ready()
        one.wait_for_quorum()
        standby.start()
        wait_for_replay(standby, flush_lsn(one.primary))
        assert list(row_differences(one.primary, standby)) == []
        until(
            lambda: parse_lsn(node.status()["start_lsn"]) > held_from,
            what="the node lets go of what the standby has",
            ignoring=(psycopg.Error,),
        )
    finally:
        standby.destroy()


@pytest.fixture
def receiving(one: Stack, folder: Path, watched: list[Process]) -> Iterator[tuple[Process, Path]]:
    """``pg_receivewal --synchronous`` on a slot of the node."""
    target = one.primary.own(folder / "received")
    conninfo = node_of(one).conninfo()
    one.primary.run("pg_receivewal", "-d", conninfo, "--slot", "archive", "--create-slot")
    process = one.primary.background(
        "pg_receivewal", "-d", conninfo, "-D", target, "--slot", "archive", "--synchronous", "--verbose"
    )
    watched.append(process)
    process.start()
    yield process, target
    process.kill()


def test_what_pg_receivewal_gets_is_the_primarys_own(one: Stack, receiving: tuple[Process, Path]) -> None:
    process, target = receiving
    one.primary.query("select pg_create_physical_replication_slot('keep', true)")
    write_some(one.primary, 5)
    one.primary.query("select pg_switch_wal()")
    write_some(one.primary, 1)
    end = parse_lsn(flush_lsn(one.primary))

    def caught_up() -> bool:
        rows = node_of(one).status()["downstreams"]
        return bool(rows) and parse_lsn(rows[0]["flush_lsn"]) >= end

    until(caught_up, what="pg_receivewal has flushed everything")
    complete = sorted(file.name for file in target.iterdir() if len(file.name) == 24)
    assert len(complete) >= 6
    kept = [name for name in complete if (one.primary.data_dir / "pg_wal" / name).exists()]
    assert len(kept) >= 6
    for name in kept:
        ours = (target / name).read_bytes()
        assert ours == (one.primary.data_dir / "pg_wal" / name).read_bytes(), name
        stored = node_of(one).data_dir / "wal" / name
        assert not stored.exists() or stored.read_bytes() == ours
    process.stop(signal.SIGINT)
    node = node_of(one)
    until(lambda: not node.status()["downstreams"], what="the node sees it gone")
    one.primary.run("pg_receivewal", "-d", node.conninfo(), "--slot", "archive", "--drop-slot")
    assert node.status()["slots"] == []


def test_a_client_that_stops_streaming_can_go_on_with_the_connection(one: Stack) -> None:
    with replication(node_of(one)) as connection:
        ((_, tli, end, _),) = command(connection, "IDENTIFY_SYSTEM")
        start = segment_start(parse_lsn(str(end)), SEGMENT)
        command(connection, f"START_REPLICATION PHYSICAL {start} TIMELINE {tli}")
        length, data = connection.pgconn.get_copy_data(0)
        assert bytes(data)[:1] == b"w"
        assert length > 25
        connection.pgconn.put_copy_end()
        while connection.pgconn.get_copy_data(0)[0] > 0:
            pass
        while connection.pgconn.get_result() is not None:
            pass

        assert command(connection, "SHOW wal_segment_size") == [["1MB"]]


def test_nothing_beyond_the_commit_lsn_is_served(new_stack: NewStack) -> None:
    """With two of three nodes stopped nothing commits, and the third serves nothing new."""
    stack = new_stack(nodes=3).start(pageserver=False)
    proposer = stack.proposer()
    committed = parse_lsn(proposer.status()["commit_lsn"])
    for node in stack.nodes:
        if node is not proposer:
            node.pause()
    with replication(proposer) as connection:
        command(connection, f"START_REPLICATION PHYSICAL {segment_start(committed, 16 << 20)}")
        with stack.primary.connect() as writer:
            writer.execute("set synchronous_commit = local")
            writer.execute("create table not_committed_by_the_quorum ()")
        sent = 0
        deadline_s = time.monotonic() + 2
        while time.monotonic() < deadline_s:
            connection.pgconn.consume_input()
            length, data = connection.pgconn.get_copy_data(1)
            if length > 0 and bytes(data)[:1] == b"w":
                sent = max(sent, int.from_bytes(bytes(data)[1:9]) + length - 25)
            elif length == 0:
                time.sleep(0.05)
        assert sent == parse_lsn(proposer.status()["commit_lsn"])
        assert sent < parse_lsn(flush_lsn(stack.primary))


def test_the_answers_to_identify_and_show_are_those_of_a_walsender(one: Stack) -> None:
    major = one.primary.major
    with (
        replication(node_of(one)) as ours,
        psycopg.connect(one.primary.conninfo(replication="true"), autocommit=True) as theirs,
    ):
        for text in ("IDENTIFY_SYSTEM", "SHOW wal_segment_size", "SHOW data_directory_mode"):
            results = [connection.pgconn.exec_(text.encode()) for connection in (ours, theirs)]
            shapes = [
                [(r.fname(c), r.ftype(c), r.fsize(c), r.fformat(c)) for c in range(r.nfields)]
                for r in results
            ]
            assert shapes[0] == shapes[1]
            values = [[r.get_value(0, c) for c in range(r.nfields)] for r in results]
            if text == "IDENTIFY_SYSTEM":
                values = [v[:2] + v[3:] for v in values]  # The position may lag behind the primary's.
            assert values[0] == values[1]
            assert results[0].command_status == results[1].command_status
        assert ours.info.server_version // 10_000 == major


WRONG = [
    ("START_REPLICATION SLOT nowhere PHYSICAL 0/1000000", "42704", "does not exist"),
    ("START_REPLICATION PHYSICAL FF/0", "XX000", "ahead of the WAL flush position"),
    ("START_REPLICATION PHYSICAL 0/0", "58P01", "has already been removed"),
    ("START_REPLICATION PHYSICAL 0/1000000 TIMELINE 9", "22023", "not in this server's history"),
    ("START_REPLICATION SLOT s LOGICAL 0/0", "0A000", "logical"),
    ("TIMELINE_HISTORY 5", "58P01", "00000005.history"),
    ('CREATE_REPLICATION_SLOT "Bad Name" PHYSICAL', "42602", "not valid"),
    ("DROP_REPLICATION_SLOT nowhere", "42704", "does not exist"),
    ("BASE_BACKUP (LABEL 'x')", "0A000", "BASE_BACKUP"),
    ("SELECT 1", "0A000", "cannot execute SQL commands"),
    ("WHATEVER", "0A000", "cannot execute SQL commands"),
    ("IDENTIFY_SYSTEM please", "42601", "syntax error"),
    ("SHOW nothing.like_it", "42704", "unrecognized configuration parameter"),
]


def test_what_is_asked_wrongly_gets_a_clear_error_and_the_connection_lives_on(one: Stack) -> None:
    with replication(node_of(one)) as connection:
        for text, sqlstate, message in WRONG:
            error = copy_error(connection, text)
            assert error.sqlstate == sqlstate, text
            assert message in str(error)
            while connection.pgconn.get_result() is not None:
                pass
            assert command(connection, "SHOW data_directory_mode") == [["0700"]]


def test_slots_are_kept_taken_and_refused_as_postgres_does(one: Stack) -> None:
    node = node_of(one)
    with replication(node) as first, replication(node) as second:
        created = command(first, "CREATE_REPLICATION_SLOT s PHYSICAL")
        assert created == [["s", "0/0", None, None]]
        assert copy_error(first, "CREATE_REPLICATION_SLOT s PHYSICAL").sqlstate == "42710"
        assert command(first, "READ_REPLICATION_SLOT s") == [["physical", None, None]]
        assert command(first, "READ_REPLICATION_SLOT other") == [[None, None, None]]
        command(first, "CREATE_REPLICATION_SLOT t TEMPORARY PHYSICAL (RESERVE_WAL)")
        ((_, _, end, _),) = command(first, "IDENTIFY_SYSTEM")
        command(first, f"START_REPLICATION SLOT s {segment_start(parse_lsn(str(end)), SEGMENT)}")
        for text in ("START_REPLICATION SLOT s 0/1000000", "DROP_REPLICATION_SLOT s"):
            error = copy_error(second, text)
            assert (error.sqlstate, "is active for PID" in str(error)) == ("55006", True)
        assert {slot["name"] for slot in node.status()["slots"]} == {"s", "t"}
    until(lambda: not node.status()["slots"][0]["active_pid"], what="the slot is free again")
    assert [slot["name"] for slot in node.status()["slots"]] == ["s"]
    node.stop()
    node.start()
    node.ready()
    with replication(node) as connection:
        assert [slot["name"] for slot in node.status()["slots"]] == ["s"]
        command(connection, "DROP_REPLICATION_SLOT s")
    assert node.status()["slots"] == []


def test_a_timeline_of_the_past_is_streamed_to_its_end(
    one: Stack, folder: Path, watched: list[Process]
) -> None:
    """A new primary, promoted from a standby, goes on as timeline 2; followers of timeline 1 cross over."""
    node = node_of(one)
    promoted = make_standby(folder / "promoted", one.primary, node.conninfo())
    follower = make_standby(folder / "follower", one.primary, node.conninfo())
    watched += [promoted.process, follower.process]
    try:
        promoted.start()
        follower.start()
        write_some(one.primary, 2)
        end = flush_lsn(one.primary)
        wait_for_replay(promoted, end)
        wait_for_replay(follower, end)
        one.primary.stop(immediate=True)
        node.stop()
        promoted.configure(primary_conninfo="", port=promoted.port)
        promoted.query("select pg_promote()")
        text = node.config.read_text()
        node.config.write_text(text.replace(f"port={one.primary.port}", f"port={promoted.port}"))
        node.start()
        node.ready()
        until(lambda: node.status()["tli"] == 2, what="the node follows the new timeline")
        promoted.query("create table after_promotion as select generate_series(1, 1000) i")
        wait_for_replay(follower, flush_lsn(promoted))
        assert follower.value("select count(*) from after_promotion") == 1000
        assert follower.value("select received_tli from pg_stat_wal_receiver") == 2
        with replication(node) as connection:
            ((_, content),) = command(connection, "TIMELINE_HISTORY 2")
            switch = parse_lsn(str(content).split("\t")[1])
            start = segment_start(switch, SEGMENT)
            command(connection, f"START_REPLICATION PHYSICAL {start} TIMELINE 1")
            wal = b""
            while (got := connection.pgconn.get_copy_data(0))[0] > 0:
                wal += bytes(got[1])[25:] if bytes(got[1])[:1] == b"w" else b""
            assert len(wal) == switch - start
            connection.pgconn.put_copy_end()
            assert all_rows(connection) == [[b"2", str(switch).encode()]]
            connection.pgconn.send_query(f"START_REPLICATION PHYSICAL {switch} TIMELINE 1".encode())
            assert all_rows(connection) == [[b"2", str(switch).encode()]]
    finally:
        promoted.destroy()
        follower.destroy()


def run_cli(*arguments: str) -> tuple[int, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "walproxy", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_status_and_check_are_green_only_while_the_primary_waits(one: Stack) -> None:
    primary = one.primary
    node = node_of(one)
    code, shown = run_cli("check", "--primary", primary.conninfo())
    assert (code, shown["is_red"]) == (0, False), shown
    code, shown = run_cli("status", "--config", str(node.config))
    assert (code, shown["complaints"]) == (0, []), shown

    for setting, bad in (
        ("synchronous_commit", "local"),
        ("synchronous_standby_names", "other"),
        ("fsync", "off"),
    ):
        good = primary.value("select current_setting(%s)", setting)
        primary.reload(**{setting: bad})
        until(lambda: primary.value("select current_setting(%s)", setting) == bad, what="reloaded")  # noqa: B023
        code, shown = run_cli("check", "--primary", primary.conninfo())
        red = [found["what"] for found in shown["findings"] if found["level"] == "red"]
        assert code == 2
        assert setting in red
        assert run_cli("status", "--config", str(node.config))[0] == 2
        primary.reload(**{setting: good})
        until(lambda: primary.value("select current_setting(%s)", setting) == good, what="reloaded")  # noqa: B023

    node.stop()
    code, shown = run_cli("status", "--node", node.conninfo())
    assert code == 2
    assert "does not answer" in shown["complaints"][0]
    code, shown = run_cli("check", "--primary", primary.conninfo())
    assert code == 2


def test_the_state_of_full_page_writes_is_shown_with_its_lsn(one: Stack) -> None:
    node = node_of(one)
    until(lambda: node.status()["full_page_writes"] is not None, what="a checkpoint was seen")
    assert node.status()["full_page_writes"]["is_on"] is True
    before = parse_lsn(flush_lsn(one.primary))

    one.primary.reload(full_page_writes=False)
    one.primary.query("checkpoint")
    until(lambda: node.status()["full_page_writes"]["is_on"] is False, what="the switch was seen")

    assert parse_lsn(node.status()["full_page_writes"]["since_lsn"]) >= before
    assert 0 < node.status()["recent_wal"]["fpi_share"] < 1
