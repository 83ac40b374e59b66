"""Faults: how bad a world is. Each seed draws its own mixture, so that rare kinds also meet alone."""

from dataclasses import dataclass
from random import Random

NEVER_S = 1e9


@dataclass(frozen=True)
class Faults:
    """Probabilities are per message or per action; `*_every_s` are mean times between two of a kind."""

    lose: float = 0.0
    duplicate: float = 0.0
    straggle: float = 0.0  # Delayed much longer, so that others overtake it.
    delay_max_s: float = 0.01
    sync_max_s: float = 0.005
    write_every_s: float = 0.03
    kill_every_s: float = NEVER_S  # The process ends; what it wrote stays in the page cache.
    power_every_s: float = NEVER_S  # The machine ends; unsynced sectors are kept, lost or torn.
    cut_every_s: float = NEVER_S  # One or both ways between two nodes.
    slow_disk_every_s: float = NEVER_S
    full_disk_every_s: float = NEVER_S
    primary_crash_every_s: float = NEVER_S
    promotion_every_s: float = NEVER_S
    membership_every_s: float = NEVER_S
    transfer_every_s: float = NEVER_S
    seal_every_s: float = NEVER_S  # Half of the seals are taken back, at the others a standby is promoted.
    fail_sync: float = 0.0
    bad_wal: float = 0.0
    early_promotion: float = 0.0  # Of promotions, those of a standby that may lack something.
    lose_disk: float = 0.0  # Once: a member comes back under its name with an empty disk.


def drawn(rng: Random, *, with_membership: bool | None = None) -> Faults:
    """A mixture: each kind is there or not, and if it is, now seldom, now often.

    Args:
        with_membership: True or False: the membership changes, or does not; None: as drawn.
    """

    def some(chance: float, most: float) -> float:
        return most * rng.random() ** 2 if rng.random() < chance else 0.0

    def every(chance: float, least_s: float, most_s: float) -> float:
        return least_s + (most_s - least_s) * rng.random() if rng.random() < chance else NEVER_S

    change_every_s = every(0.2, 0.5, 3.0)
    if with_membership is not None:
        change_every_s = 0.5 + 1.5 * rng.random() if with_membership else NEVER_S
    return Faults(
        lose=some(0.6, 0.1),
        duplicate=some(0.5, 0.1),
        straggle=some(0.5, 0.15),
        delay_max_s=rng.choice((0.005, 0.02, 0.06)),
        sync_max_s=rng.choice((0.002, 0.02, 0.06)),
        write_every_s=rng.choice((0.02, 0.04, 0.1)),
        kill_every_s=every(0.5, 0.6, 4.0),
        power_every_s=every(0.7, 0.6, 4.0),
        cut_every_s=every(0.6, 0.5, 4.0),
        slow_disk_every_s=every(0.3, 1.0, 5.0),
        full_disk_every_s=every(0.3, 1.0, 5.0),
        primary_crash_every_s=every(0.4, 0.8, 5.0),
        promotion_every_s=every(0.4, 0.8, 4.0),
        membership_every_s=change_every_s,
        transfer_every_s=every(0.3, 0.2, 2.0),
        seal_every_s=every(0.3, 0.5, 3.0),
        fail_sync=some(0.3, 0.02),
        bad_wal=some(0.3, 0.05),
        early_promotion=rng.choice((0.0, 0.3, 1.0)),
        # Of three members one is lost for good then: while members come and go, another quorum may miss it.
        lose_disk=rng.choice((0.0, 0.0, 1.0)) if change_every_s == NEVER_S else 0.0,
    )


def healed(faults: Faults) -> Faults:
    """Nothing fails any more."""
    return Faults(write_every_s=faults.write_every_s)
