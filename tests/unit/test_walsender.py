"""The server of a node, over a real socket, in front of a node that is only memory."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.synthetic_wal import WalWriter
from walproxy import walsender
from walproxy.errors import WalRemoved
from walproxy.ports import CopyStream, Downstreams
from walproxy.quorum.messages import Feedback
from walproxy.quorum.state import Cluster
from walproxy.quorum.terms import TermHistory
from walproxy.server import Service
from walproxy.store.slots import Slots
from walproxy.walsender import parse_history
from walproxy.wire.aio import Address, parse_address, serve
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.function import Functions
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import INVALID_LSN, Lsn
from walproxy.wire.replication import (
    HotStandbyFeedback,
    Keepalive,
    StatusUpdate,
    XLogData,
    parse_server_message,
)

SEGMENT = 1 << 20
START = Lsn(3 * SEGMENT)


@dataclass
class MemoryNode:
    """A ``NodeView`` whose WAL is bytes and whose commit LSN moves when told."""

    wal: WalWriter
    name: str = "memory"
    commit_lsn: Lsn = INVALID_LSN
    start_lsn: Lsn = START
    cluster: Cluster | None = field(default_factory=lambda: Cluster(7, SEGMENT, 18))
    term_history: TermHistory = field(default_factory=lambda: TermHistory.of([(1, 1, START)]))
    history_files: dict[int, bytes] = field(default_factory=dict)
    moved: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def histories(self) -> Mapping[int, bytes]:
        return self.history_files

    async def commit(self, lsn: Lsn) -> None:
        async with self.changed:
            self.commit_lsn = lsn
            self.changed.notify_all()

    async def wait_commit(self, above_lsn: Lsn, timeout_s: float) -> Lsn:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self.changed:
                await self.changed.wait_for(lambda: self.commit_lsn > above_lsn)
        return self.commit_lsn

    def read(self, lsn: Lsn, size: int) -> bytes:
        assert lsn + size <= self.commit_lsn, "read beyond the commit LSN"
        if lsn < self.start_lsn:
            raise WalRemoved("gone")
        return self.wal.between(lsn, lsn + size)

    def attach(self, downstreams: Downstreams) -> None:
        raise AssertionError(downstreams)

    def functions(self) -> Functions:
        return {}

    def downstream_moved(self) -> None:
        self.moved += 1

    async def serve_peer(self, stream: CopyStream) -> None:
        while (data := await stream.receive()) is not None:
            stream.send(data[::-1])

    def status(self) -> dict[str, object]:
        return {"name": self.name}


@pytest.fixture
def node() -> MemoryNode:
    wal = WalWriter(START, SEGMENT)
    wal.fill(START + 3 * SEGMENT)
    return MemoryNode(wal, commit_lsn=wal.ends[700])


@pytest.fixture
def service(node: MemoryNode, tmp_path: Path) -> Service:
    return Service(node, Slots(tmp_path))


@pytest.fixture
async def port(service: Service) -> AsyncIterator[int]:
    started: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(parse_address("127.0.0.1:0"), service, started=started.set_result))
    yield (await started).port
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@contextlib.asynccontextmanager
async def connected(port: int, name: str = "consumer") -> AsyncIterator[CopyBoth]:
    connection = await CopyBoth.connect(
        f"host=127.0.0.1 port={port} user=x", replication=True, application_name=name
    )
    try:
        yield connection
    finally:
        connection.close()


async def received(connection: CopyBoth, until: Lsn) -> bytes:
    """The WAL up to there; each message's bounds are checked."""
    wal = b""
    at: Lsn | None = None
    async with asyncio.timeout(10):
        while at is None or at < until:
            data = await connection.receive()
            assert data is not None
            message = parse_server_message(data)
            if isinstance(message, XLogData):
                assert at is None or message.start_lsn == at
                assert 0 < len(message.wal) <= 128 * 1024
                at = Lsn(message.start_lsn + len(message.wal))
                assert at <= message.end_lsn
                assert at == message.end_lsn or at % 8192 == 0
                wal += message.wal
    return wal


async def test_committed_wal_goes_out_at_once_and_nothing_else(node: MemoryNode, port: int) -> None:
    async with connected(port) as connection:
        await connection.start(f"START_REPLICATION PHYSICAL {START}")
        first = node.commit_lsn
        wal = await received(connection, first)
        assert wal == node.wal.between(START, first)

        waiting = asyncio.create_task(connection.receive())
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await node.commit(node.wal.ends[701])
        data = await asyncio.wait_for(waiting, 1)
        assert data is not None
        message = parse_server_message(data)
        assert isinstance(message, XLogData)
        assert (message.start_lsn, message.wal) == (first, node.wal.between(first, node.wal.ends[701]))

        await node.commit(node.wal.end_lsn)
        assert await received(connection, node.wal.end_lsn) == node.wal.between(
            node.wal.ends[701], node.wal.end_lsn
        )


async def test_what_a_consumer_reports_is_kept_and_never_believed_beyond_the_commit(
    node: MemoryNode, service: Service, port: int
) -> None:
    async with connected(port, "one") as connection, connected(port, "two") as other:
        await connection.query("CREATE_REPLICATION_SLOT s PHYSICAL")
        await connection.start(f"START_REPLICATION SLOT s PHYSICAL {START}")
        await other.start(f"START_REPLICATION PHYSICAL {START}")
        await received(connection, node.commit_lsn)
        await received(other, node.commit_lsn)
        flush = node.wal.ends[600]
        connection.send(StatusUpdate(Lsn(1 << 60), flush, node.wal.ends[5], 0, reply_requested=True).encode())
        answer = parse_server_message(await connection.receive() or b"")
        assert answer == Keepalive(node.commit_lsn, answer.sent_us, reply_requested=False)
        other.send(HotStandbyFeedback(0, 700, 1, 0, 0).encode())
        connection.send(HotStandbyFeedback(0, 900, 0, 800, 0).encode())
        other.send(StatusUpdate(flush, INVALID_LSN, INVALID_LSN, 0, reply_requested=True).encode())
        await other.receive()
        connection.send(StatusUpdate(Lsn(1 << 60), flush, flush, 0, reply_requested=True).encode())
        await connection.receive()

        shown = json.loads((await connect_and_show(port))[0])
        rows = {row["application_name"]: row for row in shown["downstreams"]}
        assert rows["one"]["write_lsn"] == str(node.commit_lsn)
        assert (rows["one"]["flush_lsn"], rows["one"]["slot"], rows["one"]["state"]) == (
            str(flush),
            "s",
            "streaming",
        )
        assert rows["two"]["flush_lsn"] == "0/0"
        assert service.feedback() == Feedback(900, 0, 800, 0)
        held = {slot.name: slot.flush_lsn for slot in service.slots()}
        assert held.pop("s") <= flush
        assert list(held.values()) == [node.commit_lsn]  # Without a slot: held while it is connected.
        assert node.moved > 0
    await asyncio.sleep(0.05)
    assert [slot.name for slot in service.slots()] == ["s"]
    assert service.feedback() == Feedback(900, 0, 800, 0)  # A slot's stays.


async def connect_and_show(port: int) -> list[bytes]:
    async with connected(port) as connection:
        ((text,),) = await connection.query("SHOW walproxy.status")
        return [text or b""]


async def test_a_slot_is_durable_and_moves_only_forward(
    node: MemoryNode, service: Service, port: int, tmp_path: Path
) -> None:
    async with connected(port) as connection:
        await connection.query("CREATE_REPLICATION_SLOT s PHYSICAL (RESERVE_WAL)")
        assert [slot.flush_lsn for slot in service.slots()] == [START]
        await node.commit(node.wal.end_lsn)
        await connection.start(f"START_REPLICATION SLOT s PHYSICAL {START}")
        for lsn in (node.wal.end_lsn, START):
            connection.send(StatusUpdate(lsn, lsn, lsn, 0, reply_requested=True).encode())
        await received(connection, node.wal.end_lsn)
        await connection.receive()
        await connection.receive()

    saved = Slots(tmp_path).get("s")
    assert saved.restart_lsn == node.wal.end_lsn
    assert service.slots()[0].flush_lsn == node.wal.end_lsn


async def test_a_drop_waits_for_a_slot_in_use_if_it_is_told_to(port: int) -> None:
    async with connected(port) as other:
        async with connected(port) as connection:
            await connection.query("CREATE_REPLICATION_SLOT s PHYSICAL")
            await connection.start(f"START_REPLICATION SLOT s PHYSICAL {START}")
            with pytest.raises(SqlError, match="is active for PID"):
                await other.query("DROP_REPLICATION_SLOT s")
            dropping = asyncio.create_task(other.query("DROP_REPLICATION_SLOT s WAIT"))
            await asyncio.sleep(0.1)
            assert not dropping.done()
        await asyncio.wait_for(dropping, 2)
        with pytest.raises(SqlError, match="does not exist"):
            await other.query("DROP_REPLICATION_SLOT s")


async def test_a_silent_consumer_is_asked_and_then_dropped(
    node: MemoryNode, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walsender, "SILENCE_MAX_S", 0.6)
    async with connected(port) as talking, connected(port) as silent:
        for connection in (talking, silent):
            await connection.start(f"START_REPLICATION PHYSICAL {node.commit_lsn}")
        for _ in range(3):
            question = parse_server_message(await talking.receive() or b"")
            assert isinstance(question, Keepalive)
            assert question.reply_requested
            talking.send(StatusUpdate(INVALID_LSN, INVALID_LSN, INVALID_LSN, 0).encode())

        assert isinstance(parse_server_message(await silent.receive() or b""), Keepalive)
        with pytest.raises((SqlError, ConnectFailed), match="replication timeout"):
            await silent.receive()


async def test_a_timeline_ends_under_a_consumer_when_the_next_one_is_committed(
    node: MemoryNode, port: int
) -> None:
    switch = node.wal.ends[710]
    async with connected(port) as connection:
        await connection.start(f"START_REPLICATION PHYSICAL {START} TIMELINE 1")
        await received(connection, node.commit_lsn)
        node.term_history = TermHistory.of([(1, 1, START), (2, 2, switch)])
        node.history_files = {2: f"1\t{switch}\tno recovery target specified\n".encode()}
        await node.commit(switch)  # As long as nothing of the new one is committed, it may yet go away.
        waiting = asyncio.create_task(received(connection, switch))
        await waiting
        assert connection.receive_ready() is None

        await node.commit(node.wal.ends[720])
        assert await asyncio.wait_for(connection.receive(), 2) is None
        assert await connection.finish_copy() == [[b"2", str(switch).encode()]]
        assert await connection.start(f"START_REPLICATION PHYSICAL {switch} TIMELINE 1") == [
            [b"2", str(switch).encode()]
        ]
        with pytest.raises(SqlError, match="not in this server's history") as caught:
            await connection.start(f"START_REPLICATION PHYSICAL {node.wal.ends[711]} TIMELINE 1")
        assert caught.value.detail == f"This server's history forked from timeline 1 at {switch}."
        ((_, tli, end, _),) = await connection.query("IDENTIFY_SYSTEM")
        assert (tli, end) == (b"2", str(node.wal.ends[720]).encode())
        assert await connection.query("TIMELINE_HISTORY 2") == [[b"00000002.history", node.history_files[2]]]
        await connection.start(f"START_REPLICATION PHYSICAL {START} TIMELINE 2")
        await received(connection, node.commit_lsn)


async def test_wal_that_is_removed_while_it_is_sent(node: MemoryNode, port: int) -> None:
    async with connected(port) as connection:
        await connection.start(f"START_REPLICATION PHYSICAL {START}")
        await received(connection, node.commit_lsn)
        node.start_lsn = Lsn(START + SEGMENT)
        await node.commit(node.wal.ends[702])

        with pytest.raises(
            SqlError, match="requested WAL segment 000000010000000000000003 has already"
        ) as caught:
            await received(connection, node.wal.ends[702])
        assert caught.value.sqlstate == "58P01"
        assert await connection.query("SHOW data_directory_mode") == [[b"0700"]]


async def test_a_node_without_wal_says_so(node: MemoryNode, port: int) -> None:
    node.cluster = None
    async with connected(port) as connection:
        for command in ("IDENTIFY_SYSTEM", "START_REPLICATION 0/1", "SHOW wal_segment_size"):
            with pytest.raises(SqlError, match="no committed WAL yet") as caught:
                await connection.query(command)
            assert caught.value.sqlstate == "57P03"
        assert json.loads((await connect_and_show(port))[0])["name"] == "memory"


@pytest.mark.parametrize("garbage", [b"r", b"x" * 34, b"w" + bytes(24)])
async def test_garbage_in_the_stream_ends_that_connection_only(
    node: MemoryNode, port: int, garbage: bytes
) -> None:
    async with connected(port) as connection, connected(port) as other:
        await other.start(f"START_REPLICATION PHYSICAL {START}")
        await connection.start(f"START_REPLICATION PHYSICAL {node.commit_lsn}")
        connection.send(garbage)
        with pytest.raises((SqlError, ConnectFailed)):
            await connection.receive()

        assert await received(other, node.commit_lsn) == node.wal.between(START, node.commit_lsn)


async def test_peers_get_a_copy_of_their_own(port: int) -> None:
    async with connected(port) as connection:
        await connection.start("START_PEER")
        connection.send(b"abc")
        assert await connection.receive() == b"cba"


def test_history_files_are_read_as_postgres_reads_them() -> None:
    content = b"# comment\n\n1\t0/3000000\tno recovery target\n\n2\t16/B374D848\tbefore 2000-01-01\nx\ty\n"

    assert parse_history(content) == [(1, Lsn(0x3000000)), (2, Lsn(0x16_B374_D848))]
