"""Membership: who votes, under which generation; while it changes, two sets at once."""

from collections.abc import Collection
from dataclasses import dataclass


def majority(count: int) -> int:
    """How many of `count` are a quorum."""
    return count // 2 + 1


@dataclass(frozen=True, slots=True)
class Membership:
    """The voting members.

    A higher generation replaces a lower one. While the set changes, `new_members` is set as well and every
    decision
    takes a majority of both sets. Source: docs/quorum.md rules 19 and 20.
    """

    generation: int
    members: tuple[str, ...]
    new_members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.members or self.generation < 1:
            raise ValueError("a membership has members and a generation")
        for members in (self.members, self.new_members):
            if len(set(members)) != len(members) or not all(members):
                raise ValueError("a member stands twice or has no name")

    @property
    def sets(self) -> tuple[tuple[str, ...], ...]:
        """The sets whose majorities decide: one, or two while the membership changes."""
        return (self.members, self.new_members) if self.new_members else (self.members,)

    @property
    def everyone(self) -> tuple[str, ...]:
        """All names of all sets, each once."""
        return tuple(dict.fromkeys(name for members in self.sets for name in members))

    def has_quorum(self, names: Collection[str]) -> bool:
        """True if `names` hold a majority of every set."""
        return all(sum(name in names for name in members) >= majority(len(members)) for members in self.sets)
