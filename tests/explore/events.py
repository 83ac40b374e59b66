"""Events: what may befall a member, as a tuple for it and as three numbers for the native search."""

from collections.abc import Iterable

from tests.explore.numbers import Numbers
from walproxy.quorum.messages import Message

Event = tuple[object, ...]

# The native search knows the first six, by these numbers (walcore/rust/explore/src/book.rs).
KINDS = (
    *("request", "answer", "left", "hung up", "dial", "crash"),
    *("work", "stand", "write", "news", "change", "go on"),
)
_WITH_MESSAGE = {"request", "answer"}
_WITH_PEER = {*_WITH_MESSAGE, "left", "hung up", "dial"}
_WITH_NUMBER = {"crash", "stand"}


class Events:
    """Numbers kinds, members and messages."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._messages = Numbers[Message]()

    def numbers(self, event: Event) -> list[int]:
        """Its kind, peer, and a number more: a message's, of steps of disk work that are done, or a term."""
        kind, *more = event
        match more:
            case [str(peer)]:
                return [KINDS.index(str(kind)), self._names.index(peer), 0]
            case [int(number)]:
                return [KINDS.index(str(kind)), 0, number]
            case _:
                assert not more, event
                return [KINDS.index(str(kind)), 0, 0]

    def event(self, kind: int, peer: int, number: int) -> Event:
        word = KINDS[kind]
        if word in _WITH_MESSAGE:
            return (word, self._names[peer], self._messages.value(number))
        if word in _WITH_PEER:
            return (word, self._names[peer])
        return (word, number) if word in _WITH_NUMBER else (word,)

    def sent(self, messages: Iterable[tuple[str, Message]]) -> list[int]:
        """How many there are; then of each to whom it goes, and its number."""
        pairs = [(self._names.index(to), self._messages.of(message)) for to, message in messages]
        return [len(pairs), *(number for pair in pairs for number in pair)]
