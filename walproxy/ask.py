"""Asking nodes for their status, also those that only another one knows of."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from walproxy.config import without_password
from walproxy.group import Seen, addresses_of, members_of, newest
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.libpq import CopyBoth

_TIMEOUT_S: Final = 3.0


async def ask_node(name: str, conninfo: str) -> Seen:
    """`SHOW walproxy.status` of one node."""
    try:
        connection = await CopyBoth.connect(
            conninfo, replication=False, application_name="walproxy status", timeout_s=_TIMEOUT_S
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                ((text,),) = await connection.query("SHOW walproxy.status")
        finally:
            connection.close()
    except (ConnectFailed, SqlError, TimeoutError) as error:
        return Seen(name, None, str(error) or "no answer in time")
    status: dict[str, Any] = json.loads(text or b"{}")
    return Seen(status.get("name", name), status)


async def ask_nodes(nodes: Mapping[str, str]) -> list[Seen]:
    """All at once, in their order."""
    return list(await asyncio.gather(*(ask_node(name, conninfo) for name, conninfo in nodes.items())))


async def ask_group(seeds: Mapping[str, str]) -> tuple[list[Seen], dict[str, str]]:
    """Ask these nodes, and the members that came, or moved, since; as long as answers tell of more.

    Args:
        seeds: conninfos of some nodes, by the names that the caller knows them by.

    Returns:
        What was seen of the members, and of others that answer; the address of each that was asked.
    """
    found: dict[str, Seen] = {}
    addresses: dict[str, str] = {}
    asked: set[tuple[str, str]] = set()
    to_ask = dict(seeds)
    while to_ask:
        asked |= {(name, without_password(conninfo)) for name, conninfo in to_ask.items()}
        for node, conninfo in zip(await ask_nodes(to_ask), to_ask.values(), strict=True):
            if node.status or node.name not in found:
                found[node.name], addresses[node.name] = node, conninfo
        latest = newest(list(found.values()))
        to_ask = {
            name: conninfo
            for name, conninfo in addresses_of(latest).items()
            if (name not in found or found[name].status is None)
            and (name, without_password(conninfo)) not in asked
        }
    members = members_of(newest(list(found.values())))
    return [node for node in found.values() if node.status or node.name in members or not members], addresses
