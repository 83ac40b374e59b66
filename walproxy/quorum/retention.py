"""Retention: below which LSN nobody needs WAL any more. Source: docs/quorum.md rule 18."""

from collections.abc import Iterable, Sequence

from walproxy.quorum.messages import SlotHorizon
from walproxy.wire.lsn import INVALID_LSN, Lsn


def needed_lsn(held: Sequence[Lsn], slots: Iterable[Sequence[SlotHorizon]]) -> Lsn:
    """The minimum of what members hold and what slots hold.

    Args:
        held: one a member, and the commit LSN.
        slots: of each member. Of one name the furthest counts: one consumer may have left it on several.
    """
    furthest: dict[str, Lsn] = {}
    for of_one in slots:
        for slot in of_one:
            furthest[slot.name] = max(furthest.get(slot.name, INVALID_LSN), slot.flush_lsn)
    return min((*held, *furthest.values()))
