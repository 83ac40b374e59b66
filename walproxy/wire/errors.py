"""What can go wrong on the wire.

WireError
├── MalformedInput        text from outside is not of its form
├── LocalProtocolError    we asked for what the protocol does not allow
└── RemoteProtocolError   the peer did
"""


class WireError(Exception):
    """Base of the errors that leave the wire."""

    def __init__(self, what: str, **facts: object) -> None:
        super().__init__(" ".join([what, *(f"{name}={value}" for name, value in facts.items())]))
        self.facts = facts


class MalformedInput(WireError):
    """The text is not of its form. Tell whoever wrote it."""


class LocalProtocolError(WireError):
    """A call that the protocol does not allow now: our bug."""


class RemoteProtocolError(WireError):
    """The peer broke the protocol. Close this connection, keep the process."""
