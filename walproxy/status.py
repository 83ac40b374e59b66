"""`walproxy status`: the whole group at a glance, and the primary's own view of it."""

import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from walproxy import check
from walproxy.config import Settings, load_settings
from walproxy.errors import ConfigInvalid
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.libpq import CopyBoth
from walproxy.wire.lsn import parse_lsn

_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One node: its status, or why there is none."""

    name: str
    status: dict[str, Any] | None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """What was seen, and what is wrong with it."""

    nodes: list[Seen]
    primary: list[check.Finding]
    complaints: list[str] = field(default_factory=list)

    @property
    def is_red(self) -> bool:
        return bool(self.complaints) or check.is_red(self.primary)


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


async def overview(nodes: dict[str, str], settings: Settings | None) -> Overview:
    """Ask all nodes, and the primary if the settings say where it is."""
    asking = [ask_node(name, conninfo) for name, conninfo in nodes.items()]
    seen = list(await asyncio.gather(*asking))
    primary: list[check.Finding] = []
    if settings is not None:
        primary = await check.check_primary(
            settings.primary_conninfo,
            application_name=settings.application_name,
            slot_name=settings.slot_name,
        )
    return Overview(seen, primary, complaints(seen))


def complaints(seen: list[Seen]) -> list[str]:
    """What is wrong with the group as a whole, as far as the nodes say."""
    alive = [node.status for node in seen if node.status is not None]
    found = [f"{node.name} does not answer: {node.error}" for node in seen if node.status is None]
    members = {str(name) for status in alive for name in status["members"]}
    if members and len(alive) * 2 <= len(members) and len(seen) >= len(members):
        found.append(f"no quorum: {len(alive)} of {len(members)} nodes answer; commits wait")
    if alive and not any(status["role"] == "proposer" for status in alive) and len(seen) >= len(members):
        found.append("no node proposes: commits wait until one is elected and reaches the primary")
    if len({status["system_id"] for status in alive if status["system_id"]}) > 1:
        found.append("the nodes hold WAL of different clusters")
    for status in alive:
        upstream = status["upstream"]
        if status["role"] == "proposer" and upstream["state"] != "streaming":
            found.append(f"{status['name']} has no stream from the primary: {upstream['error']}")
    return found


# --- showing ----------------------------------------------------------------------------------------------


def as_json(view: Overview) -> dict[str, Any]:
    return {
        "is_red": view.is_red,
        "complaints": view.complaints,
        "nodes": [
            {"name": node.name, "error": node.error or None, "status": node.status} for node in view.nodes
        ],
        "primary": check.as_json(view.primary) if view.primary else None,
    }


def as_tables(view: Overview) -> RenderableType:
    parts: list[RenderableType] = [_nodes_table(view.nodes)]
    alive = [node.status for node in view.nodes if node.status is not None]
    downstreams = [(status["name"], row) for status in alive for row in status["downstreams"]]
    if downstreams:
        parts.append(_downstreams_table(downstreams))
    slots = [(status["name"], row) for status in alive for row in status["slots"]]
    if slots:
        parts.append(_slots_table(slots))
    newest = max(alive, key=lambda status: parse_lsn(status["commit_lsn"]), default=None)
    if newest is not None:
        parts.append(_wal_line(newest))
    if view.primary:
        parts.append(check.as_table(view.primary))
    parts += [Text(f"red: {complaint}", style="red") for complaint in view.complaints]
    return Group(*parts)


def _nodes_table(nodes: list[Seen]) -> Table:
    table = Table(title="Nodes", title_justify="left")
    for column in ("node", "role", "term", "tli", "flush", "commit", "behind", "WAL", "upstream"):
        table.add_column(column, justify="right" if column in {"term", "tli", "behind", "WAL"} else "left")
    ends = [parse_lsn(node.status["flush_lsn"]) for node in nodes if node.status]
    for node in nodes:
        status = node.status
        if status is None:
            table.add_row(node.name, "[red]no answer[/red]", *[""] * 6, node.error)
            continue
        upstream = status["upstream"]
        table.add_row(
            node.name,
            status["role"],
            str(status["term"]),
            str(status["tli"]),
            status["flush_lsn"],
            status["commit_lsn"],
            _size(max(ends) - parse_lsn(status["flush_lsn"])),
            _size(status["wal_size_bytes"]),
            f"{upstream['state']} {upstream['error']}".strip(),
        )
    return table


def _downstreams_table(rows: list[tuple[str, dict[str, Any]]]) -> Table:
    table = Table(title="Consumers", title_justify="left")
    for column in ("node", "application", "peer", "slot", "state", "sent", "flush", "apply", "behind"):
        table.add_column(column)
    for node, row in rows:
        lag = row["lag_bytes"]
        table.add_row(
            node,
            row["application_name"],
            row["peer"],
            row["slot"] or "",
            row["state"],
            row["sent_lsn"],
            row["flush_lsn"],
            row["apply_lsn"],
            "" if lag is None else _size(lag),
        )
    return table


def _slots_table(rows: list[tuple[str, dict[str, Any]]]) -> Table:
    table = Table("node", "slot", "restart", "in use", "holds", title="Slots", title_justify="left")
    for node, row in rows:
        in_use = f"session {row['active_pid']}" if row["active_pid"] else "no"
        table.add_row(node, row["name"], row["restart_lsn"] or "", in_use, _size(row["held_bytes"]))
    return table


def _wal_line(status: dict[str, Any]) -> Text:
    state = status["full_page_writes"]
    shown = "not known yet"
    if state is not None:
        shown = f"{'on' if state['is_on'] else 'off'} since {state['since_lsn']}"
    share = status["recent_wal"]["fpi_share"]
    images = "" if share is None else f"; full-page images are {share:.1%} of recent WAL"
    return Text(f"full_page_writes {shown}{images}")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def command(
    config: Annotated[
        Path | None, typer.Option("--config", help="TOML file of any node of the group.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option(help="libpq connection string of a node; repeat.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the nodes, their consumers, and the primary's own view. Exit code 2 if commits are not safe."""
    if node:
        settings = None
        nodes = dict(zip(node, node, strict=True))
    elif config is not None:
        settings = load_settings(config)
        nodes = dict(settings.members)
    else:
        raise ConfigInvalid("say which nodes: --config FILE, or --node CONNINFO for each")
    view = asyncio.run(overview(nodes, settings))
    if json_output:
        typer.echo(json.dumps(as_json(view), indent=2))
    else:
        Console().print(as_tables(view))
    raise typer.Exit(check.RED_EXIT_CODE if view.is_red else 0)
