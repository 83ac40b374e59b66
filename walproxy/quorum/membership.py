"""Membership: who votes, under which generation, and where each is; while it changes, two sets at once."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property


def majority(count: int) -> int:
    """How many of `count` are a quorum."""
    return count // 2 + 1


@dataclass(frozen=True, slots=True)
class Contact:
    """How the others reach a member, and which disk is its; `node_id` is empty until it was met."""

    name: str
    conninfo: str
    node_id: bytes = b""


@dataclass(frozen=True)
class Membership:
    """The members: those whose majorities decide, and those that only follow yet.

    A higher generation replaces a lower one. While the set changes, `new_members` is the set that will be;
    as long as `is_learning`, its newcomers follow without a vote; then every decision takes a majority of
    both sets. Generation 0 has no members: that of a node which waits to be added to a group.
    Source: docs/quorum.md rules 19 and 20.

    Args:
        term: of the proposer that gave it out; 0 for the first one, which the configuration gives.
        contacts: of all members; empty as long as the configuration's addresses hold.
    """

    generation: int
    members: tuple[str, ...]
    new_members: tuple[str, ...] = ()
    is_learning: bool = False
    term: int = 0
    contacts: tuple[Contact, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.members) != (self.generation > 0) or (self.new_members and not self.members):
            raise ValueError("a membership has members and a generation, or neither")
        if self.is_learning and not self.new_members:
            raise ValueError("who learns is to become a member")
        for members in (self.members, self.new_members, tuple(contact.name for contact in self.contacts)):
            if len(set(members)) != len(members) or not all(members):
                raise ValueError("a member stands twice or has no name")

    @property
    def is_changing(self) -> bool:
        return bool(self.new_members)

    @cached_property
    def sets(self) -> tuple[tuple[str, ...], ...]:
        """The sets whose majorities decide: one, or two while the membership changes."""
        is_joint = self.new_members and not self.is_learning
        return (self.members, self.new_members) if is_joint else (self.members,)

    @cached_property
    def everyone(self) -> tuple[str, ...]:
        """All names, each once, with those that only follow yet."""
        return tuple(dict.fromkeys(self.members + self.new_members))

    @cached_property
    def voters(self) -> frozenset[str]:
        return frozenset(name for members in self.sets for name in members)

    @cached_property
    def learners(self) -> frozenset[str]:
        """Those that follow and have no vote yet."""
        return frozenset(self.everyone) - self.voters

    def has_quorum(self, names: Collection[str]) -> bool:
        """True if `names` hold a majority of every set."""
        return all(sum(name in names for name in members) >= majority(len(members)) for members in self.sets)

    def contact(self, name: str) -> Contact | None:
        return next((contact for contact in self.contacts if contact.name == name), None)

    def includes(self, name: str, node_id: bytes) -> bool:
        """Whether a node of that name and id belongs to it. Source: docs/quorum.md rule 2."""
        contact = self.contact(name)
        return name in self.everyone and (contact is None or contact.node_id in {b"", node_id})


NOBODY = Membership(0, ())
