"""What the explorer forgets of members and messages, nobody ever looks at: with it the same happens."""

from collections.abc import Callable

import pytest

from tests.explore.bounds import Bounds, Grain
from tests.explore.events import Event
from tests.explore.member import Member
from tests.explore.search import Search
from tests.explore.steps import Step, Steps
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import Message


class Remembering(Steps):
    """Takes each step twice, the second time with a member and a message of which nothing was forgotten."""

    def __init__(self, bounds: Bounds) -> None:
        super().__init__(bounds)
        self._whole: dict[int, Member] = {}
        self._whole_messages: dict[Message, Message] = {}
        self.compared = 0

    def number(self, member: Member) -> int:
        whole = member.copied()
        found = super().number(member)
        whole.forget_times()
        self._whole[found] = whole
        return found

    def plain(self, message: Message, how: Callable[[Message], Message]) -> Message:
        kept = super().plain(message, how)
        if kept != message:
            self._whole_messages[kept] = message
        return kept

    def step(self, number: int, event: Event) -> Step:
        whole = self._whole[number].copied()
        step = super().step(number, event)
        kind, *more = event
        if len(more) == 2:
            more[1] = self._whole_messages.get(more[1], more[1])  # type: ignore[call-overload]
        assert self._take(whole, (kind, *more)) == step, f"{event} makes a difference"
        assert self._possible(self._whole[step.member]) == self._possible(self._members[step.member])
        self.compared += 1
        return step


@pytest.mark.parametrize(
    ("bounds", "members"),
    [
        (Bounds(2, 1, ("a", "b"), Grain.CONVERSATION), "ab"),
        (Bounds(2, 1, ("a", "b"), Grain.MESSAGE), "ab"),
        (Bounds(1, 1, ("a", "b"), Grain.CONVERSATION, ("b",)), "a"),
    ],
)
def test_what_is_forgotten_makes_no_difference(bounds: Bounds, members: str) -> None:
    search = Search(bounds, Membership(1, tuple(members)))
    steps = search._steps = Remembering(bounds)

    found = search.run(5_000)

    assert found.violation == ""
    assert steps.compared > 500
