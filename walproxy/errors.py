"""What ends or refuses something in walproxy, and what the process makes of it.

WalproxyError (exit code 2)
├── ConfigInvalid       1  a setting is wrong or missing
├── DataDamaged         3  our own files are not what was written
├── Poisoned            4  a write or a sync failed
├── WalFull                the space for WAL is used up
├── WalRemoved             WAL that was asked for is gone
├── PrimaryUnreachable     no connection to the primary, or it ended
│   └── SlotActive         the slot is still held by another connection
├── NotReady               nothing to serve yet
└── Refused                the group says no
"""


class WalproxyError(Exception):
    """Base. `exit_code` is what the process ends with if nobody handles it."""

    exit_code = 2

    def __init__(self, what: str, **facts: object) -> None:
        super().__init__(" ".join([what, *(f"{name}={value}" for name, value in facts.items())]))
        self.facts = facts


class ConfigInvalid(WalproxyError):
    """A setting is wrong or missing; the message names the key. Mend it and start again."""

    exit_code = 1


class DataDamaged(WalproxyError):
    """Our own files fail their checks. Stop; the message says what a person can do."""

    exit_code = 3


class Poisoned(WalproxyError):
    """A write or sync failed. Never retry it; reply no more; stop; read what is there at the next start."""

    exit_code = 4


class WalFull(WalproxyError):
    """The space for WAL is used up. Take no more until a consumer lets go of some; serve what is there."""


class WalRemoved(WalproxyError):
    """That WAL is no longer there. Look elsewhere, or start anew from a base backup."""


class PrimaryUnreachable(WalproxyError):
    """The primary does not answer, or not as it should. Wait, connect again."""


class SlotActive(PrimaryUnreachable):
    """The slot is held by a connection that has not ended yet. Retry soon."""


class NotReady(WalproxyError):
    """No WAL yet, or no proposer. Ask again later, or another node."""


class Refused(WalproxyError):
    """The group does not do what was asked, and says why. Nothing was changed, unless the message says so."""
