"""What `walproxy status` makes of what the nodes say."""

import io
from typing import Any

import pytest
from rich.console import Console

from walproxy import check
from walproxy.group import Seen, judge
from walproxy.options import show
from walproxy.status import Overview, as_json, as_tables

MIB = 1 << 20
WELL = [check.Finding(check.Level.OK, "fsync", "on")]


def status(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": name,
        "role": "acceptor",
        "term": 1,
        "tli": 1,
        "members": ["a", "b", "c"],
        "system_id": "7",
        "flush_lsn": "0/3000",
        "commit_lsn": "0/2000",
        "wal_size_bytes": 32 * MIB,
        "wal_size_bytes_max": 1024 * MIB,
        "wal_segment_size_bytes": 16 * MIB,
        "sealed_lsn": None,
        "upstream": {"state": "not wanted", "error": "", "primary_end_lsn": "0/0", "tail_lsn": "0/0"},
        "refused_messages": {},
        "downstreams": [],
        "slots": [],
        "full_page_writes": None,
        "recent_wal": {"fpi_share": None},
        **changes,
    }


def peer(*, streaming: bool = True, refused: str = "") -> dict[str, Any]:
    return {"streaming": streaming, "refused": refused}


def proposer(peers: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    upstream = {"state": "streaming", "error": "", "primary_end_lsn": "0/2800", "tail_lsn": "0/1800"}
    peers = peers or {"b": peer(), "c": peer()}
    return status("a", **{"role": "proposer", "upstream": upstream, "peers": peers, **changes})


def seen(*nodes: dict[str, Any] | str) -> list[Seen]:
    return [Seen(n, None, "no answer") if isinstance(n, str) else Seen(n["name"], n) for n in nodes]


def view(*nodes: dict[str, Any] | str, primary: list[check.Finding] | None = WELL) -> Overview:
    return Overview(seen(*nodes), primary, judge(seen(*nodes)))


def printed(overview: Overview) -> str:
    console = Console(file=io.StringIO(), width=200, force_terminal=True, color_system="standard")
    console.print(as_tables(overview))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_a_group_that_is_well_is_green() -> None:
    shown = view(proposer(), status("b"), status("c"))

    assert not shown.is_red
    assert (shown.verdict.complaints, shown.verdict.warnings) == ([], [])


def test_one_of_three_down_is_a_warning() -> None:
    shown = view(proposer({"b": peer(), "c": peer(streaming=False)}), status("b"), "c")

    assert not shown.is_red
    assert shown.verdict.warnings == ["c does not answer: no answer"]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([proposer({"b": peer(streaming=False), "c": peer(streaming=False)}), "b", "c"], "no quorum: 1 of 3"),
        ([proposer({"b": peer(streaming=False), "c": peer(streaming=False)})], "1 of 3 nodes follow a"),
        ([status("a"), status("b"), status("c")], "no node proposes"),
        (["a", "b", "c"], "a does not answer"),
        ([proposer(), status("b", system_id="8"), status("c")], "different clusters"),
        (
            [
                proposer(upstream={"state": "lost", "error": "why", "primary_end_lsn": "0/0"}),
                status("b"),
                "c",
            ],
            "a has no stream from the primary: why",
        ),
        (
            [proposer(), status("b", wal_size_bytes=1010 * MIB), status("c", wal_size_bytes=1010 * MIB)],
            "no quorum: 1 of 3",
        ),
    ],
)
def test_a_group_that_cannot_commit_is_red(nodes: list[dict[str, Any] | str], said: str) -> None:
    shown = view(*nodes)

    assert shown.is_red
    assert any(said in complaint for complaint in shown.verdict.complaints)


@pytest.mark.parametrize(
    "leader",
    [
        proposer(
            {"b": peer(), "c": peer(streaming=False, refused="it lost its disk")},
            refused_messages={"b: x": 2},
        ),
        proposer(
            {"b": peer(), "c": peer(streaming=False)},
            refused_messages={"b: x": 1, "c: it lost its disk": 1},
        ),
    ],
)
def test_a_refused_member_is_red_though_the_group_goes_on(leader: dict[str, Any]) -> None:
    shown = view(leader, status("b"), status("c"))

    assert shown.is_red
    assert shown.verdict.complaints == ["c is refused: it lost its disk"]
    assert " 2 " in printed(shown)


def test_a_member_that_was_refused_once_and_follows_again_is_well() -> None:
    assert not view(proposer(refused_messages={"b: x": 1}), status("b"), status("c")).is_red


def test_how_far_the_primary_is_ahead_is_shown() -> None:
    shown = view(proposer(), status("b"), status("c"))

    assert [node["primary_lag_bytes"] for node in as_json(shown)["nodes"]] == [0x800, None, None]
    assert "2.0 kB" in printed(shown)


@pytest.mark.parametrize(("size", "colour"), [(32, None), (820, "33"), (1009, "31")])
def test_the_size_of_wal_is_coloured_before_it_is_too_much(size: int, colour: str | None) -> None:
    text = printed(view(proposer(wal_size_bytes=size * MIB), status("b"), status("c")))

    cell = f"{size}.0 MB of 1.0 GB"
    assert cell in text
    assert (f"\x1b[{colour}m{cell}" in text) == (colour is not None)


def test_a_primary_that_was_not_asked_is_said_not_to_be() -> None:
    shown = view(proposer(), status("b"), status("c"), primary=None)

    assert as_json(shown)["is_primary_asked"] is False
    assert "primary not asked" in printed(shown)
    assert "primary not asked" not in printed(view(proposer(), status("b"), status("c")))


def test_a_proposer_of_an_older_version_is_shown_too() -> None:
    """It does not say how much the primary had when it connected."""
    old = {"state": "streaming", "error": "", "primary_end_lsn": "0/2800"}

    assert not view(proposer(upstream=old), status("b"), status("c")).is_red


def test_what_consumers_call_themselves_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "application_name": "[/bold]", "peer": "127.0.0.1", "slot": None, "state": "streaming", "sent_lsn": "0/2000",
        "flush_lsn": "0/2000", "apply_lsn": "0/2000", "lag_bytes": 0,
    }  # fmt: skip

    show(as_tables(view(proposer(downstreams=[row]), status("b"), "c")))

    said = capsys.readouterr().out
    assert "[/bold]" in said
    assert "│ no answer │" in said
    assert "│ ok │ fsync" in said


def test_of_two_lists_of_members_the_newer_one_counts() -> None:
    """Also if only a node that was removed has it yet."""
    newer = {"phase": "joint", "sets": [["a", "b", "c"], ["a", "b", "d"]], "learners": [], "becoming": ["a"]}
    shown = view(
        proposer(),
        status("b"),
        status("c"),
        "d",
        status("x", generation=2, members=["a", "b", "c", "d"], membership=newer),
    )

    assert shown.verdict.warnings == [
        "d does not answer: no answer",
        "x is not a member of the group: stop it, or add it with `walproxy member add`",
    ]
    assert not shown.is_red
    alone = view(
        proposer(), "b", status("c"), "d", status("x", generation=2, members=list("abcd"), membership=newer)
    )
    assert "no quorum: 1 of 3 nodes answer and take WAL; commits wait" in alone.verdict.complaints
