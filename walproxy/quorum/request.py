"""What an operator asks of the members, and what of it is to be done next. Asking again is always safe."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from walproxy.quorum.errors import ChangeInvalid, ChangeRefused
from walproxy.quorum.membership import Membership


@dataclass(frozen=True, slots=True)
class Request:
    """`leaves` is to be no member afterwards, `comes` is; of one that lost its disk both are its name."""

    leaves: str = ""
    comes: str = ""


class Stage(enum.Enum):
    BEGIN = "begin"
    GOING_ON = "going on"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class Step:
    """What is next: to begin a change to the members `wanted`, to wait, or nothing."""

    stage: Stage
    wanted: tuple[str, ...] = ()
    says: str = ""


def next_step(
    request: Request,
    now: Membership,
    *,
    is_in_force: bool,
    known_ids: Mapping[str, bytes],
    node_id: bytes | None,
    has_moved: bool = False,
) -> Step:
    """What is to be done for that request, as the members are now.

    Args:
        request: add, remove, or replace.
        now: of the proposer.
        is_in_force: `Proposer.is_in_force`.
        known_ids: of all nodes that were ever met, by name.
        node_id: of the node that is to come, as it says; None if it does not answer.
        has_moved: it answers at another address than is known.

    Raises:
        ChangeInvalid: it makes no sense, whoever is up.
        ChangeRefused: not now.
    """
    if now.is_changing:
        return _while_changing(request, now)
    step = _when_settled(request, now, known_ids=known_ids, node_id=node_id, has_moved=has_moved)
    if step.stage is Stage.DONE and not is_in_force:
        return Step(Stage.GOING_ON, says="until a majority knows of it")
    return step


def _while_changing(request: Request, now: Membership) -> Step:
    leaves, comes = request.leaves, request.comes
    old, new = set(now.members), set(now.new_members)
    if leaves and not comes and now.is_learning and leaves in new - old:
        return Step(Stage.BEGIN, now.members, "it is not to become a member after all")
    is_leaving, is_coming = leaves in old - new, comes in new - old
    wanted = (
        is_leaving or is_coming
        if leaves == comes
        else is_leaving == bool(leaves) and is_coming == bool(comes)
    )
    if not wanted:
        raise ChangeRefused(
            "another change of the members is on: let it end first",
            members=",".join(now.members),
            becoming=",".join(now.new_members),
        )
    says = "newcomers catch up" if now.is_learning else "old and new members decide together"
    return Step(Stage.GOING_ON, says=says)


def _when_settled(
    request: Request,
    now: Membership,
    *,
    known_ids: Mapping[str, bytes],
    node_id: bytes | None,
    has_moved: bool,
) -> Step:
    leaves, comes, members = request.leaves, request.comes, now.members
    if leaves and leaves not in {*members, *known_ids} and comes not in members:
        raise ChangeInvalid("no such member", name=leaves, members=",".join(members))
    if comes and comes in members and (leaves == comes or leaves not in members):
        return _of_a_member(request, now, known_id=known_ids.get(comes), node_id=node_id, has_moved=has_moved)
    if comes in members:
        raise ChangeInvalid("both are members: remove the one that is to leave", leaves=leaves, comes=comes)
    if leaves and not comes and leaves not in members:
        return Step(Stage.DONE, says=f"{leaves} has left")
    wanted = tuple(name for name in members if name != leaves) + ((comes,) if comes else ())
    return Step(Stage.BEGIN, wanted, says="begun")


def _of_a_member(
    request: Request, now: Membership, *, known_id: bytes | None, node_id: bytes | None, has_moved: bool
) -> Step:
    """Who is to come is a member already: perhaps the very node, perhaps one that lost its disk."""
    comes, is_replaced = request.comes, request.leaves == request.comes
    if node_id is None:
        if is_replaced:
            raise ChangeRefused("the new node does not answer: start it first", name=comes)
        return Step(Stage.DONE, says=f"{comes} is a member")
    if known_id in {None, node_id}:
        if has_moved:
            return Step(Stage.BEGIN, now.members, "its address changes")
        return Step(Stage.DONE, says=f"{comes} is a member")
    if not is_replaced:
        raise ChangeInvalid(
            "a member of this name has another disk: use `walproxy member replace`", name=comes
        )
    # Its votes are lost: it leaves first, and comes back as another.
    return Step(
        Stage.BEGIN, tuple(name for name in now.members if name != comes), "the lost node leaves first"
    )
