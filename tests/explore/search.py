"""Search: every world that can be reached from the first one, each looked at once."""

from collections import deque
from dataclasses import dataclass

from tests.explore.member import START, booted, first
from tests.explore.steps import Bounds, Event, Steps, View
from walproxy.quorum.membership import Membership
from walproxy.quorum.messages import Message

_TRACED_MAX = 2_000_000


@dataclass(frozen=True)
class Promised:
    """What was promised so far: who was elected with which log, and what was committed."""

    elections: tuple[tuple[int, str, bytes], ...] = ()
    commits: tuple[tuple[int, int], ...] = ()  # (term, end)
    committed: bytes = b""


class Numbers:
    """A number for each value ever met."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self.values: list[object] = []

    def of(self, value: object) -> int:
        found = self._numbers.setdefault(value, len(self.values))
        if found == len(self.values):
            self.values.append(value)
        return found


# The numbers of the members, of the channels' contents, and of what was promised.
World = tuple[int, ...]


@dataclass
class Found:
    """How a search ended."""

    states: int
    transitions: int
    depth: int
    members: int
    is_complete: bool
    violation: str = ""
    trace: tuple[str, ...] = ()


class Search:
    """Breadth first.

    A connection brings its messages in order; it may be cut at any time, with all that is under way, and made
    anew. Each way of it is a channel.
    """

    def __init__(self, bounds: Bounds, membership: Membership) -> None:
        self.bounds = bounds
        self.names = membership.everyone
        self._membership = membership
        self._steps = Steps(bounds)
        self._messages, self._promises = Numbers(), Numbers()
        self._dials = [(one, other) for one in bounds.proposers for other in self.names if one != other]
        ways = [(one, other, True) for one, other in self._dials]
        ways += [(other, one, False) for one, other in self._dials]
        self._ways = ways
        self._at = {way: len(self.names) + index for index, way in enumerate(ways)}
        self._place = {name: index for index, name in enumerate(self.names)}
        self._empty = self._messages.of(())

    # --- from world to world ---------------------------------------------------------------------------

    def first(self) -> World:
        world = [self._steps.number(booted(first(name, self._membership), b"")) for name in self.names]
        world += [self._empty] * len(self._ways) + [self._promises.of(Promised())]
        for name in self.bounds.proposers:
            self._do(world, name, ("crash", 0))
        return tuple(world)

    def successors(self, world: World) -> list[tuple[str, World]]:
        found: list[tuple[str, World]] = []
        for name in self.names:
            for event in self._steps.events(world[self._place[name]]):
                made = list(world)
                if event[0] == "crash":
                    self._crash(made, name, event)
                else:
                    self._do(made, name, event)
                found.append((f"{name} {event}", tuple(made)))
        for way in self._ways:
            if world[self._at[way]] != self._empty and not self.bounds.is_atomic:
                made = list(world)
                self._deliver(made, way)
                found.append((f"deliver {way}", tuple(made)))
        for one, other in self._dials:
            waiting = [self._at[one, other, True], self._at[other, one, False]]
            is_connected = self._steps.is_connected(world[self._place[one]], other)
            if self.bounds.is_atomic:
                found += self._talks(world, one, other)
            elif not is_connected:
                made = list(world)
                self._do(made, one, ("dial", other))
                found.append((f"dial {one} {other}", tuple(made)))
            if is_connected and any(world[at] != self._empty for at in waiting):
                made = list(world)
                self._cut(made, one, other)
                found.append((f"cut {one} {other}", tuple(made)))
        return found

    def _talks(self, world: World, one: str, other: str) -> list[tuple[str, World]]:
        """All that two have to say to each other, or the beginning of it, perhaps without the last answer."""
        found: list[tuple[str, World]] = []
        made = list(world)
        count = self._talk(made, one, other)
        if count:
            found.append((f"talk {one} {other}", tuple(made)))
        for most in range(1, count + 1):
            for loses_answer in (False, True):
                if most == count and not loses_answer:
                    continue
                made = list(world)
                self._talk(made, one, other, most=most, loses_answer=loses_answer)
                found.append((f"talk {one} {other} {most}{', answer lost' * loses_answer}", tuple(made)))
        return found

    def _talk(
        self, world: list[int], one: str, other: str, *, most: int = 99, loses_answer: bool = False
    ) -> int:
        if not self._steps.is_connected(world[self._place[one]], other):
            self._do(world, one, ("dial", other))
        way = (one, other, True)
        count = 0
        while world[self._at[way]] != self._empty:
            count += 1
            self._deliver(world, way, loses_answer=loses_answer and count == most)
            if count == most:
                if not loses_answer:
                    self._cut(world, one, other)
                break
        return count

    def _do(self, world: list[int], name: str, event: Event, *, loses_answers: bool = False) -> bool:
        place = self._place[name]
        step = self._steps.step(world[place], event)
        is_new = step.member != world[place]
        world[place] = step.member
        for to, message in step.requests:
            self._put(world, (name, to, True), message)
        if is_new:
            self._look(world, name)
        for to, message in () if loses_answers else step.answers:
            if (to, name) in self._dials:
                if self.bounds.is_atomic:
                    if self._do(world, to, ("answer", name, message)):
                        self._cut(world, to, name)
                else:
                    self._put(world, (name, to, False), message)
        return step.is_refused

    def _put(self, world: list[int], way: tuple[str, str, bool], message: Message) -> None:
        at = self._at[way]
        world[at] = self._messages.of((*self._channel(world[at]), message))

    def _channel(self, number: int) -> tuple[Message, ...]:
        channel = self._messages.values[number]
        assert isinstance(channel, tuple)
        return channel

    def _deliver(self, world: list[int], way: tuple[str, str, bool], *, loses_answer: bool = False) -> None:
        sender, to, is_request = way
        message, *rest = self._channel(world[self._at[way]])
        world[self._at[way]] = self._messages.of(tuple(rest))
        kind = "request" if is_request else "answer"
        is_refused = self._do(world, to, (kind, sender, message), loses_answers=loses_answer)
        if is_refused or loses_answer:
            self._cut(world, *((sender, to) if is_request else (to, sender)))

    def _cut(self, world: list[int], one: str, other: str) -> None:
        self._clear(world, one, other)
        self._do(world, other, ("left", one))
        self._do(world, one, ("hung up", other))

    def _clear(self, world: list[int], one: str, other: str) -> None:
        world[self._at[one, other, True]] = world[self._at[other, one, False]] = self._empty

    def _crash(self, world: list[int], name: str, event: Event) -> None:
        for one, other in self._dials:
            if name in {one, other}:
                self._clear(world, one, other)
        self._do(world, name, event)
        for one, other in self._dials:
            if one == name:
                self._do(world, other, ("left", one))
            elif other == name:
                self._do(world, one, ("hung up", other))

    # --- what must hold --------------------------------------------------------------------------------

    def _look(self, world: list[int], name: str) -> None:
        """Numbers are those of docs/quorum.md, "Invariants"."""
        view = self._steps.view(world[self._place[name]])
        promised = self._promises.values[world[-1]]
        assert isinstance(promised, Promised)
        if view.term:
            promised = self._look_at_proposer(world, view, promised)
            world[-1] = self._promises.of(promised)
        if view.acceptor_commit:
            size = view.acceptor_commit - START
            assert size <= len(promised.committed), "I4: serves what is not committed"
            assert view.durable[:size] == promised.committed[:size], "I2, I4: serves other bytes"

    def _look_at_proposer(self, world: list[int], view: View, promised: Promised) -> Promised:
        elections, commits, committed = promised.elections, promised.commits, promised.committed
        heads = {term: (name, head) for term, name, head in elections}
        head = view.log[: view.term_start - START]
        if view.term not in heads:
            elections = tuple(sorted((*elections, (view.term, view.name, head))))
            for term, end in commits:
                if term < view.term:
                    wanted = committed[: end - START]
                    assert head[: len(wanted)] == wanted, "I3: elected without committed wal"
        else:
            assert heads[view.term] == (view.name, head), "I1: two proposers of one term"
        before = dict(commits).get(view.term, 0)
        if view.commit > before:
            size = view.commit - START
            wal = view.log[:size]
            assert len(wal) == size, "I4: commits more than it has"
            both = min(size, len(committed))
            assert wal[:both] == committed[:both], "I2: two bytes at one lsn"
            committed += wal[both:]
            commits = tuple(sorted({**dict(commits), view.term: view.commit}.items()))
            views = [self._steps.view(world[place]) for place in range(len(self.names))]
            holders = [v.name for v in views if v.durable[:size] == wal]
            assert self._membership.has_quorum(holders), "I3: committed, but not on a quorum"
            for term, (_, later) in heads.items():
                assert term <= view.term or later[:size] == wal, (
                    "I3: committed after a later election without it"
                )
        return Promised(elections, commits, committed)

    # --- the search ------------------------------------------------------------------------------------

    def run(self, states_max: int) -> Found:
        start = self.first()
        parents: dict[World, tuple[World, str] | None] = {start: None}
        queue = deque([(start, 0)])
        transitions = depth = 0
        while queue:
            if len(parents) > states_max:
                return Found(len(parents), transitions, depth, len(self._steps), is_complete=False)
            world, depth = queue.popleft()
            try:
                for label, made in self.successors(world):
                    transitions += 1
                    if made not in parents:
                        # A trace costs memory: of a large world only its beginning is kept.
                        parents[made] = (world, label) if len(parents) < _TRACED_MAX else None
                        queue.append((made, depth + 1))
            except AssertionError as error:
                trace = self._trace(parents, world)
                why = str(error) or "an assertion of the core"
                return Found(len(parents), transitions, depth, len(self._steps), False, why, trace)
        return Found(len(parents), transitions, depth, len(self._steps), is_complete=True)

    @staticmethod
    def _trace(parents: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
        labels: list[str] = []
        while (parent := parents[world]) is not None:
            world, label = parent
            labels.append(label)
        return tuple(reversed(labels))
