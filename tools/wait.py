"""Waiting for something with a deadline, so that nothing ever waits for ever or sleeps a guess."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

PAUSE_S = 0.05


class TooLate(AssertionError):
    """What was waited for did not come. The message says what was seen last."""


def until(
    look: Callable[[], Seen | None],
    *,
    what: str,
    deadline_s: float = 60.0,
    ignoring: tuple[type[Exception], ...] = (),
    pause_s: float = PAUSE_S,
) -> Seen:
    """Call ``look`` until what it gives is true, and give that.

    Args:
        look: must not block for long.
        what: a phrase for the error: "the standby streams".
        deadline_s: seconds from now.
        ignoring: errors of ``look`` that mean "not yet".

    Raises:
        TooLate: the deadline passed.
    """
    end_s = time.monotonic() + deadline_s
    while True:
        last: object = None
        try:
            last = seen = look()
            if seen:
                return seen
        except ignoring as error:
            last = error
        if time.monotonic() >= end_s:
            raise TooLate(f"waited {deadline_s:g} s in vain: {what}; last seen: {last!r}")
        time.sleep(pause_s)
