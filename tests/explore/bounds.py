"""Bounds: how small a world is, and how much of what happens in it is one move."""

import enum
from dataclasses import dataclass


class Grain(enum.IntEnum):
    """How much is one move. The native search knows them by these numbers (walcore/rust/explore/src/moves.rs)."""

    CONVERSATION = 0  # What two say to each other on one connection, up to any message, with its disk work.
    MESSAGE = 1  # One message, with its disk work.
    WRITE = 2  # One message or one piece of disk work.


@dataclass(frozen=True)
class Bounds:
    """`wanted`: what the members are to be; empty if they stay."""

    terms: int
    positions: int
    proposers: tuple[str, ...]
    grain: Grain
    wanted: tuple[str, ...] = ()

    @property
    def is_lean(self) -> bool:
        """Connections that can bring nothing are left out.

        Who neither stands nor proposes says only who it is, and learns only of a term: it has no connections, and
        stands in any term above its own. What it sent while it proposed may still arrive.
        """
        return self.grain is Grain.CONVERSATION or (self.grain is Grain.MESSAGE and not self.is_gossiping)

    @property
    def is_gossiping(self) -> bool:
        """Greetings bring more: the membership. Who neither stands nor proposes dials, greets and hangs up."""
        return bool(self.wanted)
