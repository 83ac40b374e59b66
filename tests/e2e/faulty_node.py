"""A node that passes on a primary's WAL, and does harm to it when told."""

import asyncio
import contextlib
import enum
import threading
from collections.abc import Iterator, Mapping
from typing import Final

from walproxy.wire import datum
from walproxy.wire.aio import Address, Connection, CopyStream, Handler, parse_address, serve
from walproxy.wire.errors import UNDEFINED_OBJECT, SqlError
from walproxy.wire.function import Column, Functions, Row
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.replication import Command, IdentifySystem, ReadSlot, StartReplication

_IDENTITY: Final = tuple(Column(name, datum.TEXT) for name in ("systemid", "timeline", "xlogpos", "dbname"))
_SLOT: Final = tuple(Column(name, datum.TEXT) for name in ("slot_type", "restart_lsn", "restart_tli"))


class Fault(enum.Enum):
    NONE = "passes on everything"
    FLIP = "turns one bit of every piece of WAL"
    GAP = "leaves out a piece of WAL"
    SILENT = "says nothing any more"
    BEHIND = "sends keepalives and no WAL"
    HANG_UP = "drops the connection"


class FaultyNode(Handler):
    """Runs in a thread of its own; `fault` may be set at any time."""

    def __init__(self, primary_conninfo: str) -> None:
        self.functions: Functions = {}
        self.fault = Fault.NONE
        self.address = Address()
        self._primary_conninfo = primary_conninfo

    @property
    def conninfo(self) -> str:
        return f"host={self.address.host} port={self.address.port} user=postgres"

    def parameters(self) -> Mapping[str, str]:
        return {"server_version": "18.0"}

    async def show(self, name: str) -> str:
        raise SqlError(UNDEFINED_OBJECT, name)

    async def closed(self, connection: Connection) -> None:
        pass

    async def replicate(self, connection: Connection, command: Command) -> None:
        upstream = await CopyBoth.connect(self._primary_conninfo, replication=True, application_name="faulty")
        try:
            match command:
                case IdentifySystem():
                    rows: list[Row] = [
                        [None if v is None else v.decode() for v in row]
                        for row in await upstream.query("IDENTIFY_SYSTEM")
                    ]
                    await connection.put_result(_IDENTITY, rows, "IDENTIFY_SYSTEM")
                case ReadSlot():
                    await connection.put_result(_SLOT, [("physical", "0/1", "1")], "READ_REPLICATION_SLOT")
                case StartReplication(start_lsn, _, tli):
                    await upstream.start(f"START_REPLICATION PHYSICAL {start_lsn} TIMELINE {tli}")
                    stream = await connection.start_copy()
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._down(upstream, stream))
                        group.create_task(_up(stream, upstream))
                case _:
                    raise AssertionError(command)
        finally:
            upstream.close()

    async def _down(self, upstream: CopyBoth, stream: CopyStream) -> None:
        while (data := await upstream.receive()) is not None:
            is_wal = data[:1] == b"w"
            match self.fault:
                case Fault.SILENT:
                    continue
                case Fault.HANG_UP:
                    stream.close()
                    return
                case Fault.FLIP if is_wal:
                    at = len(data) // 2
                    data = data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]
                case Fault.GAP if is_wal:
                    self.fault = Fault.NONE
                    continue
                case Fault.BEHIND if is_wal:
                    continue
                case _:
                    pass
            stream.send(data)
            await stream.flush()


async def _up(stream: CopyStream, upstream: CopyBoth) -> None:
    while (data := await stream.receive()) is not None:
        upstream.send(data)


@contextlib.contextmanager
def faulty_node(primary_conninfo: str) -> Iterator[FaultyNode]:
    """A node of that kind, listening."""
    node = FaultyNode(primary_conninfo)
    started = threading.Event()
    loop = asyncio.new_event_loop()

    def listening(address: Address) -> None:
        node.address = address
        started.set()

    async def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await serve(parse_address("127.0.0.1:0"), node, started=listening)

    task = loop.create_task(run())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,))
    thread.start()
    assert started.wait(10)
    try:
        yield node
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
        loop.close()
