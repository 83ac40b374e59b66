"""The search itself: it ends, it is repeatable, and it sees what is wrong."""

import pytest

from tests.explore.__main__ import small
from walproxy.quorum import membership


def test_all_states_of_a_small_world_are_sound() -> None:
    found = small("ab", "ab", 1, 1, atomic=True, states_max=100_000).search()

    assert found.is_complete
    assert found.violation == ""
    assert found.states > 100


def test_a_quorum_that_is_none_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "majority", lambda _: 1)

    found = small("ab", "ab", 1, 1, atomic=True, states_max=100_000).search()

    assert found.violation.startswith("I1")
    assert found.trace
