"""Native lanes: while the event loop waits, a member's steady state goes on without Python.

They run in the event loop's own thread, inside its wait: nothing of Python's runs meanwhile, and the core is
brought up to date before anything does again. What is not steady goes to the core, from its first byte on.
"""

import selectors
from collections.abc import Callable, Mapping
from typing import Protocol

from walproxy.acceptor_lane import AcceptorLane, Lendable
from walproxy.follow import PrimaryFollower
from walproxy.ports import CopyStream, WalStore
from walproxy.proposer_lane import ProposerLane
from walproxy.quorum.replica import Replica


class LaneSelector(selectors.EpollSelector):
    """An event loop's selector that has something to do while it waits."""

    def __init__(self) -> None:
        super().__init__()
        # Gets how long the loop may wait; gives how long it still may.
        self.wait: Callable[[float | None], float | None] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.wait is not None and (timeout is None or timeout > 0):
            timeout = self.wait(timeout)
        return super().select(timeout)


class Lane(Protocol):
    """What is lent to native code, until `give_back`.

    Invariant: between two `run` the core and the store know all that was taken.
    """

    @property
    def is_steady(self) -> bool:
        """False if Python has changed what the lane stands on."""

    @property
    def is_disk_slow(self) -> bool:
        """The last sync was too slow for the event loop's thread."""

    def run(self, timeout_s: float | None, *, wakes_at_commit: bool) -> bool:
        """Go on until the event loop has work, the time is over, or something is not steady: False.

        Raises:
            OSError: a write or sync failed; nothing was answered since.
        """

    def bring_up_to_date(self, now_s: float) -> int:
        """Tell core and store what was taken since. Gives how many Appends that was."""

    def give_back(self, now_s: float) -> None:
        """Let go of everything; Python goes on from here."""

    def holds(self, stream: object) -> bool:
        """Whether that stream is lent to it."""


def begin_lane(
    replica: Replica,
    store: WalStore,
    follower: PrimaryFollower,
    accepted: Mapping[str, CopyStream],
    dialled: Mapping[str, CopyStream],
    *,
    event_loop: int,
) -> Lane | None:
    """The lane of what this member is now; None if something is not at rest.

    `accepted` are the connections from other members' proposers, `dialled` those to their acceptors, by name.

    Raises:
        OSError: no more descriptors can be had; nothing is lent.
    """
    if replica.is_proposing:
        return ProposerLane.begin(replica, store, follower, dialled, event_loop=event_loop)
    stream = accepted.get(replica.acceptor.leader)
    if not isinstance(stream, Lendable):
        return None
    return AcceptorLane.begin(replica.acceptor, store, stream, event_loop=event_loop)
