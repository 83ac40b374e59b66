"""A listener, and real clients: psql, psycopg, asyncpg, and bytes that are no client at all."""

import asyncio
import contextlib
import os
import select
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest

from walproxy.wire import datum, messages
from walproxy.wire.aio import Address, Connection, Handler, parse_address, serve
from walproxy.wire.errors import UNDEFINED_OBJECT, ConnectFailed, MalformedInput, SqlError
from walproxy.wire.function import Argument, Column, Function
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import Lsn
from walproxy.wire.replication import Command, IdentifySystem, StartReplication

PAGE = bytes(range(256)) * 32


CALLS: list[int] = []


class Fatal(Exception):
    pass


async def page(rel: str, block: int, lsn: Lsn | None) -> Sequence[Sequence[Any]]:
    if rel == "bug":
        raise KeyError(rel)
    if rel == "counted":
        CALLS.append(block)
    if rel == "fatal":
        raise Fatal
    if block > 1000:
        raise SqlError("22023", f"block number {block} is out of range", hint="Take a smaller one.")
    return [(PAGE if lsn is None else bytes(Lsn(lsn)),)] if block != 7 else [(None,)]


async def pages(rel: str, blocks: list[int], lsns: list[Lsn]) -> Sequence[Sequence[Any]]:
    return [(block, PAGE, f"{rel} {lsns[0]}") for block in blocks]


async def sleep(seconds: float) -> Sequence[Sequence[Any]]:
    await asyncio.sleep(seconds)
    return [(seconds,)]


FUNCTIONS = {
    f.name: f
    for f in (
        Function(
            "page",
            (
                Argument("rel", datum.TEXT),
                Argument("block", datum.INT8),
                Argument("lsn", datum.PG_LSN, is_optional=True),
            ),
            (Column("page", datum.BYTEA),),
            page,
        ),
        Function(
            "pages",
            (
                Argument("rel", datum.TEXT),
                Argument("blocks", datum.INT8_ARRAY),
                Argument("lsns", datum.PG_LSN_ARRAY),
            ),
            (Column("blkno", datum.INT8), Column("page", datum.BYTEA), Column("error", datum.TEXT)),
            pages,
            is_set=True,
        ),
        Function("sleep", (Argument("seconds", datum.FLOAT8),), (Column("slept", datum.FLOAT8),), sleep),
    )
}


class Program(Handler):
    functions = FUNCTIONS
    fatal = (Fatal,)

    def parameters(self) -> dict[str, str]:
        return {"server_version": "18.6"}

    async def show(self, name: str) -> str:
        if name != "program.status":
            raise SqlError(UNDEFINED_OBJECT, f'unrecognized configuration parameter "{name}"')
        return '{"well": true}'

    async def replicate(self, connection: Connection, command: Command) -> None:
        match command:
            case IdentifySystem():
                columns = (Column("systemid", datum.TEXT), Column("timeline", datum.INT8))
                await connection.put_result(columns, [("71", 1)], "IDENTIFY_SYSTEM")
            case StartReplication(lsn):
                stream = await connection.start_copy()
                while (data := await stream.receive()) is not None:
                    if data == b"fail":
                        raise SqlError("58P01", "requested WAL segment is gone")
                    stream.send(data * int(lsn))
                await stream.send_done()
                await connection.put_complete("START_REPLICATION")
            case _:
                raise SqlError("0A000", "not served")


@contextlib.asynccontextmanager
async def running(address: Address) -> AsyncIterator[Address]:
    started: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(address, Program(), started=started.set_result))
    try:
        yield await asyncio.wait_for(started, 5)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with running(parse_address("127.0.0.1:0")) as address:
        yield address.port


def conninfo(port: int) -> str:
    return f"host=127.0.0.1 port={port} user=someone dbname=any"


PSQLS = [
    path
    for path in ("/usr/lib/postgresql/15/bin/psql", shutil.which("psql") or "")
    if path and Path(path).exists()
]


@pytest.mark.parametrize("psql", PSQLS)
async def test_psql_calls_a_function_and_shows_a_setting(port: int, psql: str) -> None:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [psql, "-XAt", conninfo(port), "-c", command], capture_output=True, text=True, check=False
        )

    got = await asyncio.to_thread(run, "SELECT page('1/2/3', 4)")
    shown = await asyncio.to_thread(run, "SHOW program.status;")
    failed = await asyncio.to_thread(run, "SELECT page('1/2/3', 4000)")
    table = await asyncio.to_thread(run, "SELECT * FROM pages('r', ARRAY[1, 2], '{0/1}')")

    assert got.stdout == "\\x" + PAGE.hex() + "\n"
    assert shown.stdout == '{"well": true}\n'
    assert "block number 4000 is out of range\nHINT:  Take a smaller one." in failed.stderr
    assert [line.split("|")[0] for line in table.stdout.splitlines()] == ["1", "2"]


async def test_psycopg_in_text_binary_and_pipeline(port: int) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo(port)) as connection:
        for binary in (False, True):
            cursor = connection.cursor(binary=binary)
            row = await (await cursor.execute("SELECT page(%s, %s, %s)", ("r", 4, None))).fetchone()
            assert row == (PAGE,)
            rows = await (
                await cursor.execute("SELECT * FROM pages(%s, %b, %s)", ("r", [1, 70_000], ["0/1", "1/0"]))
            ).fetchall()
            assert rows == [(1, PAGE, "r 0/1"), (70_000, PAGE, "r 0/1")]
        async with connection.pipeline():
            cursors = [await connection.execute("SELECT page('r', %s::int8)", (block,)) for block in (1, 7)]
            assert [await c.fetchone() for c in cursors] == [(PAGE,), (None,)]
        for _ in range(10):
            await connection.execute("SELECT page('r', %s)", (1,))
        await connection.commit()


async def test_an_error_spoils_the_transaction_until_its_end(port: int) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo(port)) as connection:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="4000 is out of range"):
            await connection.execute("SELECT page('r', 4000)")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await connection.execute("SELECT page('r', 4)")
        await connection.rollback()

        assert await (await connection.execute("SELECT page('r', 7)")).fetchone() == (None,)


async def test_asyncpg_calls_functions(port: int) -> None:
    connection = await asyncpg.connect(host="127.0.0.1", port=port, user="someone", database="any", ssl=False)
    try:
        assert await connection.fetchval("SELECT page($1, $2)", "r", 4) == PAGE
        assert await connection.fetchval("SELECT page($1, 4, $2::text)", "r", "0/2A") == bytes(0x2A)
        async with connection.transaction():
            rows = await connection.fetch("SELECT * FROM pages('r', '{1,2,3}', '{0/1}')")
            assert [row["blkno"] for row in rows] == [1, 2, 3]
            cursor = await connection.cursor("SELECT * FROM pages('r', '{1,2,3}', '{0/1}')")
            assert len(await cursor.fetch(2)) == 2
            assert len(await cursor.fetch(2)) == 1
        with pytest.raises(asyncpg.FeatureNotSupportedError):
            await connection.fetch("INSERT INTO t VALUES (1)")
    finally:
        await connection.close()


async def test_a_cancel_request_stops_the_statement_and_nothing_else(port: int) -> None:
    async with await psycopg.AsyncConnection.connect(conninfo(port), autocommit=True) as connection:
        running_call = asyncio.create_task(connection.execute("SELECT sleep(60)"))
        await asyncio.sleep(0.2)
        await connection.cancel_safe()
        with pytest.raises(psycopg.errors.QueryCanceled):
            await running_call

        assert await (await connection.execute("SELECT sleep(0)")).fetchone() == (0.0,)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        bytes(8),
        b"\0\0\0\x08\x00\x02\x00\x00",
        b"\0\0\0\x0c\x00\x03\x00\x00abcd",
        b"\0\0\0\x09\x00\x03\x00\x00\x00",
    ],
)
async def test_garbage_gets_a_clear_error_and_the_listener_lives_on(port: int, garbage: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(garbage)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()

    assert answer[:1] == b"E"
    assert b"SFATAL" in answer
    connection = await CopyBoth.connect(conninfo(port), replication=False, application_name="after")
    assert await connection.query("SHOW program.status") == [[b'{"well": true}']]
    connection.close()


async def test_a_bug_in_a_function_ends_its_connection_only(port: int) -> None:
    bystander = await CopyBoth.connect(conninfo(port), replication=False, application_name="bystander")
    async with await psycopg.AsyncConnection.connect(conninfo(port), autocommit=True) as connection:
        with pytest.raises(psycopg.errors.InternalError_, match="internal error"):
            await connection.execute("SELECT page('bug', 1)")

    assert await bystander.query("SHOW program.status") == [[b'{"well": true}']]
    bystander.close()


async def test_a_fatal_error_ends_the_server() -> None:
    started: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    server = asyncio.create_task(serve(parse_address("127.0.0.1:0"), Program(), started=started.set_result))
    connection = await CopyBoth.connect(
        conninfo((await started).port), replication=False, application_name="x"
    )

    with pytest.raises(ConnectFailed):
        await connection.query("SELECT page('fatal', 1)")
    connection.close()
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(server, 5)
    assert caught.group_contains(Fatal)


@pytest.fixture(params=[False, True], ids=["libpq", "plain"])
def is_lendable(request: pytest.FixtureRequest) -> bool:
    """Who speaks for the client: libpq, or we on a connection of libpq's."""
    return bool(request.param)


async def test_a_copy_goes_both_ways_and_ends_in_good_order(port: int, is_lendable: bool) -> None:
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="copier", is_lendable=is_lendable
    )

    assert await connection.query("IDENTIFY_SYSTEM") == [[b"71", b"1"]]
    await connection.start("START_REPLICATION 0/2")
    connection.send(b"ab")
    assert await connection.receive() == b"abab"
    assert await connection.finish_copy() == []
    assert await connection.query("SHOW program.status") == [[b'{"well": true}']]
    connection.close()


async def test_an_error_in_a_copy_reaches_the_client_and_the_connection_stays(
    port: int, is_lendable: bool
) -> None:
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="copier", is_lendable=is_lendable
    )
    await connection.start("START_REPLICATION 0/2")

    connection.send(b"fail")
    with pytest.raises(SqlError, match="requested WAL segment is gone") as caught:
        await connection.receive()

    assert caught.value.sqlstate == "58P01"
    connection.send(b"late")  # Of another task that has not heard yet: it goes nowhere.
    assert await connection.query("SHOW program.status") == [[b'{"well": true}']]
    connection.close()


@pytest.mark.parametrize("ask", ["flush", "finish_copy", "receive", "send"])
async def test_a_copy_that_was_lost_is_lost_for_whoever_asks_next(
    port: int, ask: str, is_lendable: bool
) -> None:
    """Of two tasks on one connection, the one that reads may notice first."""
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="copier", is_lendable=is_lendable
    )
    await connection.start("START_REPLICATION 0/2")
    with socket.socket(fileno=os.dup(connection._fd)) as ours:
        ours.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectFailed):
        await connection.receive()

    with pytest.raises(ConnectFailed):
        await asking(connection, ask)
    connection.close()


@pytest.mark.parametrize("ask", ["query", "start"])
async def test_a_connection_that_was_lost_is_lost_for_whoever_asks_next(
    port: int, ask: str, is_lendable: bool
) -> None:
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="asker", is_lendable=is_lendable
    )
    with socket.socket(fileno=os.dup(connection._fd)) as ours:
        ours.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectFailed):
        await connection.query("IDENTIFY_SYSTEM")

    with pytest.raises(ConnectFailed):
        await asking(connection, ask)
    connection.close()


async def asking(connection: CopyBoth, ask: str) -> None:
    match ask:
        case "query" | "start":
            await getattr(connection, ask)("IDENTIFY_SYSTEM")
        case "send":
            connection.send(b"x")
        case _:
            await getattr(connection, ask)()


async def test_much_data_passes_while_both_sides_are_slow(port: int, is_lendable: bool) -> None:
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="copier", is_lendable=is_lendable
    )
    await connection.start("START_REPLICATION 0/1")
    messages = [bytes([n % 256]) * (1 << 20) for n in range(40)]

    async def send() -> None:
        for message in messages:
            connection.send(message)
            await connection.flush()

    sender = asyncio.create_task(send())
    for message in messages:
        assert await connection.receive() == message
    await sender
    connection.close()


async def test_a_client_that_does_not_read_is_not_served_further(port: int) -> None:
    """Its answers must not pile up in the server's memory."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 12)
    startup = b"\0\3\0\0user\0x\0\0"
    writer.write((4 + len(startup)).to_bytes(4) + startup)
    queries = 1500  # Of 16 kB of answer each.
    before = len(CALLS)

    async def ask() -> None:
        for _ in range(queries):
            writer.write(messages.Query("SELECT page('counted', 1)").encode())
            await writer.drain()

    asking = asyncio.create_task(ask())
    seen = -1
    while seen != len(CALLS):
        seen = len(CALLS)
        await asyncio.sleep(0.3)
    assert 0 < seen - before < queries
    answers, tail = 0, b""
    while answers < queries:
        data = tail + await asyncio.wait_for(reader.read(1 << 20), 10)
        answers += data.count(b"SELECT 1\0")
        tail = data[-8:]  # One byte less than what is counted.
    await asking
    assert len(CALLS) - before == queries
    writer.close()


async def test_what_is_no_replication_command_is_refused(port: int, is_lendable: bool) -> None:
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="x", is_lendable=is_lendable
    )

    for command, sqlstate in (
        ("SELECT 1", "0A000"),
        ("START_REPLICATION nowhere", "42601"),
        ("BASE_BACKUP (LABEL 'x')", "0A000"),
        ("TIMELINE_HISTORY 2", "0A000"),
    ):
        with pytest.raises(SqlError) as caught:
            await connection.query(command)
        assert caught.value.sqlstate == sqlstate
    connection.close()


async def lendable(port: int) -> CopyBoth:
    connection = await CopyBoth.connect(
        conninfo(port), replication=True, application_name="lender", is_lendable=True
    )
    await connection.start("START_REPLICATION 0/1")
    return connection


async def test_a_lent_socket_is_read_and_written_by_another_and_taken_back_between_two_messages(
    port: int,
) -> None:
    connection = await lendable(port)
    taken: list[bytes] = []
    could_be_lent = connection.can_be_lent
    pump = asyncio.create_task(connection.pump(taken.append, lambda: None))
    connection.send(b"one")
    await seen(lambda: taken == [b"one"])

    assert (could_be_lent, connection.can_be_lent) == (False, True), "once it is pumped"
    sent: list[bytes] = []
    fd, begun = connection.lend(sent.append)
    assert (begun, connection.can_be_lent) == (b"", False)
    connection.send(b"two")
    connection.resume()  # Whoever paused it does not know.
    assert sent == [b"two"]
    two, three = messages.CopyData(b"two").encode(), messages.CopyData(b"three").encode()
    os.write(fd, two)
    await seen(lambda: taken != [b"one"] or readable(fd))
    assert taken == [b"one"], "the other reads"
    rest = os.read(fd, 4)

    connection.take_back(rest, three)
    connection.send(b"four")
    await seen(lambda: taken[1:] == [b"two", b"three", b"four"])
    assert connection.can_be_lent
    pump.cancel()
    await asyncio.wait({pump})
    connection.close()


async def test_a_lent_stream_can_be_failed_and_is_not_read_again(port: int) -> None:
    connection = await lendable(port)
    taken: list[bytes] = []
    pump = asyncio.create_task(connection.pump(taken.append, lambda: None))
    connection.send(b"one")
    await seen(lambda: taken == [b"one"])
    fd, _ = connection.lend(lambda _: None)
    os.write(fd, messages.CopyData(b"two").encode())

    connection.fail(ValueError("no wal"))
    with pytest.raises(ValueError, match="no wal"):
        await pump
    assert taken == [b"one"]
    connection.close()
    connection.take_back(b"rest", b"unsent")


async def test_what_another_left_is_handled_though_the_server_is_gone(port: int) -> None:
    connection = await lendable(port)
    taken: list[bytes] = []
    pump = asyncio.create_task(connection.pump(taken.append, lambda: None))
    connection.send(b"one")
    await seen(lambda: taken == [b"one"])
    fd, _ = connection.lend(lambda _: None)
    with socket.socket(fileno=os.dup(fd)) as ours:
        ours.shutdown(socket.SHUT_RDWR)

    connection.take_back(messages.CopyData(b"last words").encode(), b"")
    with pytest.raises(ConnectFailed):
        await pump
    assert taken == [b"one", b"last words"]
    connection.close()


@pytest.mark.parametrize("is_lent", [True, False])
async def test_no_goodbye_goes_into_half_a_message(port: int, is_lent: bool) -> None:
    """What another sent of a message, or we did, is not completed by libpq's Terminate."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.settimeout(5)
        connection = await lendable(port)
        pump = asyncio.create_task(connection.pump(lambda _: None, lambda: None))
        await asyncio.sleep(0)
        fd, _ = connection.lend(lambda _: None)
        os.dup2(ours.fileno(), fd)
        ours.close()
        os.write(fd, b"d\0\0")
        if not is_lent:
            connection._pgconn.put_back(b"", b"\0\5x")  # type: ignore[union-attr]
        connection.close()
        assert theirs.recv(100) == b"d\0\0"
        assert theirs.recv(100) == b""
        pump.cancel()
        await asyncio.wait({pump})


async def test_what_libpq_speaks_is_never_lent(port: int) -> None:
    connection = await CopyBoth.connect(conninfo(port), replication=True, application_name="x")
    await connection.start("START_REPLICATION 0/1")
    pump = asyncio.create_task(connection.pump(lambda _: None, lambda: None))
    await asyncio.sleep(0)
    assert not connection.is_lendable
    assert not connection.can_be_lent
    pump.cancel()
    await asyncio.wait({pump})
    connection.close()


async def test_what_gss_may_encrypt_is_never_lent(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def is_lendable(more: str = "") -> bool:
        connection = await CopyBoth.connect(
            f"{conninfo(port)} {more}", replication=True, application_name="x", is_lendable=True
        )
        connection.close()
        return connection.is_lendable

    assert await is_lendable()
    assert not await is_lendable("gssencmode=prefer")
    monkeypatch.setenv("PGGSSENCMODE", "prefer")
    assert not await is_lendable()


async def seen(look: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not look():  # noqa: ASYNC110 - what is looked at has no events
            await asyncio.sleep(0.005)


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


async def test_a_unix_socket_is_used_again_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / ".s.PGSQL.5432"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    async with running(parse_address(f"unix:{path}")) as address:
        connection = await CopyBoth.connect(
            f"host={tmp_path} user=x", replication=False, application_name="x"
        )
        assert connection.parameter("server_version") == "18.6"
        connection.close()
        with pytest.raises(OSError, match="another process listens there"):
            await serve(address, Program())

    assert not path.exists()


@pytest.mark.parametrize(
    "text", ["0.0.0.0:1", "192.168.1.1:5432", "*:5432", "::1", "db.example:1", "127.0.0.1:x"]
)
def test_an_address_that_others_reach_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput):
        parse_address(text)


async def test_nobody_answers() -> None:
    with pytest.raises(ConnectFailed, match="refused"):
        await CopyBoth.connect("host=127.0.0.1 port=1 user=x", replication=True, application_name="x")
