"""Peer: what the proposer knows of a member."""

from dataclasses import dataclass, field

from walproxy.quorum.messages import Feedback, Greeting, SlotHorizon
from walproxy.wire.lsn import INVALID_LSN, Lsn

_NEVER_S = float("-inf")


@dataclass(slots=True)
class Peer:
    """What the proposer knows of a member.

    Invariant: flush_lsn counts for this term only; INVALID_LSN until the member has taken our Elected.
    """

    is_connected: bool = False
    greeting: Greeting | None = None
    is_streaming: bool = False
    is_lent: bool = False  # The native lane sends it the WAL.
    told_entries: int = 0  # Of our term history.
    next_lsn: Lsn = INVALID_LSN
    write_lsn: Lsn = INVALID_LSN
    flush_lsn: Lsn = INVALID_LSN
    generation: int = 0  # On its disk when it said so.
    # Last flush ever heard of, of whatever term: below it the member needs no WAL.
    held_lsn: Lsn = INVALID_LSN
    heard_s: float = _NEVER_S
    sent_s: float = _NEVER_S
    is_stuck: bool = False  # It has said nothing for long, though its connection stands.
    sent_commit_lsn: Lsn = INVALID_LSN
    feedback: Feedback = field(default_factory=Feedback)
    slots: tuple[SlotHorizon, ...] = ()
    refused: str = ""
