"""`walproxy transfer`, `seal` and `unseal`: planned hand-overs, of the proposer's place and of the primary's."""

import asyncio
import json
from pathlib import Path
from typing import Annotated

import typer

from walproxy.errand import Errand, call
from walproxy.options import ConfigOption, JsonOption, NodeOption, tell, which_group

TimeoutOption = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait for a proposer.")]


def transfer(
    config: ConfigOption = None,
    node: NodeOption = None,
    to: Annotated[str | None, typer.Option(help="The member to lead; else the one that holds most.")] = None,
    timeout: TimeoutOption = 30.0,
    json_output: JsonOption = False,
) -> None:
    """Hand the proposer's place over to another member, with as short a wait for commits as can be.

    Exit code 0: that member leads. 1: there is no such member. 2: refused, or not known to be done.
    """
    errand = _errand(config, node, timeout)
    name = asyncio.run(errand.ask(call("walproxy.transfer", to), is_repeatable=False))
    _say(f"{name} is the proposer", {"proposer": name}, is_json=json_output)


def seal(
    config: ConfigOption = None,
    node: NodeOption = None,
    timeout: TimeoutOption = 30.0,
    json_output: JsonOption = False,
) -> None:
    """End the log at its end, so that a standby can be promoted exactly there.

    Commits wait from then on, until a server on a new timeline that begins there is the primary, or until
    `walproxy unseal`. It outlives restarts and elections. To seal again changes nothing.

    Exit code 0: sealed, on a majority. 2: refused, or not known to be done.
    """
    lsn = asyncio.run(_errand(config, node, timeout).ask(call("walproxy.seal"), is_repeatable=True))
    _say(f"sealed at {lsn}", {"sealed_lsn": lsn}, is_json=json_output)


def unseal(
    config: ConfigOption = None,
    node: NodeOption = None,
    timeout: TimeoutOption = 30.0,
    json_output: JsonOption = False,
) -> None:
    """Take a seal back: the log goes on with the primary that it had. Without a seal nothing changes.

    Exit code 0: open, on a majority. 2: refused, or not known to be done.
    """
    lsn = asyncio.run(_errand(config, node, timeout).ask(call("walproxy.unseal"), is_repeatable=True))
    _say(f"open from {lsn} on", {"open_from_lsn": lsn}, is_json=json_output)


def _errand(config: Path | None, nodes: list[str] | None, timeout_s: float) -> Errand:
    return Errand(which_group(config, nodes)[0], timeout_s=timeout_s, tell=tell)


def _say(words: str, facts: dict[str, str], *, is_json: bool) -> None:
    typer.echo(json.dumps(facts, indent=2) if is_json else words)
