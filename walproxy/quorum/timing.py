"""Timing: how long a member waits for what."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds.

    A member stands after a silence of one to two `election_timeout_s`, and steps aside when it has not heard
    from a majority for one. A commit LSN that no WAL carries is sent on after `commit_delay_s`, counted
    from the last WAL: while more comes, that brings it.
    """

    election_timeout_s: float = 1.0
    heartbeat_interval_s: float = 0.2
    commit_delay_s: float = 0.01
