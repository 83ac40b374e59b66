"""The walproxy nodes, as we see them: who they are, how far they are, the slot that holds WAL for us."""

from dataclasses import dataclass
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pageserver.errors import StreamBroken
from walproxy.wire.errors import ConnectFailed, MalformedInput, SqlError
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import INVALID_LSN, Lsn, parse_lsn

APPLICATION_NAME: Final = "pageserver"
UNDEFINED_FILE: Final = "58P01"
_DUPLICATE_OBJECT = "42710"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a node says of itself.

    Args:
        end_lsn: it can send WAL up to here.
    """

    system_id: int
    tli: int
    end_lsn: Lsn


def shown(conninfo: str) -> str:
    """A connection string as it may be shown: without its password."""
    parts = conninfo_to_dict(conninfo)
    if "password" in parts:
        parts["password"] = "***"  # noqa: S105 - what is shown instead of it
    return make_conninfo("", **parts)


async def connect(conninfo: str) -> CopyBoth:
    """Open a replication connection. Raises StreamBroken."""
    try:
        return await CopyBoth.connect(conninfo, replication=True, application_name=APPLICATION_NAME)
    except (ConnectFailed, SqlError) as error:
        raise StreamBroken("cannot connect to a walproxy node", node=shown(conninfo), reason=error) from error


async def identify(connection: CopyBoth) -> Identity:
    """Ask a node who it is. Raises StreamBroken."""
    try:
        ((system_id, tli, end_lsn, *_),) = await connection.query("IDENTIFY_SYSTEM")
        return Identity(int(system_id or b""), int(tli or b""), parse_lsn((end_lsn or b"").decode()))
    except (ConnectFailed, SqlError) as error:
        raise StreamBroken("a walproxy node does not say who it is", reason=error) from error
    except (ValueError, MalformedInput) as error:
        raise StreamBroken("a walproxy node answers IDENTIFY_SYSTEM in no known form") from error


async def ensure_slot(connection: CopyBoth, slot_name: str) -> Lsn:
    """Have a physical slot that holds WAL for us, made if it is not there.

    Returns:
        From where on it holds WAL; INVALID_LSN if it does not say.

    Raises:
        StreamBroken: the node does not give one.
    """
    try:
        rows = await connection.query(f"READ_REPLICATION_SLOT {slot_name}")
        if not rows or rows[0][0] is None:
            try:
                await connection.query(f"CREATE_REPLICATION_SLOT {slot_name} PHYSICAL (RESERVE_WAL)")
            except SqlError as error:
                if error.sqlstate != _DUPLICATE_OBJECT:
                    raise
            rows = await connection.query(f"READ_REPLICATION_SLOT {slot_name}")
        text = rows[0][1] if rows else None
        return INVALID_LSN if text is None else parse_lsn(text.decode())
    except (ConnectFailed, SqlError, MalformedInput) as error:
        raise StreamBroken(
            "a walproxy node gives no replication slot", slot=slot_name, reason=error
        ) from error


async def drop_slot(connection: CopyBoth, slot_name: str) -> None:
    """Drop a slot, if it is there. Raises StreamBroken: it is in use, or the node does not answer."""
    try:
        rows = await connection.query(f"READ_REPLICATION_SLOT {slot_name}")
        if rows and rows[0][0] is not None:
            await connection.query(f"DROP_REPLICATION_SLOT {slot_name}")
    except (ConnectFailed, SqlError) as error:
        raise StreamBroken("a walproxy node keeps our slot", slot=slot_name, reason=error) from error
