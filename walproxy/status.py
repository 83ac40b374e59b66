"""`walproxy status`: the whole group at a glance, and the primary's own view of it."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from walproxy import check
from walproxy.ask import ask_group, ask_nodes
from walproxy.config import Settings
from walproxy.group import NEARLY_FULL, Seen, Verdict, answers, is_full, judge, not_ready, primary_lag_bytes
from walproxy.options import ConfigOption, JsonOption, NodeOption, show, which_group
from walproxy.wire.lsn import parse_lsn

_NOT_ASKED: Final = "primary not asked: whether its commits wait for the group is not known; give --config"


@dataclass(frozen=True, slots=True)
class Overview:
    """What was seen, and what is wrong with it. ``primary`` is None if it was not asked."""

    nodes: list[Seen]
    primary: list[check.Finding] | None
    verdict: Verdict

    @property
    def is_red(self) -> bool:
        return bool(self.verdict.complaints) or check.is_red(self.primary or [])


async def overview(nodes: dict[str, str], settings: Settings | None) -> Overview:
    """Ask all nodes, and the primary if the settings say where it is."""
    if settings is None:  # With --node only these are asked.
        seen = await ask_nodes(nodes)
        return Overview(seen, None, judge(seen))
    asking = check.check_primary(
        settings.primary_conninfo,
        application_name=settings.application_name,
        slot_name=settings.slot_name,
    )
    (seen, _), primary = await asyncio.gather(ask_group(nodes), asking)
    return Overview(seen, primary, judge(seen))


# --- showing ----------------------------------------------------------------------------------------------


def as_json(view: Overview) -> dict[str, Any]:
    return {
        "is_red": view.is_red,
        "complaints": view.verdict.complaints,
        "warnings": view.verdict.warnings,
        "nodes": [
            {
                "name": node.name,
                "error": node.error or None,
                "primary_lag_bytes": primary_lag_bytes(node.status) if node.status else None,
                "not_ready": not_ready(node.status) or None if node.status else None,
                "status": node.status,
            }
            for node in view.nodes
        ],
        "is_primary_asked": view.primary is not None,
        "primary": None if view.primary is None else check.as_json(view.primary),
    }


def as_tables(view: Overview) -> RenderableType:
    parts: list[RenderableType] = [_nodes_table(view.nodes)]
    alive = answers(view.nodes)
    downstreams = [(status["name"], row) for status in alive for row in status["downstreams"]]
    if downstreams:
        parts.append(_downstreams_table(downstreams))
    slots = [(status["name"], row) for status in alive for row in status["slots"]]
    if slots:
        parts.append(_slots_table(slots))
    newest = max(alive, key=lambda status: parse_lsn(status["commit_lsn"]), default=None)
    if newest is not None:
        parts.append(_wal_line(newest))
    parts += [_ready_line(status) for status in alive if status["role"] == "proposer"]
    if view.primary is None:
        parts.append(Text(_NOT_ASKED, style="yellow"))
    else:
        parts.append(check.as_table(view.primary))
    parts += [Text(f"warning: {warning}", style="yellow") for warning in view.verdict.warnings]
    parts += [Text(f"red: {complaint}", style="red") for complaint in view.verdict.complaints]
    return Group(*parts)


def _nodes_table(nodes: list[Seen]) -> Table:
    table = Table(title="Nodes", title_justify="left")
    for column in ("node", "role", "term", "tli", "flush", "commit"):
        table.add_column(column, justify="right" if column in {"term", "tli"} else "left")
    for column in ("behind", "primary ahead", "WAL", "refused"):
        table.add_column(column, justify="right")
    table.add_column("upstream")
    ends = [parse_lsn(node.status["flush_lsn"]) for node in nodes if node.status]
    for node in nodes:
        status = node.status
        if status is None:
            table.add_row(node.name, Text("no answer", style="red"), *[""] * 8, Text(node.error))
            continue
        upstream, lag = status["upstream"], primary_lag_bytes(status)
        table.add_row(
            node.name,
            status["role"],
            str(status["term"]),
            str(status["tli"]),
            status["flush_lsn"],
            status["commit_lsn"],
            _size(max(ends) - parse_lsn(status["flush_lsn"])),
            "" if lag is None else _size(lag),
            _wal_cell(status),
            str(sum(status["refused_messages"].values()) or ""),
            Text(f"{upstream['state']} {upstream['error']}".strip()),
        )
    return table


def _wal_cell(status: dict[str, Any]) -> Text:
    size, size_max = status["wal_size_bytes"], status["wal_size_bytes_max"]
    style = "red" if is_full(status) else "yellow" if size >= NEARLY_FULL * size_max else ""
    return Text(f"{_size(size)} of {_size(size_max)}", style=style)


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
    shown = "not known yet (until the primary's next checkpoint)"
    if state is not None:
        shown = f"{'on' if state['is_on'] else 'off'} since {state['since_lsn']}"
    share = status["recent_wal"]["fpi_share"]
    images = "" if share is None else f"; full-page images are {share:.1%} of recent WAL"
    return Text(f"full_page_writes {shown}{images}")


def _ready_line(status: dict[str, Any]) -> Text:
    why = not_ready(status)
    return Text(f"primary: not ready: {why}" if why else "primary: ready, all it had is on the quorum")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def command(config: ConfigOption = None, node: NodeOption = None, json_output: JsonOption = False) -> None:
    """Show the nodes, their consumers, and the primary's own view.

    Exit code 0: commits go on and wait for the group, perhaps with warnings.

    2: they are not safe, or cannot be shown to be, or a member is refused.

    With --node the primary is not asked, and the code speaks of these nodes alone.
    """
    view = asyncio.run(overview(*which_group(config, node)))
    if json_output:
        typer.echo(json.dumps(as_json(view), indent=2))
    else:
        show(as_tables(view))
    raise typer.Exit(check.RED_EXIT_CODE if view.is_red else 0)
