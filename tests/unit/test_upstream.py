"""PrimaryConnection beside a primary of our own making, over a loopback socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from walproxy import upstream as module
from walproxy.errors import PrimaryUnreachable
from walproxy.ports import PrimaryWal
from walproxy.upstream import PrimaryConnection
from walproxy.wire import datum
from walproxy.wire.aio import Address, Connection, Handler, serve
from walproxy.wire.function import Column, Functions
from walproxy.wire.lsn import Lsn
from walproxy.wire.replication import Command, IdentifySystem, ReadSlot, StartReplication, XLogData

START = Lsn(0x5000100)


class Primary(Handler):
    """Its timeline ends with the first eight bytes that it sends."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.functions: Functions = {}
        self._hangs = hangs
        self.ended = asyncio.Event()  # It has said so.
        self.go_on = asyncio.Event()

    def parameters(self) -> Mapping[str, str]:
        return {"server_version": "18.0"}

    async def show(self, name: str) -> str:
        assert name == "wal_segment_size"
        return "16MB"

    async def replicate(self, connection: Connection, command: Command) -> None:
        match command:
            case IdentifySystem():
                if self._hangs:
                    await self.go_on.wait()
                columns = tuple(
                    Column(name, datum.TEXT) for name in ("systemid", "timeline", "xlogpos", "dbname")
                )
                await connection.put_result(columns, [("7", "1", str(START), None)], "IDENTIFY_SYSTEM")
            case ReadSlot():
                columns = tuple(
                    Column(name, datum.TEXT) for name in ("slot_type", "restart_lsn", "restart_tli")
                )
                await connection.put_result(
                    columns, [("physical", "0/4000000", "1")], "READ_REPLICATION_SLOT"
                )
            case StartReplication(start_lsn=start_lsn):
                stream = await connection.start_copy()
                stream.send(XLogData(start_lsn, Lsn(start_lsn + 8), 0, b"12345678").encode())
                await stream.send_done()
                while await stream.receive() is not None:
                    pass
                self.ended.set()
                await self.go_on.wait()
                columns = tuple(Column(name, datum.TEXT) for name in ("next_tli", "next_tli_startpos"))
                await connection.put_result(columns, [("2", str(Lsn(start_lsn + 8)))], "START_STREAMING")
                await connection.put_complete("START_REPLICATION")
            case _:
                raise AssertionError(command)

    async def closed(self, connection: Connection) -> None:
        pass


@asynccontextmanager
async def connection_to(primary: Primary) -> AsyncIterator[PrimaryConnection]:
    found: asyncio.Future[Address] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve(Address("127.0.0.1", 0), primary, started=found.set_result))
    address = await found
    conninfo = f"host=127.0.0.1 port={address.port} user=x"
    connection = PrimaryConnection(conninfo, slot_name="s", application_name="a")
    try:
        yield connection
    finally:
        await connection.close()
        serving.cancel()
        await asyncio.wait({serving})


async def test_a_commit_while_a_timeline_ends_is_no_error() -> None:
    primary = Primary()
    async with connection_to(primary) as connection:
        await connection.identify()
        await connection.start(START, 1)
        taken: list[PrimaryWal] = []
        pump = asyncio.create_task(connection.pump(taken.append))
        await primary.ended.wait()

        connection.report(Lsn(START + 8), Lsn(START + 8), Lsn(START + 8))
        primary.go_on.set()

        assert (await pump).next_tli == 2
        assert b"".join(received.wal for received in taken) == b"12345678"


async def test_a_primary_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE_MAX_S", 0.2)
    async with connection_to(Primary(hangs=True)) as connection:
        with pytest.raises(PrimaryUnreachable, match="does not answer"):
            await connection.identify()
