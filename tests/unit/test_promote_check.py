"""What `walproxy promote-check` makes of what the nodes say."""

from typing import Any

import pytest

from tests.unit.test_status import proposer, seen, status
from walproxy.group import Seen
from walproxy.promotable import judge_standby


def consumer(
    name: str = "standby", *, flush: str, told: str | None = None, slot: str | None = None
) -> dict[str, Any]:
    return {"application_name": name, "slot": slot, "flush_lsn": flush, "told_flush_lsn": told or flush}


def sealed(**changes: Any) -> dict[str, Any]:
    return proposer(**{"sealed_lsn": "0/3000", "commit_lsn": "0/3000", **changes})


def group(*nodes: dict[str, Any], others: int = 2) -> list[Seen]:
    """These nodes, and others that answer."""
    return seen(*nodes, *[status(name) for name in ("b", "c")[:others]])


def test_a_standby_that_has_all_up_to_the_seal_may_be_promoted() -> None:
    nodes = seen(sealed(), status("b", downstreams=[consumer(flush="0/3000")]), "c")

    found = judge_standby("standby", nodes)

    assert (found.why, found.is_sealed, found.node, str(found.end_lsn)) == ("", True, "b", "0/3000")


def test_a_slot_counts_where_its_consumer_is_away() -> None:
    slots = [{"name": "s1", "restart_lsn": "0/3000"}, {"name": "s2", "restart_lsn": None}]

    assert judge_standby("s1", group(sealed(slots=slots))).why == ""
    assert "no consumer" in judge_standby("s2", group(sealed(slots=slots))).why


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        (
            (sealed(downstreams=[consumer(flush="0/2FF0")]), "b", status("c")),
            "lacks 16 bytes, 0/2FF0 to 0/3000",
        ),
        (
            (sealed(downstreams=[consumer(flush="0/3000", told="0/3010")]), "b", status("c")),
            "from elsewhere, up to 0/3010",
        ),
        (
            (sealed(commit_lsn="0/2000", downstreams=[consumer(flush="0/3000")]), "b", status("c")),
            "not on a majority",
        ),
        ((status("b", downstreams=[consumer(flush="0/3000")]), "a"), "no node is the proposer"),
        ((sealed(downstreams=[consumer("next", flush="0/3000")]), "b", status("c")), "there are: next"),
    ],
)
def test_what_is_lacking_is_said(nodes: tuple[Any, ...], why: str) -> None:
    assert why in judge_standby("standby", seen(*nodes)).why


def test_without_a_seal_the_end_of_the_log_counts_not_the_commit_lsn() -> None:
    """What lies between the two may have been acknowledged by an older proposer."""
    nodes = group(
        proposer(downstreams=[consumer(flush="0/2000")])
    )  # Committed is 0/2000, the log ends at 0/3000.

    found = judge_standby("standby", nodes)

    assert not found.is_sealed
    assert "lacks" in found.why


@pytest.mark.parametrize(
    "nodes",
    [
        (sealed(downstreams=[consumer(flush="0/3000")]), "b", "c"),
        (sealed(downstreams=[consumer(flush="0/3000")]), status("b", term=2), "c"),
    ],
    ids=["others are silent", "another knows a later term"],
)
def test_a_proposer_that_may_have_been_replaced_is_not_believed(nodes: tuple[Any, ...]) -> None:
    """A later one may have acknowledged more."""
    found = judge_standby("standby", seen(*nodes))

    assert "too few nodes answer to know that a is still the proposer; " in found.why
    assert "c does not answer" in found.why


def test_of_two_standbys_with_one_name_both_must_have_all() -> None:
    """Nobody can tell which of them will be promoted."""
    behind, at_end = consumer(flush="0/2000"), consumer(flush="0/3000")
    nodes = seen(sealed(downstreams=[at_end]), status("b", downstreams=[behind]), status("c"))

    found = judge_standby("standby", nodes)

    assert "2 connections have that name, of one: it lacks 4096 bytes" in found.why


def test_what_a_standby_left_behind_at_another_node_does_not_count() -> None:
    left = [{"name": "standby", "restart_lsn": "0/1000"}]
    nodes = seen(
        sealed(downstreams=[consumer(flush="0/3000")]), status("b", slots=left), status("c", slots=left)
    )

    assert judge_standby("standby", nodes).why == ""
