"""Search: every world that can be reached from the first one, each looked at once.

A world is the members, what is under way on each connection, and what was promised, each as a number. Native code
walks from world to world and remembers which were met (walcore/rust/explore). It asks here what it has not met before:
what an event does to a member, and whether what a member then holds and says may be.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from tests.explore.bounds import Bounds
from tests.explore.events import Events
from tests.explore.member import booted, first
from tests.explore.native import module
from tests.explore.numbers import Numbers
from tests.explore.promises import Log, Promised, View, hold, look, serve
from tests.explore.steps import Steps
from walproxy.quorum.membership import Membership


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

    Args:
        is_loud: say on standard error how far it is.
    """

    def __init__(self, bounds: Bounds, membership: Membership, *, is_loud: bool = False) -> None:
        self.is_loud = is_loud
        self.bounds = bounds
        self.names = tuple(dict.fromkeys((*membership.everyone, *bounds.wanted)))
        self._membership = membership
        self._steps = Steps(bounds)
        self._events = Events(self.names)
        self._promises = Numbers[Promised]()
        self._views, self._logs = Numbers[View](first=1), Numbers[Log](first=1)
        self._dials = [(one, other) for one in bounds.proposers for other in self.names if one != other]
        self._answers: dict[str, Callable[..., list[int]]] = {
            "step": self._step,
            "about": self._about,
            "look": self._look,
            "hold": self._hold,
            "serve": self._serve,
            "layer": self._layer,
        }

    def run(self, states_max: int, *, threads: int = 1) -> Found:
        """Raises what a member raises, if it is no assertion."""
        proposers = [self.names.index(name) for name in self.bounds.proposers]
        members = [self._steps.number(booted(first(name, self._membership), b"")) for name in self.names]
        task = [len(members), self.bounds.grain, int(self.bounds.is_lean)]
        task += [len(proposers), *proposers, len(members), *members, self._promises.of(Promised())]
        ended = module().search(self._answer, task, states_max, threads)
        states, transitions, depth, is_complete, violation, trace = ended
        if violation is not None:
            violation = violation or "an assertion of the core"
        moves = tuple(self._move(*numbers) for numbers in trace)
        return Found(states, transitions, depth, len(self._steps), is_complete, violation or "", moves)

    def _answer(self, question: str, numbers: list[int]) -> list[int]:
        return self._answers[question](*numbers)

    # --- what it asks ----------------------------------------------------------------------------------

    def _step(self, member: int, kind: int, peer: int, number: int) -> list[int]:
        step = self._steps.step(member, self._events.event(kind, peer, number))
        sent = [*self._events.sent(step.requests), *self._events.sent(step.answers)]
        return [step.member, int(step.is_refused), *sent, len(step.torn), *step.torn]

    def _about(self, member: int) -> list[int]:
        about = self._steps.about(member)
        dials, connected = [
            sum(1 << place for place, name in enumerate(self.names) if name in names)
            for names in (about.dials, about.connected)
        ]
        view = self._views.of(about.view) if about.view else 0
        events = [number for event in about.events for number in self._events.numbers(event)]
        return [
            dials,
            connected,
            int(about.is_quiet),
            view,
            self._logs.of(about.log),
            len(about.events),
            *events,
        ]

    def _look(self, view: int, promised: int) -> list[int]:
        now, commits_more = look(self._views.value(view), self._promises.value(promised))
        return [self._promises.of(now), int(commits_more)]

    def _hold(self, view: int, *logs: int) -> list[int]:
        hold(self._views.value(view), [self._logs.value(log) for log in logs if log])
        return [0]

    def _serve(self, log: int, promised: int) -> list[int]:
        serve(self._logs.value(log), self._promises.value(promised))
        return [0]

    def _layer(self, depth: int, high: int, low: int) -> list[int]:
        if self.is_loud:
            print(
                f"depth {depth}: {high << 32 | low} states, {len(self._steps)} of one member", file=sys.stderr
            )
        return [0]

    # --- how it ended ----------------------------------------------------------------------------------

    def _move(self, kind: int, place: int, *more: int) -> str:
        """In words. The kinds are those of `Move` (walcore/rust/explore/src/moves.rs)."""
        if kind == 0:
            *event, torn = more
            return f"{self.names[place]} {self._events.event(*event)}{_torn(torn)}"
        one, other = self._dials[place]
        if kind <= 4:
            words = (
                "",
                f"request {one} {other}",
                f"answer {other} {one}",
                f"dial {one} {other}",
                f"cut {one} {other}",
            )
            return words[kind] + _torn(sum(more))
        most, torn = more[0], sum(more[1:])
        ends = ("", ", answer lost", f", {other}: ", f", {one}: ")
        return f"talk {one} {other} {most}{ends[kind - 5]}{_torn(torn)}"


def _torn(torn: int) -> str:
    return f", crash amidst its disk work ({torn})" if torn else ""
