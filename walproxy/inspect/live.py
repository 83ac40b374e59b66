"""Reads the WAL of a live server, as a standby would, without a slot."""

import time
from typing import Final

from walcore._native import WalInspector
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.reading import Reading, Render
from walproxy.inspect.segment import PAGE_SIZE
from walproxy.inspect.wanted import Wanted
from walproxy.wire import replication
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import Lsn, parse_lsn, segment_start

_UNITS: Final = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}


async def read_server(conninfo: str, wanted: Wanted, render: Render, *, timeline: int | None) -> Reading:
    """Read from the start asked for, else from the start of the server's current segment, to its present end.

    Raises:
        TargetUnusable: no connection, no right to replicate, or the WAL asked for is not there.
        WalDamaged: what the server sent is not WAL.
    """
    try:
        connection = await CopyBoth.connect(conninfo, replication=True, application_name="walproxy inspect")
    except ConnectFailed as error:
        raise TargetUnusable("cannot connect", reason=error) from error
    try:
        return await _read(connection, wanted, render, timeline)
    except (SqlError, ConnectFailed) as error:
        raise TargetUnusable("the server gives no wal", reason=error) from error
    finally:
        connection.close()


async def _read(connection: CopyBoth, wanted: Wanted, render: Render, timeline: int | None) -> Reading:
    [identity] = await connection.query("IDENTIFY_SYSTEM")
    [setting] = await connection.query("SHOW wal_segment_size")
    system_id, tli, present, size, *_ = ((value or b"").decode() for value in [*identity[:3], *setting])
    segment_size = size_of_setting(size)
    present_lsn = parse_lsn(present)
    end_lsn = present_lsn if wanted.end_lsn is None else min(present_lsn, wanted.end_lsn)
    start_lsn = segment_start(present_lsn, segment_size) if wanted.start_lsn is None else wanted.start_lsn
    if start_lsn > present_lsn:
        raise TargetUnusable(
            "the server has not come to the start", start=Lsn(start_lsn), present=present_lsn
        )
    first = Lsn(start_lsn - start_lsn % PAGE_SIZE)
    inspector = wanted.inspector(first, segment_size=segment_size, system_id=int(system_id), shown=0)
    if first < end_lsn:
        await connection.start(f"START_REPLICATION PHYSICAL {first} TIMELINE {timeline or int(tli)}")
        await _stream(connection, inspector, render, end_lsn)
    render(inspector, b"", True)
    if inspector.stopped is not None:
        raise WalDamaged(f"damaged wal: {inspector.stopped}", good_until=Lsn(inspector.record_end_lsn))
    reading = Reading()
    reading.add(inspector)
    return reading


async def _stream(connection: CopyBoth, inspector: WalInspector, render: Render, end_lsn: int) -> None:
    while inspector.received_lsn < end_lsn and not inspector.done and inspector.stopped is None:
        data = await connection.receive()
        if data is None:
            return
        match replication.parse_server_message(data):
            case replication.XLogData(start_lsn=start_lsn, wal=wal):
                if start_lsn != inspector.received_lsn:
                    raise WalDamaged("a gap in the stream", at=Lsn(inspector.received_lsn), got=start_lsn)
                render(inspector, wal, False)
            case replication.Keepalive(reply_requested=True):
                # Nothing is confirmed: a reader must never stand for a commit's second copy.
                zero = Lsn(0)
                now_us = replication.postgres_time_us(time.time())
                connection.send(replication.StatusUpdate(zero, zero, zero, now_us).encode())
            case _:
                pass


def size_of_setting(setting: str) -> int:
    """A size as SHOW prints it: ``16MB``."""
    number = setting.rstrip("kMGB")
    return int(number) * _UNITS[setting[len(number) :]]
