"""Who is found when some nodes of a group are asked."""

from pathlib import Path

from tests.unit.fake_node import FakeNode, membership, serving
from walproxy.ask import ask_group


async def test_members_that_came_since_are_found_over_several_nodes(tmp_path: Path) -> None:
    """The file knows a alone; a was removed and knows b; b knows the members of now."""
    c = FakeNode(tmp_path, "c", "proposer", generation=3, members=["c", "d"])
    lost = "host=/nowhere port=9"
    now = membership({"c": c.conninfo, "d": lost})
    b = FakeNode(tmp_path, "b", generation=3, members=["c", "d"], membership=now)
    a = FakeNode(
        tmp_path, "a", "removed", generation=2, members=["b"], membership=membership({"b": b.conninfo})
    )
    async with serving(a, b, c):
        seen, addresses = await ask_group({"a": a.conninfo})

    assert {node.name: bool(node.status) for node in seen} == {"a": True, "b": True, "c": True, "d": False}
    assert addresses["c"] == c.conninfo
    assert [len(node.calls) for node in (a, b, c)] == [1, 1, 1]


async def test_a_member_that_moved_is_found_at_its_new_address(tmp_path: Path) -> None:
    b = FakeNode(tmp_path, "b", "proposer")
    a = FakeNode(tmp_path, "a", membership=membership({"b": b.conninfo}))
    async with serving(a, b):
        seen, addresses = await ask_group({"a": a.conninfo, "b": "host=/nowhere port=9"})

    assert {node.name: bool(node.status) for node in seen} == {"a": True, "b": True}
    assert addresses["b"] == b.conninfo


async def test_a_member_that_is_down_is_asked_once(tmp_path: Path) -> None:
    """The file spells its address in another order than the node."""
    a = FakeNode(tmp_path, "a", membership=membership({"b": "port=9 host=/nowhere"}))
    async with serving(a):
        seen, addresses = await ask_group({"a": a.conninfo, "b": "host=/nowhere port=9"})

    assert [(node.name, bool(node.status)) for node in seen] == [("a", True), ("b", False)]
    assert addresses["b"] == "host=/nowhere port=9"
