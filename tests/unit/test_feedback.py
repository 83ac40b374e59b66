"""What the primary is told of the standbys of a group."""

from typing import cast

import pytest

from walproxy.feedback import FeedbackForwarder
from walproxy.ports import Upstream
from walproxy.quorum.messages import Feedback
from walproxy.quorum.peer import Peer


class Told:
    """An upstream that remembers what it was told."""

    def __init__(self) -> None:
        self.feedbacks: list[Feedback] = []

    def feedback(self, feedback: Feedback) -> None:
        self.feedbacks.append(feedback)


@pytest.fixture
def told() -> Told:
    return Told()


def test_the_oldest_of_all_members_is_told_when_it_changes_and_every_ten_seconds(told: Told) -> None:
    forwarder = FeedbackForwarder(cast("Upstream", told), 0)
    a, b = Peer(), Peer(heard_s=1)
    forwarder.forward(Feedback(), [a, b], 1)
    assert told.feedbacks == []

    a, b = Peer(heard_s=2, feedback=Feedback(5, 1)), Peer(heard_s=2, feedback=Feedback(900, 0, 800, 0))
    for now_s in (2, 3, 11):
        forwarder.forward(Feedback(), [a, b], now_s)
    assert told.feedbacks == [Feedback(900, 0, 800, 0)]
    forwarder.forward(Feedback(), [a, b], 12)
    assert told.feedbacks == [Feedback(900, 0, 800, 0)] * 2


def test_a_member_that_is_long_gone_holds_nothing(told: Told) -> None:
    forwarder = FeedbackForwarder(cast("Upstream", told), 0)
    gone = Peer(heard_s=1, feedback=Feedback(7))
    forwarder.forward(Feedback(), [gone], 2)
    forwarder.forward(Feedback(), [gone], 60)
    forwarder.forward(Feedback(), [gone], 61)

    assert told.feedbacks == [Feedback(7), Feedback(7), Feedback()]


def test_our_own_standbys_count_however_long_nothing_is_written(told: Told) -> None:
    forwarder = FeedbackForwarder(cast("Upstream", told), 0)
    forwarder.forward(Feedback(7), [], 1)
    forwarder.forward(Feedback(7), [], 100)

    assert told.feedbacks == [Feedback(7), Feedback(7)]
