"""What can go wrong between proposer and acceptor.

QuorumError
├── MessageMalformed   bytes are not a message of ours
├── MessageRefused     a message that a rule of docs/quorum.md forbids
│   └── IdentityRefused  the other side is not, or no longer, who it says
│       └── NotAMember   it does not belong to the group, as far as we know
├── PrimaryRefused     the primary's WAL does not extend the quorum's log
│   └── LogSealed        it would, but the log was ended
├── HandoverRefused    what an operator asks for cannot be done now
├── ChangeRefused      a change of the members cannot be made now
│   └── ChangeInvalid    nor at any other time
└── LogDamaged         our own durable state contradicts itself
"""


class QuorumError(Exception):
    """Base of the errors that leave the consensus core."""

    def __init__(self, what: str, **facts: object) -> None:
        super().__init__(" ".join([what, *(f"{name}={value}" for name, value in facts.items())]))
        self.facts = facts


class MessageMalformed(QuorumError):
    """Bytes that are no message of ours. Count it, close the connection, keep the process."""


class MessageRefused(QuorumError):
    """A rule forbids it; state is unchanged. Count it, log it once, close the connection."""


class IdentityRefused(MessageRefused):
    """The peer belongs to another cluster, or lost what made it that member. A person must look."""


class NotAMember(IdentityRefused):
    """The peer does not belong to the group, or not any more. A membership that it brought is kept."""


class ChangeRefused(QuorumError):
    """A change of the members cannot be made now, or not here. Nothing was changed; the message says why."""


class ChangeInvalid(ChangeRefused):
    """A change of the members makes no sense. Nothing was changed."""


class PrimaryRefused(QuorumError):
    """The primary's WAL does not extend the quorum's log. Keep the log, leave the primary, show `advice`."""

    def __init__(self, what: str, *, advice: str, **facts: object) -> None:
        super().__init__(what, **facts)
        self.advice = advice


class LogSealed(PrimaryRefused):
    """The log ends where it was sealed. Look again soon: the next primary may be there."""


class HandoverRefused(QuorumError):
    """What an operator asks for cannot be done now; nothing was changed. The message says why."""


class LogDamaged(QuorumError):
    """What is on our own disk contradicts itself. Stop; a person must act."""
