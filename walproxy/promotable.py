"""`walproxy promote-check`: whether a standby holds all that may have been acknowledged."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from walproxy.ask import ask_group
from walproxy.group import Seen, answers, leading, newest, sets_of, silences
from walproxy.options import ConfigOption, JsonOption, NodeOption, tell, which_group
from walproxy.wire.lsn import INVALID_LSN, Lsn, parse_lsn

_LACKING_EXIT_CODE: Final = 2


@dataclass(frozen=True, slots=True)
class Promotable:
    """Whether a consumer holds all of the log. ``why`` says what is lacking; empty if nothing is."""

    name: str
    is_sealed: bool
    end_lsn: Lsn
    flush_lsn: Lsn = INVALID_LSN
    node: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, order=True)
class _Consumer:
    """A connection, or a slot that is left: what its node knows that it has, and what it says itself."""

    flush_lsn: Lsn
    told_lsn: Lsn
    node: str
    is_connected: bool


def judge_standby(name: str, seen: list[Seen]) -> Promotable:
    """Whether the consumer of that application_name, or with that slot, holds all that may be acknowledged.

    Args:
        name: as ``walproxy status`` shows it under application or slot, at any node.
        seen: all nodes that were asked.
    """
    alive, silent = answers(seen), "".join(f"; {words}" for words in silences(seen))
    leader = leading(seen)
    if leader is None:
        why = f"no node is the proposer: what is acknowledged is not known{silent}"
        return Promotable(name, False, INVALID_LSN, why=why)
    sealed_lsn = leader.get("sealed_lsn")
    is_sealed, end_lsn = sealed_lsn is not None, parse_lsn(sealed_lsn or leader["flush_lsn"])
    found = list(_consumers(name, alive))
    if not _is_latest(leader, seen):
        why = f"too few nodes answer to know that {leader['name']} is still the proposer{silent}"
    elif is_sealed and parse_lsn(leader["commit_lsn"]) < end_lsn:
        why = "the seal is not on a majority yet: ask again"
    elif not found:
        names = ", ".join(sorted({name for status in alive for name in _names(status)})) or "none"
        why = f"no consumer of that name, and no slot, on any node that answers; there are: {names}{silent}"
    else:
        return _judge_consumers(Promotable(name, is_sealed, end_lsn), found)
    return Promotable(name, is_sealed, end_lsn, why=why)


def _judge_consumers(asked: Promotable, found: list[_Consumer]) -> Promotable:
    """Several connections may be several standbys: then each must have all. Of slots the furthest counts."""
    connected = [consumer for consumer in found if consumer.is_connected]
    chosen = min(connected) if connected else max(found)
    end_lsn, told_lsn = asked.end_lsn, max(consumer.told_lsn for consumer in connected or [chosen])
    why = ""
    if chosen.flush_lsn < end_lsn:
        why = f"it lacks {end_lsn - chosen.flush_lsn} bytes, {chosen.flush_lsn} to {end_lsn}"
    elif told_lsn > end_lsn:
        why = f"it has WAL from elsewhere, up to {told_lsn}: promoted, it would leave the timeline beyond the end"
    if why and len(connected) > 1:
        why = (
            f"{len(connected)} connections have that name, of one: {why}; give each standby a name of its own"
        )
    return Promotable(asked.name, asked.is_sealed, end_lsn, chosen.flush_lsn, chosen.node, why)


def _is_latest(leader: dict[str, Any], seen: list[Seen]) -> bool:
    """A majority of each set knows of no later term: when they answered, nobody else had been elected."""
    not_later = {status["name"] for status in answers(seen) if status["term"] <= leader["term"]}
    return all(len(not_later & members) * 2 > len(members) for members in sets_of(newest(seen)))


def _consumers(name: str, alive: list[dict[str, Any]]) -> Iterator[_Consumer]:
    for status in alive:
        node = str(status["name"])
        for row in status["downstreams"]:
            if name in {row["application_name"], row["slot"]}:
                flush_lsn = parse_lsn(row["flush_lsn"])
                told_lsn = parse_lsn(row.get("told_flush_lsn", row["flush_lsn"]))
                yield _Consumer(flush_lsn, told_lsn, node, is_connected=True)
        for row in status["slots"]:
            if name == row["name"] and row["restart_lsn"]:
                flush_lsn = parse_lsn(row["restart_lsn"])
                yield _Consumer(flush_lsn, flush_lsn, node, is_connected=False)


def _names(status: dict[str, Any]) -> Iterator[str]:
    for row in status["downstreams"]:
        yield row["application_name"]
    for row in status["slots"]:
        yield row["name"]


def command(
    name: Annotated[str, typer.Argument(help="application_name or slot of the standby, at any node.")],
    config: ConfigOption = None,
    node: NodeOption = None,
    json_output: JsonOption = False,
) -> None:
    """Say whether a standby has flushed the whole log, so that it can be promoted without loss.

    Exit code 0: it has; 2: it has not, or it cannot be known. What it has replayed does not matter: a standby
    replays all it has before it is promoted.
    """
    seen, _ = asyncio.run(ask_group(which_group(config, node)[0]))
    found = judge_standby(name, seen)
    if json_output:
        shown = {
            "name": found.name,
            "has_all": not found.why,
            "is_sealed": found.is_sealed,
            "end_lsn": str(found.end_lsn),
            "flush_lsn": str(found.flush_lsn),
            "node": found.node or None,
            "lacking": found.why or None,
        }
        typer.echo(json.dumps(shown, indent=2))
    elif found.why:
        typer.echo(f"no: {found.why}")
    else:
        typer.echo(f"{name} at {found.node} has all of the log, up to {found.end_lsn}")
    if not found.is_sealed and not json_output:
        tell("the log is not sealed: it may grow at any moment; `walproxy seal` first")
    raise typer.Exit(_LACKING_EXIT_CODE if found.why else 0)
