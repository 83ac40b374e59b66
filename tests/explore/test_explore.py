"""The search itself: it ends, it is repeatable, and it sees what is wrong."""

import pytest

from tests.explore.__main__ import small
from tests.explore.bounds import Grain
from walproxy.quorum import membership
from walproxy.quorum.membership import Membership


@pytest.mark.parametrize("grain", [Grain.CONVERSATION, Grain.MESSAGE])
def test_all_states_of_a_small_world_are_sound(grain: Grain) -> None:
    found = small("ab", "ab", 1, 1, grain).search()

    assert found.is_complete
    assert found.violation == ""
    assert found.states > 200


def test_two_searches_of_one_world_find_the_same() -> None:
    first, second = (small("ab", "ab", 1, 1).search(threads) for threads in (1, 2))

    assert (first.states, first.transitions, first.depth) == (second.states, second.transitions, second.depth)


@pytest.mark.parametrize("grain", list(Grain))
def test_a_quorum_that_is_none_is_found_out(grain: Grain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "majority", lambda _: 1)

    found = small("ab", "ab", 1, 1, grain).search()

    assert found.violation.startswith("I1")
    assert found.trace


def test_a_change_of_the_members_that_only_the_old_ones_decide_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of_the_old_set(now: Membership) -> tuple[tuple[str, ...], ...]:
        return (now.members,)

    monkeypatch.setattr(Membership, "sets", property(of_the_old_set))

    found = small("ab", "a", 2, 1, wanted="b").search()

    assert found.violation.startswith("I3")
    assert found.trace
