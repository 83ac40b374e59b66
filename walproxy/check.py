"""`walproxy check`: does the primary really wait for us? Its own word for it."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from walproxy.config import checked_conninfo
from walproxy.errors import ConfigInvalid
from walproxy.options import JsonOption, show
from walproxy.wire.errors import ConnectFailed, SqlError
from walproxy.wire.libpq import CopyBoth

RED_EXIT_CODE: Final = 2
_TIMEOUT_S: Final = 5.0
_SETTINGS: Final = (
    "server_version", "synchronous_standby_names", "synchronous_commit", "fsync", "full_page_writes",
    "wal_level",
)  # fmt: skip
_NAMES: Final = re.compile(r"(?:(?P<method>(?i:FIRST|ANY))\s+)?(?P<count>\d+)\s*\((?P<names>[^)]*)\)")
_OVERRIDES: Final = """
    select coalesce(r.rolname, 'all roles') || ' in ' || coalesce(d.datname, 'all databases') || ': ' || c
    from pg_catalog.pg_db_role_setting s cross join unnest(s.setconfig) c
    left join pg_catalog.pg_roles r on r.oid = s.setrole
    left join pg_catalog.pg_database d on d.oid = s.setdatabase
    where c ~ '^synchronous_commit=(off|local)'
"""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. ``advice`` says what to do about it; empty if nothing."""

    level: Level
    what: str
    value: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Primary:
    """What the primary says."""

    settings: dict[str, str]
    is_in_recovery: bool
    standbys: list[dict[str, str | None]]  # Rows of pg_stat_replication with our application_name.
    slot: dict[str, str | None] | None
    overrides: list[str]


@dataclass(frozen=True, slots=True)
class SyncNames:
    """``synchronous_standby_names``, taken apart."""

    is_any: bool
    count: int
    names: tuple[str, ...]


def parse_sync_names(text: str) -> SyncNames:
    """Read the setting. Source: ``src/backend/replication/syncrep_gram.y``."""
    match = _NAMES.fullmatch(text.strip())
    names, is_any, count = text, False, 1
    if match is not None:
        names, count = match["names"], int(match["count"])
        is_any = (match["method"] or "").upper() == "ANY"
    split = (name.strip().strip('"').lower() for name in names.split(","))
    return SyncNames(is_any, count, tuple(name for name in split if name))


async def look(conninfo: str, *, application_name: str, slot_name: str) -> Primary:
    """Ask the primary. Raises ConnectFailed, SqlError, TimeoutError."""
    connection = await CopyBoth.connect(
        conninfo, replication=False, application_name="walproxy check", timeout_s=_TIMEOUT_S
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return await _look(connection, application_name=application_name, slot_name=slot_name)
    finally:
        connection.close()


async def _look(connection: CopyBoth, *, application_name: str, slot_name: str) -> Primary:
    async def ask(query: str) -> list[list[str | None]]:
        rows = await connection.query(query)
        return [[None if v is None else v.decode() for v in row] for row in rows]

    settings = {name: str((await ask(f"SHOW {name}"))[0][0]) for name in _SETTINGS}
    ((in_recovery,),) = await ask("SELECT pg_catalog.pg_is_in_recovery()")
    columns = ("pid", "state", "sync_state", "flush_lsn", "client_addr")
    standbys = await ask(
        f"SELECT {', '.join(columns)} FROM pg_catalog.pg_stat_replication "  # noqa: S608 - quoted below
        f"WHERE lower(application_name) = lower({_literal(application_name)}) ORDER BY pid"
    )
    slot_columns = ("active", "restart_lsn", "wal_status")
    slots = await ask(
        f"SELECT {', '.join(slot_columns)} FROM pg_catalog.pg_replication_slots "  # noqa: S608 - quoted below
        f"WHERE slot_name = {_literal(slot_name)}"
    )
    overrides = await ask(_OVERRIDES)
    return Primary(
        settings,
        in_recovery == "t",
        [dict(zip(columns, row, strict=True)) for row in standbys],
        dict(zip(slot_columns, slots[0], strict=True)) if slots else None,
        [str(row[0]) for row in overrides],
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def judge(primary: Primary, *, application_name: str, slot_name: str) -> list[Finding]:
    """Everything that decides whether a commit waits for the quorum, each with its verdict."""
    return [
        *_judge_settings(primary),
        _judge_names(primary.settings["synchronous_standby_names"], application_name),
        *_judge_standbys(primary, application_name),
        _judge_slot(primary, slot_name),
    ]


def _judge_settings(primary: Primary) -> Iterator[Finding]:
    settings = primary.settings
    yield Finding(Level.OK, "server_version", settings["server_version"])
    if primary.is_in_recovery:
        yield Finding(Level.RED, "recovery", "on", "this is a standby: name the primary")
    waits = settings["synchronous_commit"] in {"on", "remote_write", "remote_apply"}
    advice = "commits return before the quorum has them: set it to on"
    yield Finding(
        Level.OK if waits else Level.RED,
        "synchronous_commit",
        settings["synchronous_commit"],
        "" if waits else advice,
    )
    for override in primary.overrides:
        yield Finding(Level.WARNING, "synchronous_commit, overridden", override, "these commits do not wait")
    is_on = settings["fsync"] == "on"
    advice = "" if is_on else "a crash of the primary's host corrupts it: set it to on"
    yield Finding(Level.OK if is_on else Level.RED, "fsync", settings["fsync"], advice)
    enough = settings["wal_level"] in {"replica", "logical"}
    advice = "" if enough else "set it to replica, and restart"
    yield Finding(Level.OK if enough else Level.RED, "wal_level", settings["wal_level"], advice)
    yield Finding(Level.OK, "full_page_writes", settings["full_page_writes"])


def _judge_names(text: str, application_name: str) -> Finding:
    parsed = parse_sync_names(text)
    ours = application_name.lower()
    what = "synchronous_standby_names"
    advice = f"set it to 'ANY 1 ({application_name})'"
    if ours not in parsed.names and "*" not in parsed.names:
        return Finding(Level.RED, what, text or "(empty)", f"the primary does not wait for us: {advice}")
    is_enough = len(parsed.names) <= parsed.count if parsed.is_any else ours in parsed.names[: parsed.count]
    if not is_enough or "*" in parsed.names:
        return Finding(Level.RED, what, text, f"others may be waited for in our place: {advice}")
    return Finding(Level.OK, what, text)


def _judge_standbys(primary: Primary, application_name: str) -> Iterator[Finding]:
    what = "pg_stat_replication"
    if not primary.standbys:
        advice = "no node is connected to it: look at `walproxy status` and at the nodes' logs"
        yield Finding(Level.RED, what, f"no {application_name}", advice)
    for row in primary.standbys:
        state, sync_state = row["state"], row["sync_state"]
        value = f"pid={row['pid']} state={state} sync_state={sync_state} flush_lsn={row['flush_lsn']}"
        if state is None:
            yield Finding(
                Level.WARNING, what, value, "grant pg_monitor to the user of this check to see more"
            )
        elif state != "streaming":
            yield Finding(Level.WARNING, what, value, "it catches up; commits wait until it has")
        elif sync_state not in {"sync", "quorum"}:
            yield Finding(Level.RED, what, value, "the primary does not wait for this connection")
        else:
            yield Finding(Level.OK, what, value)


def _judge_slot(primary: Primary, slot_name: str) -> Finding:
    what = f"slot {slot_name}"
    slot = primary.slot
    if slot is None:
        return Finding(
            Level.RED, what, "missing", "a node makes it when it connects: look at the nodes' logs"
        )
    value = f"active={slot['active']} restart_lsn={slot['restart_lsn']} wal_status={slot['wal_status']}"
    if slot["wal_status"] not in {"reserved", "extended"}:
        advice = "WAL that the quorum lacks is being removed: raise max_slot_wal_keep_size"
        return Finding(Level.RED, what, value, advice)
    if slot["active"] != "t":
        return Finding(Level.RED, what, value, "no node streams from it: look at the nodes' logs")
    return Finding(Level.OK, what, value)


async def check_primary(conninfo: str, *, application_name: str, slot_name: str) -> list[Finding]:
    """All findings; one red one if the primary cannot be asked."""
    try:
        primary = await look(conninfo, application_name=application_name, slot_name=slot_name)
    except (ConnectFailed, SqlError, TimeoutError) as error:
        why = str(error) or f"no answer in {_TIMEOUT_S:g} s"
        return [Finding(Level.RED, "connection", why, "start the primary, or mend primary_conninfo")]
    return judge(primary, application_name=application_name, slot_name=slot_name)


def is_red(findings: list[Finding]) -> bool:
    return any(finding.level is Level.RED for finding in findings)


def as_json(findings: list[Finding]) -> dict[str, Any]:
    return {"is_red": is_red(findings), "findings": [asdict(finding) for finding in findings]}


def as_table(findings: list[Finding]) -> Table:
    table = Table("", "primary", "value", "what to do", title="The primary's own view", title_justify="left")
    colours = {Level.OK: "green", Level.WARNING: "yellow", Level.RED: "red"}
    for found in findings:
        colour = colours[found.level]
        table.add_row(Text(found.level, style=colour), found.what, found.value, found.advice)
    return table


def command(
    primary: Annotated[str, typer.Option(help="libpq connection string of the primary.")],
    application_name: Annotated[str, typer.Option(help="Of the group of nodes.")] = "walproxy",
    slot_name: Annotated[str, typer.Option(help="Of the group of nodes, on the primary.")] = "walproxy",
    json_output: JsonOption = False,
) -> None:
    """Ask the primary whether its commits wait for the quorum.

    Exit code 0: they do. 2: they do not, or the primary cannot be asked.
    """
    try:
        checked_conninfo(primary)
    except ValueError as error:
        raise ConfigInvalid(f"--primary: {error}") from error
    findings = asyncio.run(check_primary(primary, application_name=application_name, slot_name=slot_name))
    if json_output:
        typer.echo(json.dumps(as_json(findings), indent=2))
    else:
        show(as_table(findings))
    raise typer.Exit(RED_EXIT_CODE if is_red(findings) else 0)
