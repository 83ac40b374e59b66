"""The members of the group, as a node serves them: what its status says, and the functions that change them."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol

from walproxy.ask import ask_node, ask_nodes
from walproxy.config import checked_conninfo
from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.errors import ChangeInvalid, ChangeRefused
from walproxy.quorum.membership import Contact, Membership
from walproxy.quorum.request import Request, Stage, next_step
from walproxy.refusals import invalid, not_in_force, not_now, not_proposer
from walproxy.wire import datum
from walproxy.wire.function import Argument, Column, Function, Functions
from walproxy.wire.lsn import INVALID_LSN, parse_lsn

_NEW_NODE: Final = (
    Argument("name", datum.TEXT),
    Argument("address", datum.TEXT),
    Argument("force", datum.BOOL, is_optional=True),
)
_COLUMNS: Final = (Column("stage", datum.TEXT), Column("says", datum.TEXT))


def addresses(membership: Membership, configured: Mapping[str, str]) -> dict[str, str]:
    """How to reach each member: as the membership says or, of a group that never changed, the configuration."""
    known = dict(configured) | {contact.name: contact.conninfo for contact in membership.contacts}
    return {name: known[name] for name in membership.everyone if name in known}


def membership_status(acceptor: Acceptor) -> dict[str, Any]:
    """For the status and the log."""
    membership = acceptor.state.membership
    phase = "learning" if membership.is_learning else "joint" if membership.is_changing else "settled"
    return {
        "generation": membership.generation,
        "phase": phase if membership.generation else "none",
        "sets": [list(members) for members in membership.sets],
        "learners": sorted(membership.learners),
        "becoming": list(membership.new_members),
    }


class ChangingNode(Protocol):
    """What the functions need of their node."""

    name: str

    @property
    def role(self) -> str: ...
    def status(self) -> dict[str, object]: ...
    def change_members(self, wanted: tuple[str, ...], contacts: tuple[Contact, ...]) -> None:
        """Raises ChangeRefused."""


class MemberFunctions:
    """``add_member``, ``remove_member``, ``replace_member``: each gives one row, the stage and words for it.

    They begin what is asked for, or say how it goes; calling again is safe. Source: docs/quorum.md rule 20.

    Args:
        node: who carries it out, if it proposes.
        acceptor: its own.
        configured: addresses of the members at the group's first start.
    """

    def __init__(self, node: ChangingNode, acceptor: Acceptor, configured: Mapping[str, str]) -> None:
        self._node = node
        self._acceptor = acceptor
        self._configured = configured
        self._lock = asyncio.Lock()

    def functions(self) -> Functions:
        made = (
            Function("add_member", _NEW_NODE, _COLUMNS, self._add, is_set=True),
            Function("remove_member", (Argument("name", datum.TEXT),), _COLUMNS, self._remove, is_set=True),
            Function(
                "replace_member",
                (Argument("old", datum.TEXT), *_NEW_NODE),
                _COLUMNS,
                self._replace,
                is_set=True,
            ),
        )
        return {function.name: function for function in made}

    @property
    def _membership(self) -> Membership:
        return self._acceptor.state.membership

    @property
    def _addresses(self) -> dict[str, str]:
        return addresses(self._membership, self._configured)

    @property
    def _known_ids(self) -> dict[str, bytes]:
        """Of every node that was ever met, ourselves included, by name."""
        state = self._acceptor.state
        return dict(state.peer_ids) | {state.name: state.node_id}

    async def _add(self, name: str, address: str, force: bool | None) -> list[tuple[str, str]]:
        return await self._change(Request(comes=name), address, is_forced=bool(force))

    async def _remove(self, name: str) -> list[tuple[str, str]]:
        return await self._change(Request(leaves=name), "", is_forced=False)

    async def _replace(self, old: str, name: str, address: str, force: bool | None) -> list[tuple[str, str]]:
        return await self._change(Request(leaves=old, comes=name), address, is_forced=bool(force))

    async def _change(self, request: Request, address: str, *, is_forced: bool) -> list[tuple[str, str]]:
        async with self._lock:
            try:
                return [await self._try(request, address, is_forced=is_forced)]
            except ChangeInvalid as error:
                raise invalid(str(error)) from error
            except ChangeRefused as error:
                raise not_now(str(error)) from error

    async def _try(self, request: Request, address: str, *, is_forced: bool) -> tuple[str, str]:
        node = self._node
        self._check_proposing()
        new_id, why = await self._meet(request.comes, address) if request.comes else (None, "")
        membership = self._membership
        step = next_step(
            request,
            membership,
            is_in_force=self._is_in_force,
            known_ids=self._known_ids,
            node_id=new_id,
            has_moved=self._addresses.get(request.comes) != address,
        )
        if step.stage is not Stage.BEGIN:
            return step.stage.value, step.says
        comes = request.comes if request.comes in step.wanted else ""
        if comes and new_id is None and not is_forced:
            raise ChangeRefused(
                "the new node does not answer: start it first, or force it", name=comes, why=why
            )
        await self._check_versions()
        known = self._addresses | ({comes: address} if comes else {})
        names = dict.fromkeys((*membership.everyone, *step.wanted))
        if missing := [name for name in names if name not in known]:
            raise ChangeInvalid("no address is known", of=",".join(missing))
        contacts = tuple(
            Contact(name, known[name], new_id or b"" if name == comes else b"") for name in names
        )
        self._check_proposing()  # We have asked others meanwhile.
        if not self._is_in_force:
            raise not_in_force()
        node.change_members(step.wanted, contacts)
        return Stage.GOING_ON.value, step.says

    def _check_proposing(self) -> None:
        if self._node.role != "proposer":
            raise not_proposer(self._node.name, str(self._node.status()["leader"]))

    @property
    def _is_in_force(self) -> bool:
        status: Any = self._node.status()
        return bool(status["membership"]["is_in_force"])

    async def _meet(self, name: str, address: str) -> tuple[bytes | None, str]:
        """The id of a node that may join; None, and why, if it does not answer. Raises ChangeInvalid."""
        try:
            checked_conninfo(address)
        except ValueError as error:
            raise ChangeInvalid(str(error)) from error
        seen = await ask_node(name, address)
        if seen.status is None:
            return None, seen.error
        theirs = seen.status
        if theirs["name"] != name:
            raise ChangeInvalid("another node answers there", address=address, name=theirs["name"])
        if "membership" not in theirs:
            raise ChangeRefused("the new node runs an older version", name=name)
        node_id, ours = bytes.fromhex(theirs["node_id"]), self._node.status()
        is_known = self._known_ids.get(name) == node_id
        if theirs["system_id"] not in {None, ours["system_id"]}:
            raise ChangeInvalid(
                "the new node holds WAL of another cluster: give it an empty data_dir", name=name
            )
        is_empty = parse_lsn(theirs["flush_lsn"]) == INVALID_LSN
        if not is_known and not is_empty and theirs["role"] not in {"learner", "removed"}:
            raise ChangeInvalid("the new node has a log of its own: give it an empty data_dir", name=name)
        if theirs["membership"]["generation"] > self._membership.generation:
            raise ChangeInvalid("the new node belongs to another group: give it an empty data_dir", name=name)
        return node_id, ""

    async def _check_versions(self) -> None:
        """A node that cannot read the new list would be left behind by it."""
        others = {name: at for name, at in self._addresses.items() if name != self._node.name}
        for seen in await ask_nodes(others):
            if seen.status is not None and "membership" not in seen.status:
                raise ChangeRefused("a member runs an older version: upgrade all nodes first", name=seen.name)
