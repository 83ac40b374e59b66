"""`walproxy member`: add, remove and replace members of a running group, and list them."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from walproxy.ask import ask_group
from walproxy.config import checked_conninfo
from walproxy.errand import Errand, call
from walproxy.errors import ConfigInvalid, NotReady
from walproxy.group import Seen, addresses_of, answers, members_of, newest, silences
from walproxy.options import ConfigOption, JsonOption, NodeOption, show, tell, which_group
from walproxy.quorum.request import Stage

app: Final = typer.Typer(
    no_args_is_help=True, help="The members of a running group: add, remove, replace, list."
)
_CODES: Final = (
    "Exit code 0: done. 1: it makes no sense, as of a name that is no member's. 2: refused, or not in time."
)

NameArgument = Annotated[str, typer.Argument(help="Of the node, as its own file has it.")]
MemberArgument = Annotated[str, typer.Argument(help="Of a member, as `walproxy member list` shows it.")]
AddressOption = Annotated[str, typer.Option("--address", help="libpq connection string: how nodes reach it.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Begin also if the new node does not answer yet.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0, help="Seconds to wait; the change goes on afterwards.")
]


@app.command(epilog=_CODES)
def add(
    name: NameArgument,
    *,
    address: AddressOption,
    config: ConfigOption = None,
    node: NodeOption = None,
    force: ForceOption = False,
    timeout: TimeoutOption = 3600.0,
    json_output: JsonOption = False,
) -> None:
    """Add a node that runs with a file without members of its own; it votes once it has caught up.

    Asking again is safe: it goes on waiting, also after the proposer changed.
    """
    query = call("add_member", name, _checked(address), force)
    _carry_out(query, config, node, timeout, is_json=json_output)


@app.command(epilog=_CODES)
def remove(
    name: MemberArgument,
    config: ConfigOption = None,
    node: NodeOption = None,
    timeout: TimeoutOption = 3600.0,
    json_output: JsonOption = False,
) -> None:
    """Remove a member, or take back one that was to be added and has not caught up. Stop it afterwards."""
    _carry_out(call("remove_member", name), config, node, timeout, is_json=json_output)


@app.command(epilog=_CODES)
def replace(
    old: MemberArgument,
    new: NameArgument,
    *,
    address: AddressOption,
    config: ConfigOption = None,
    node: NodeOption = None,
    force: ForceOption = False,
    timeout: TimeoutOption = 3600.0,
    json_output: JsonOption = False,
) -> None:
    """Put a node in the place of a member, which may be lost; of one that lost its disk give its name twice.

    Also for a member that moved: its name twice, and the new address.
    """
    query = call("replace_member", old, new, _checked(address), force)
    _carry_out(query, config, node, timeout, is_json=json_output)


def _checked(address: str) -> str:
    try:
        return checked_conninfo(address)
    except ValueError as error:
        raise ConfigInvalid(f"--address: {error}") from error


def _carry_out(
    query: str, config: Path | None, nodes: list[str] | None, timeout_s: float, *, is_json: bool
) -> None:
    errand = Errand(which_group(config, nodes)[0], timeout_s=timeout_s, tell=tell)
    says = asyncio.run(errand.finish(query))
    typer.echo(json.dumps({"stage": Stage.DONE.value, "says": says}, indent=2) if is_json else says)


# --- list -------------------------------------------------------------------------------------------------


@app.command(name="list")
def list_members(
    config: ConfigOption = None, node: NodeOption = None, json_output: JsonOption = False
) -> None:
    """Show the members, their addresses, and whether the set changes. Exit code 2 if no node answers."""
    seen, _ = asyncio.run(ask_group(which_group(config, node)[0]))
    if not answers(seen):
        raise NotReady(f"no node answers: {'; '.join(silences(seen))}")
    shown = as_json(seen)
    if json_output:
        typer.echo(json.dumps(shown, indent=2))
    else:
        show(_as_table(shown))


def as_json(seen: list[Seen]) -> dict[str, Any]:
    """The members, as the node with the newest list has them."""
    latest = newest(seen)
    membership, addresses = latest.get("membership", {}), addresses_of(latest)
    roles = {status["name"]: status["role"] for status in answers(seen)}
    return {
        "generation": latest["generation"],
        "phase": membership.get("phase"),
        "members": [
            {
                "name": name,
                "address": addresses.get(name, ""),
                "role": roles.get(name, "no answer"),
                "has_vote": name not in membership.get("learners", []),
                "leaves": bool(membership.get("becoming")) and name not in membership["becoming"],
            }
            for name in members_of(latest)
        ],
    }


def _as_table(shown: dict[str, Any]) -> Table:
    table = Table("member", "address", "role", "vote", "leaves", title_justify="left")
    table.title = f"Members, generation {shown['generation']}, {shown['phase'] or ''}"
    if not shown["members"]:
        table.title = "No members: this node waits to be added to a group"
    for row in shown["members"]:
        marks = ("yes" if row["has_vote"] else "not yet", "yes" if row["leaves"] else "")
        table.add_row(row["name"], row["address"], row["role"], *marks)
    return table
