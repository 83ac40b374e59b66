"""How a node answers an operator: error codes say whom to ask, what to wait for, and what makes no sense."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_node import FakeNode, membership, serving
from tests.unit.quorum_world import new_acceptor, trio
from walproxy.members import MemberFunctions
from walproxy.operate import Operator
from walproxy.quorum.membership import Contact
from walproxy.wire.errors import SqlError

CONFIGURED = {name: f"host=/nowhere/{name}" for name in "abc"}


async def refusal(functions: Any, name: str, *arguments: object) -> SqlError:
    with pytest.raises(SqlError) as refused:
        await functions.functions()[name].call(*arguments)
    return refused.value


def operator(name: str) -> Operator:
    group = trio()
    group.elect("b")
    return Operator(group[name], group.settle)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [("transfer", (None,)), ("transfer", ("nobody",)), ("seal", ()), ("unseal", ())],
)
async def test_a_node_that_is_not_the_proposer_names_it(function: str, arguments: tuple[object, ...]) -> None:
    error = await refusal(operator("a"), f"walproxy.{function}", *arguments)

    assert (error.sqlstate, error.detail) == ("WP001", "b")


async def test_the_place_is_not_handed_to_a_stranger() -> None:
    error = await refusal(operator("b"), "walproxy.transfer", "nobody")

    assert error.sqlstate == "22023"
    assert "the members are a, b, c" in error.message


async def test_what_cannot_be_now_has_another_code() -> None:
    error = await refusal(operator("b"), "walproxy.transfer", "b")

    assert error.sqlstate == "55000"


# --- members ----------------------------------------------------------------------------------------------


class ChangingNode:
    """Node a of three."""

    def __init__(self, role: str = "proposer", *, is_in_force: bool = True) -> None:
        self.name, self.role = "a", role
        self.is_in_force = is_in_force
        self.changed: list[tuple[str, ...]] = []

    def status(self) -> dict[str, object]:
        return {
            "leader": "b",
            "system_id": "7",
            "membership": membership(is_in_force=self.is_in_force),
        }

    def change_members(self, wanted: tuple[str, ...], contacts: tuple[Contact, ...]) -> None:
        del contacts
        self.changed.append(wanted)


def members_of(node: ChangingNode) -> MemberFunctions:
    return MemberFunctions(node, new_acceptor(), CONFIGURED)


@pytest.mark.parametrize("call", [("remove_member", "c"), ("add_member", "c", "host=/nowhere", None)])
async def test_only_the_proposer_says_how_the_members_are(call: tuple[Any, ...]) -> None:
    """Another node may know an older list, in which c is a member already."""
    error = await refusal(members_of(ChangingNode("acceptor")), *call)

    assert (error.sqlstate, error.detail) == ("WP001", "b")


async def test_who_is_no_proposer_any_more_once_others_were_asked_says_so(tmp_path: Path) -> None:
    node, new = ChangingNode(), FakeNode(tmp_path, "d", "waiting", flush_lsn="0/0", node_id="dd")
    new.status |= {"generation": 0, "membership": membership(generation=0), "system_id": None}

    async def asked(name: str) -> str:
        node.role = "acceptor"
        return await FakeNode.show(new, name)

    new.show = asked  # type: ignore[method-assign]
    async with serving(new):
        error = await refusal(members_of(node), "add_member", "d", new.conninfo, None)

    assert (error.sqlstate, node.changed) == ("WP001", [])


async def test_members_that_are_not_in_force_are_waited_for() -> None:
    node = ChangingNode(is_in_force=False)

    error = await refusal(members_of(node), "remove_member", "c")

    assert (error.sqlstate, node.changed) == ("WP002", [])


@pytest.mark.parametrize("is_forced", [None, True])
async def test_an_address_that_is_none_is_never_taken(is_forced: bool | None) -> None:
    """Forced in, no node could read its own list of members."""
    node = ChangingNode()

    error = await refusal(members_of(node), "add_member", "d", "10.0.0.4:7004", is_forced)

    assert (error.sqlstate, node.changed) == ("22023", [])
    assert "not a libpq connection string" in error.message


async def test_a_member_is_removed() -> None:
    node = ChangingNode()

    rows = await members_of(node).functions()["remove_member"].call("c")  # type: ignore[misc]

    assert rows == [("going on", "begun")]
    assert node.changed == [("a", "b")]
