"""What the observer makes of the events in WAL."""

from typing import Any, cast

import pytest

from walcore._native import WalScanner
from walproxy.observe import Observer
from walproxy.ports import NodeView


class Events:
    """A scanner that has found these events."""

    def __init__(self, *events: dict[str, Any]) -> None:
        self._events = list(events)

    def take_counts(self) -> dict[str, int]:
        return {}

    def take_events(self) -> list[dict[str, Any]]:
        return self._events


def change(lsn: int, is_on: bool) -> dict[str, Any]:
    return {"kind": "fpw_change", "lsn": lsn, "full_page_writes": is_on}


def checkpoint(lsn: int, redo_lsn: int, is_on: bool) -> dict[str, Any]:
    return {"kind": "checkpoint", "lsn": lsn, "redo_lsn": redo_lsn, "full_page_writes": is_on}


@pytest.mark.parametrize(
    ("events", "shown"),
    [
        # The checkpoint began before the change, and carries the old value.
        ([change(0x200, False), checkpoint(0x300, 0x100, True)], (False, "0/200")),
        ([checkpoint(0x300, 0x280, True)], (True, "0/280")),
        ([checkpoint(0x300, 0x280, True), checkpoint(0x500, 0x480, True)], (True, "0/280")),
        # A change that was not seen shows at the next checkpoint.
        ([change(0x200, False), checkpoint(0x300, 0x280, True)], (True, "0/280")),
        # Between this redo point and where reading began, a change may have passed.
        ([checkpoint(0x110, 0x80, True)], None),
    ],
)
def test_a_checkpoint_tells_full_page_writes_as_of_its_redo_point(
    events: list[dict[str, Any]], shown: tuple[bool, str] | None
) -> None:
    observer = Observer(cast("NodeView", None))
    observer._begin_lsn = observer._read_lsn = cast("Any", 0x100)

    observer._note(cast("WalScanner", Events(*events)))

    state = cast("dict[str, Any] | None", observer.status()["full_page_writes"])
    assert (None if state is None else (state["is_on"], state["since_lsn"])) == shown
