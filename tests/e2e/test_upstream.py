"""The receiver against real primaries."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fix_pg import NewServer
from tools.server import Server
from tools.wait import until
from walcore._native import WalScanner
from walproxy.errors import PrimaryUnreachable, SlotActive, WalRemoved
from walproxy.ports import EndOfTimeline, PrimaryWal
from walproxy.upstream import PrimaryConnection
from walproxy.wire.lsn import Lsn, parse_lsn, segment_name, segment_start


@contextlib.asynccontextmanager
async def connected(server: Server, **parts: str | int) -> AsyncIterator[PrimaryConnection]:
    connection = PrimaryConnection(
        server.conninfo(**parts), slot_name="walproxy", application_name="walproxy"
    )
    try:
        yield connection
    finally:
        await connection.close()


async def received(connection: PrimaryConnection, until: Lsn) -> bytes:
    wal = b""
    async with asyncio.timeout(30):
        while True:
            got = await connection.receive()
            assert isinstance(got, PrimaryWal)
            wal += got.wal
            if got.start_lsn + len(got.wal) >= until:
                return wal


async def test_it_identifies_the_primary_and_makes_its_slot(pg: Server) -> None:
    async with connected(pg) as connection:
        identity = await connection.identify()
    async with connected(pg) as connection:
        again = await connection.identify()

    system_id = pg.value("select system_identifier from pg_control_system()")
    ((slot_type, restart_lsn),) = pg.query("select slot_type, restart_lsn::text from pg_replication_slots")
    assert identity.cluster.system_id == system_id
    assert (identity.cluster.major, identity.cluster.segment_size) == (pg.major, 16 << 20)
    assert (identity.tli, identity.history) == (1, b"")
    assert identity.server_version == pg.value("show server_version")
    assert slot_type == "physical"
    assert str(identity.slot_restart_lsn) == str(again.slot_restart_lsn) == restart_lsn


@pytest.mark.pg(18)
async def test_a_small_segment_size_is_told(new_server: NewServer) -> None:
    server = new_server(segment_size_mb=1).start()

    async with connected(server) as connection:
        assert (await connection.identify()).cluster.segment_size == 1 << 20


async def test_the_wal_it_receives_is_the_primarys(pg: Server) -> None:
    async with connected(pg) as connection:
        identity = await connection.identify()
        start = segment_start(identity.slot_restart_lsn, 16 << 20)
        await connection.start(start, 1)
        pg.query("create table t as select generate_series(1, 100000) i")
        end = parse_lsn(pg.value("select pg_current_wal_flush_lsn()::text"))
        wal = await received(connection, end)

    scanner = WalScanner(start, segment_size=16 << 20, system_id=identity.cluster.system_id)
    scanner.feed(wal)
    assert scanner.record_end_lsn >= end
    file = pg.data_dir / "pg_wal" / segment_name(1, start, 16 << 20)
    assert wal[: 1 << 20] == file.read_bytes()[: 1 << 20]


async def test_a_commit_waits_for_our_report_and_for_nothing_less(new_server: NewServer) -> None:
    server = new_server(synchronous_standby_names="ANY 1 (walproxy)").start()
    done = threading.Event()

    def commit() -> None:
        server.query("create table t ()")
        done.set()

    async with connected(server) as connection:
        identity = await connection.identify()
        await connection.start(segment_start(identity.flush_lsn, 16 << 20), 1)
        committer = threading.Thread(target=commit)
        committer.start()
        position = identity.flush_lsn
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while True:
                    got = await connection.receive()
                    assert isinstance(got, PrimaryWal)
                    position = Lsn(got.start_lsn + len(got.wal))
        connection.report(position, Lsn(identity.flush_lsn - 1), Lsn(0))
        await asyncio.sleep(0.3)
        assert not done.is_set()

        connection.report(position, position, position)
        await asyncio.to_thread(done.wait, 5)
        assert done.is_set()
        state = server.value("select sync_state from pg_stat_replication")
        committer.join()
    assert state == "quorum"


async def test_a_busy_slot_is_said_to_be_busy(pg: Server) -> None:
    async with connected(pg) as first, connected(pg) as second:
        identity = await first.identify()
        await second.identify()
        await first.start(identity.slot_restart_lsn, 1)

        with pytest.raises(SlotActive, match="55006"):
            await second.start(identity.slot_restart_lsn, 1)


async def test_removed_wal_is_said_to_be_removed(pg: Server) -> None:
    async with connected(pg) as connection:
        await connection.identify()
        first = Lsn(16 << 20)
        pg.query("select pg_switch_wal()")
        pg.query("checkpoint")
        for _ in range(4):
            pg.query("create table if not exists t ()")
            pg.query("select pg_switch_wal()")
        pg.query("select pg_drop_replication_slot('walproxy')")
        pg.query("checkpoint")
        async with connected(pg) as late:
            await late.identify()
            await late.start(first, 1)
            with pytest.raises(WalRemoved, match="already been removed"):
                await late.receive()


@pytest.mark.parametrize("setting", ["max_wal_senders", "wal_level"])
async def test_a_primary_that_refuses_replication_says_why(new_server: NewServer, setting: str) -> None:
    server = new_server(max_wal_senders=0, **({"wal_level": "minimal"} if setting == "wal_level" else {}))
    server.start()

    async with connected(server) as connection:
        with pytest.raises(PrimaryUnreachable, match=r"max_wal_senders|too many|wal_level"):
            await connection.identify()


async def test_nobody_there_is_said_at_once(folder: Path) -> None:
    connection = PrimaryConnection(
        f"host={folder} port=1 user=x", slot_name="walproxy", application_name="walproxy"
    )

    started_s = time.monotonic()
    with pytest.raises(PrimaryUnreachable, match=r"cannot connect to the primary: .*No such file"):
        await connection.identify()
    assert time.monotonic() - started_s < 2


async def test_a_user_without_the_right_is_told(pg: Server) -> None:
    pg.query("create user nobody")

    async with connected(pg, user="nobody") as connection:
        with pytest.raises(PrimaryUnreachable, match=r"replication role|permission denied"):
            await connection.identify()


async def test_a_stopped_primary_ends_the_stream(pg: Server) -> None:
    async with connected(pg) as connection:
        identity = await connection.identify()
        await connection.start(segment_start(identity.flush_lsn, 16 << 20), 1)
        stopping = threading.Thread(target=pg.stop)
        stopping.start()

        async def follow() -> None:
            while True:
                got = await connection.receive()
                assert isinstance(got, PrimaryWal)
                end = Lsn(got.start_lsn + len(got.wal))
                connection.report(end, end, end)

        with pytest.raises(PrimaryUnreachable):
            await asyncio.wait_for(follow(), 30)
        stopping.join()


async def test_an_older_timeline_ends_where_the_next_begins(pg: Server, new_server: NewServer) -> None:
    standby = new_server("standby")
    standby.data_dir.rename(standby.data_dir.with_name("unused"))
    pg.run("pg_basebackup", "-D", standby.data_dir, "-R", "-c", "fast")
    standby.start()
    pg.query("create table t as select generate_series(1, 1000) i")
    end = pg.value("select pg_current_wal_flush_lsn()")
    until(lambda: standby.value("select pg_last_wal_replay_lsn() >= %s", end), what="replayed")
    standby.query("select pg_promote()")

    async with connected(standby) as connection:
        identity = await connection.identify()
        assert identity.tli == 2
        assert b"no recovery target specified" in identity.history
        switch = parse_lsn(identity.history.split(b"\t")[1].decode())
        await connection.start(segment_start(switch, 16 << 20), 1)
        reached = 0
        async with asyncio.timeout(10):
            while isinstance(got := await connection.receive(), PrimaryWal):
                reached = got.start_lsn + len(got.wal)
        assert got == EndOfTimeline(2, switch)
        assert reached == switch
    async with connected(standby) as connection:
        await connection.identify()
        await connection.start(switch, 1)
        assert await connection.receive() == EndOfTimeline(2, switch)
