"""What an operator asks for reaches whoever proposes, is asked again only where that is safe, and ends in time."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fake_node import FakeNode, membership, serving
from walproxy import errand
from walproxy.errand import Errand, call, pause_s
from walproxy.errors import ConfigInvalid, NotReady, Refused
from walproxy.refusals import invalid, not_in_force, not_now, not_proposer
from walproxy.wire.errors import SqlError

SEAL = call("walproxy.seal")
CHANGE = call("remove_member")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errand, "_LOOK_AFTER_S", 0.01)


def an_errand(*nodes: FakeNode, timeout_s: float = 30.0, told: list[str] | None = None) -> Errand:
    seeds = {node.status["name"]: node.conninfo for node in nodes}
    return Errand(seeds, timeout_s=timeout_s, tell=(told if told is not None else []).append)


async def test_the_proposer_of_the_later_term_is_asked_though_only_another_node_is_named(
    tmp_path: Path,
) -> None:
    new, old = FakeNode(tmp_path, "b", "proposer", term=3), FakeNode(tmp_path, "a", "proposer", term=2)
    old.answers("walproxy.seal", ("0/2",))
    new.answers("walproxy.seal", ("0/3",))
    old.status["membership"] = membership({"b": new.conninfo})
    async with serving(new, old):
        assert await an_errand(old).ask(SEAL, is_repeatable=True) == "0/3"
    assert "walproxy.seal" not in old.calls


@pytest.mark.parametrize("refusal", [not_proposer("x", "b"), not_in_force()], ids=["WP001", "WP002"])
async def test_what_passes_is_waited_for_whatever_its_words(tmp_path: Path, refusal: SqlError) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    worded = SqlError(refusal.sqlstate, "some words")
    node.answers("walproxy.seal", worded, worded, ("0/3",))
    told: list[str] = []
    async with serving(node):
        assert await an_errand(node, told=told).ask(SEAL, is_repeatable=False) == "0/3"
    assert told == ["some words; waits"]


async def test_who_says_that_it_does_not_propose_has_begun_nothing(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    node.answers("walproxy.seal", not_proposer("a", ""))
    async with serving(node):
        with pytest.raises(NotReady, match=r"a is not the proposer; nothing was begun"):
            await an_errand(node, timeout_s=0.2).ask(SEAL, is_repeatable=False)


async def test_what_is_refused_is_not_asked_again_whatever_its_words(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    node.answers("walproxy.seal", not_now("does not propose, and is not in force"))
    async with serving(node):
        with pytest.raises(Refused, match=r"^a: does not propose"):
            await an_errand(node).ask(SEAL, is_repeatable=True)
    assert node.calls.count("walproxy.seal") == 1


async def test_nonsense_is_a_usage_error(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    node.answers("walproxy.seal", invalid("no such member"))
    async with serving(node):
        with pytest.raises(ConfigInvalid, match="no such member"):
            await an_errand(node).ask(SEAL, is_repeatable=True)


async def test_without_any_answer_it_ends_at_once_and_says_why(tmp_path: Path) -> None:
    absent = FakeNode(tmp_path, "a")

    async with asyncio.timeout(60):
        with pytest.raises(NotReady, match=r"no node answers: a does not answer: .*No such file"):
            await an_errand(absent, timeout_s=3600).ask(SEAL, is_repeatable=True)


async def test_without_a_proposer_it_waits_to_the_end_and_says_what_each_node_is(tmp_path: Path) -> None:
    a, b = FakeNode(tmp_path, "a", "candidate"), FakeNode(tmp_path, "b", leader="c")
    told: list[str] = []
    async with serving(a, b):
        with pytest.raises(NotReady, match=r"not done in 0\.3 s: .*; nothing was begun"):
            await an_errand(a, b, timeout_s=0.3, told=told).ask(SEAL, is_repeatable=True)
    assert told == ["no proposer answers: a: candidate; b: acceptor of c; waits"]


async def test_a_proposer_that_is_elected_meanwhile_is_asked(tmp_path: Path) -> None:
    a = FakeNode(tmp_path, "a", "candidate")
    a.answers("walproxy.seal", ("0/3",))
    async with serving(a):
        asking = asyncio.create_task(an_errand(a).ask(SEAL, is_repeatable=True))
        while len(a.calls) < 2:  # noqa: ASYNC110 - a list gives no event
            await asyncio.sleep(0.01)
        a.status["role"] = "proposer"
        assert await asking == "0/3"


@pytest.mark.parametrize("is_repeatable", [True, False])
async def test_an_answer_that_was_lost_is_asked_for_again_only_if_that_is_safe(
    tmp_path: Path, is_repeatable: bool
) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    stops = SqlError("57P01", "terminating connection due to administrator command", fatal=True)
    node.answers("walproxy.seal", stops, ("0/3",))
    async with serving(node):
        if is_repeatable:
            assert await an_errand(node).ask(SEAL, is_repeatable=True) == "0/3"
        else:
            with pytest.raises(NotReady, match=r"a is lost: .* may go on: look at `walproxy status`"):
                await an_errand(node).ask(SEAL, is_repeatable=False)
    assert node.calls.count("walproxy.seal") == (2 if is_repeatable else 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"role": "waiting", "generation": 0, "members": []}, "waits to be added"),
        ({"role": "proposer", "system_id": "8"}, "different clusters"),
    ],
)
async def test_nodes_that_are_not_of_one_group_are_a_usage_error(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    a, b = FakeNode(tmp_path, "a", **changes), FakeNode(tmp_path, "b", "acceptor")
    nodes = (a,) if changes["role"] == "waiting" else (a, b)
    async with serving(*nodes):
        with pytest.raises(ConfigInvalid, match=why):
            await an_errand(*nodes).ask(SEAL, is_repeatable=True)


async def test_an_interrupt_says_whether_anything_may_have_been_begun(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    told: list[str] = []

    async def slow() -> tuple[str]:
        await asyncio.sleep(3600)
        return ("",)

    node.answers("walproxy.seal", slow)
    async with serving(node):
        asking = asyncio.create_task(an_errand(node, told=told).ask(SEAL, is_repeatable=True))
        while "walproxy.seal" not in node.calls:  # noqa: ASYNC110 - a list gives no event
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        node.status["role"] = "candidate"
        asking = asyncio.create_task(an_errand(node, told=told).ask(SEAL, is_repeatable=True))
        while len(told) < 2:  # noqa: ASYNC110 - a list gives no event
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert ["may go on" in told[0], told[-1]] == [True, "interrupted: nothing was begun"]


# --- a change that takes a while --------------------------------------------------------------------------


async def test_a_change_is_asked_for_again_only_when_the_members_are_settled(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    told: list[str] = []
    learning = membership(phase="learning", learners=["d"], becoming=["a", "d"], is_in_force=True)

    def begin() -> tuple[str, str]:
        node.status |= {"membership": learning, "peers": {"d": {"streaming": True, "lag_bytes": 12345}}}
        return ("going on", "begun")

    node.answers("remove_member", begin, ("done", "d is a member"), columns=2)
    async with serving(node):
        asking = asyncio.create_task(an_errand(node, told=told).finish(CHANGE))
        while len(node.calls) < 5:  # noqa: ASYNC110 - a list gives no event
            await asyncio.sleep(0.01)
        node.status["membership"] = membership(is_in_force=False)
        while len(told) < 3:  # noqa: ASYNC110 - a list gives no event
            await asyncio.sleep(0.01)
        assert node.calls.count("remove_member") == 1
        node.status["membership"] = membership()
        assert await asking == "d is a member"
    assert node.calls.count("remove_member") == 2
    assert "d 12,345 bytes behind" in told[1]
    assert told[2] == "until a majority knows of it; waits"


async def test_another_proposer_is_asked_how_the_change_goes(tmp_path: Path) -> None:
    old, new = FakeNode(tmp_path, "a", "proposer"), FakeNode(tmp_path, "b", term=2)

    def begin() -> tuple[str, str]:
        old.status["role"], new.status["role"] = "acceptor", "proposer"
        old.status["membership"] = membership(is_in_force=False)
        return ("going on", "begun")

    old.answers("remove_member", begin, columns=2)
    new.answers("remove_member", ("done", "c has left"), columns=2)
    async with serving(old, new):
        assert await an_errand(old, new).finish(CHANGE) == "c has left"


async def test_a_change_that_takes_too_long_goes_on_by_itself(tmp_path: Path) -> None:
    node = FakeNode(tmp_path, "a", "proposer")
    node.status["membership"] = membership(phase="joint", becoming=["a", "b"])
    node.answers("remove_member", ("going on", "begun"), columns=2)
    async with serving(node):
        with pytest.raises(
            NotReady, match=r"not done in 0\.2 s: .*decide together; what was begun may go on"
        ):
            await an_errand(node, timeout_s=0.2).finish(CHANGE)


def test_the_longer_it_takes_the_less_often_is_asked() -> None:
    assert [pause_s(passed_s) for passed_s in (0.0, 2.0, 10.0, 3000.0)] == [0.01, 0.5, 2.5, 5.0]


def test_text_of_a_call_is_quoted_and_nothing_else_is_special() -> None:
    said = call("f", "it's \\ C:", None, True)

    assert said == "SELECT * FROM f('it''s \\ C:', null, true)"
