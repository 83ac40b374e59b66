"""Hand-overs: the proposer leaves its place to another, or a term begins with the log ended or opened."""

from collections.abc import Mapping
from dataclasses import dataclass

from walproxy.quorum.errors import HandoverRefused
from walproxy.quorum.messages import PROTOCOL_VERSION
from walproxy.quorum.peer import Peer
from walproxy.wire.lsn import INVALID_LSN


@dataclass(frozen=True, slots=True)
class Successor:
    """The member that is to lead next; whether it was told to stand yet."""

    name: str
    until_s: float
    is_told: bool = False


def choose_successor(peers: Mapping[str, Peer], own_name: str, to: str | None) -> str:
    """The member to hand over to. Source: docs/quorum.md rule 27.

    Args:
        peers: all members, as the proposer knows them.
        own_name: the proposer's.
        to: the one that was asked for; None for the one that holds most.

    Raises:
        HandoverRefused: there is none that could take over.
    """
    fit = {
        name: peer
        for name, peer in peers.items()
        if name != own_name and peer.is_connected and peer.is_streaming and peer.flush_lsn != INVALID_LSN
    }
    if to is not None:
        if to == own_name:
            raise HandoverRefused(f"{to} is the proposer already")
        if to not in fit:
            why = peers[to].refused if to in peers else ""
            raise HandoverRefused(f"{to} does not follow: {why or 'see walproxy status'}")
        fit = {to: fit[to]}
    if not fit:
        raise HandoverRefused("no other member follows: see walproxy status")
    chosen = max(sorted(fit), key=lambda name: fit[name].flush_lsn)
    check_versions({chosen: fit[chosen]})
    return chosen


def check_versions(peers: Mapping[str, Peer]) -> None:
    """What the older protocol version cannot say must not be said. Source: docs/quorum.md rule 1.

    Raises:
        HandoverRefused: a member that is connected is not upgraded yet.
    """
    older = sorted(
        name
        for name, peer in peers.items()
        if peer.is_connected and peer.greeting and peer.greeting.version < PROTOCOL_VERSION
    )
    if older:
        raise HandoverRefused(f"upgrade these first, they speak an older protocol: {', '.join(older)}")
