"""Steps: what one member does on one event, worked out once and remembered."""

from dataclasses import dataclass

from tests.explore.member import START, Member, after, booted, steps_of
from walproxy.quorum.errors import MessageRefused
from walproxy.quorum.messages import Message
from walproxy.quorum.proposer import Proposer, Role, WalRange

Event = tuple[object, ...]


@dataclass(frozen=True)
class Bounds:
    """How small the world is.

    `is_atomic`: a conversation on one connection is one step, however far it gets, and so is disk work.
    """

    terms: int
    positions: int
    proposers: tuple[str, ...]
    is_atomic: bool


@dataclass(frozen=True)
class View:
    """What the invariants are about."""

    name: str
    term: int  # In which it proposes; 0 if it does not.
    term_start: int
    commit: int  # By its own counting.
    log: bytes
    acceptor_commit: int
    durable: bytes


@dataclass(frozen=True)
class Step:
    """Where an event leads a member, and what it sends."""

    member: int
    requests: tuple[tuple[str, Message], ...]
    answers: tuple[tuple[str, Message], ...]
    is_refused: bool


class Steps:
    """All members ever met, each under a number."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._members: list[Member] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self._steps: dict[tuple[int, Event], Step] = {}
        self._views: dict[int, View] = {}
        self._events: dict[int, tuple[Event, ...]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def number(self, member: Member) -> int:
        key = member.key()
        found = self._numbers.get(key)
        if found is None:
            found = self._numbers[key] = len(self._members)
            self._members.append(member)
        return found

    def step(self, number: int, event: Event) -> Step:
        found = self._steps.get((number, event))
        if found is None:
            found = self._steps[number, event] = self._take(self._members[number].copied(), event)
        return found

    def view(self, number: int) -> View:
        found = self._views.get(number)
        if found is None:
            member = self._members[number]
            acceptor, proposer = member.replica.acceptor, member.replica.proposer
            found = self._views[number] = View(
                member.name,
                proposer.term if member.replica.is_proposing else 0,
                proposer.term_start_lsn,
                proposer.commit_lsn,
                member.log(),
                acceptor.commit_lsn,
                member.wal,
            )
        return found

    def is_connected(self, number: int, peer: str) -> bool:
        return self._members[number].replica.proposer.peer(peer).is_connected

    def events(self, number: int) -> tuple[Event, ...]:
        """What may befall this member by itself."""
        found = self._events.get(number)
        if found is None:
            found = self._events[number] = tuple(self._possible(self._members[number]))
        return found

    def _possible(self, member: Member) -> list[Event]:
        replica, work = member.replica, member.work
        proposer, acceptor = replica.proposer, replica.acceptor
        events: list[Event] = [("crash", steps) for steps in range(1 + (steps_of(work) if work else 0))]
        if work is not None:
            events.append(("work",))
        if member.name in self.bounds.proposers and _next_term(proposer) <= self.bounds.terms:
            events.append(("stand",))
        if replica.is_proposing:
            holds = acceptor.state.term_history.last_term == proposer.term and acceptor._scanner is not None
            if holds and acceptor.write_lsn < START + self.bounds.positions:
                events.append(("write",))
            if any(
                p.is_streaming and p.sent_commit_lsn < proposer.known_commit_lsn
                for p in proposer.peers.values()
            ):
                events.append(("news",))
        return events

    def _take(self, member: Member, event: Event) -> Step:
        requests: list[tuple[str, Message]] = []
        answers: list[tuple[str, Message]] = []
        is_refused = False
        before = member.replica.acceptor.commit_lsn
        try:
            member = self._happen(member, event, answers)
        except MessageRefused:
            is_refused = True
        self._settle(member, requests, answers)
        if event[0] != "crash":
            assert member.replica.acceptor.commit_lsn >= before, "I5: commit lsn went back"
        return Step(self.number(member), tuple(requests), tuple(answers), is_refused)

    def _happen(self, member: Member, event: Event, answers: list[tuple[str, Message]]) -> Member:
        replica = member.replica
        proposer = replica.proposer
        match event:
            case ("request", str(peer), message):
                replica.on_request(peer, message, 0.0)  # type: ignore[arg-type]
            case ("answer", str(peer), message):
                replica.on_answer(peer, message, 0.0, 0.0)  # type: ignore[arg-type]
            case ("left", str(peer)):
                replica.on_leader_lost(peer, 0.0, 0.0)
            case ("hung up", str(peer)):
                proposer.on_disconnected(peer)
            case ("dial", str(peer)):
                proposer.on_connected(peer, 0.0)
            case ("stand",):
                _stand(proposer)
            case ("write",):
                wal = bytes([proposer.term])
                replica.on_primary_wal(replica.acceptor.write_lsn, wal, 0.0)
            case ("news",):
                for name, known in proposer.peers.items():
                    if known.is_streaming and known.sent_commit_lsn < proposer.known_commit_lsn:
                        proposer._send_range(name, known, known.next_lsn, 0.0)
            case ("work",):
                self._finish(member, answers)
            case ("crash", int(steps)):
                control, wal = member.control, member.wal
                if member.work is not None:
                    control, wal = after(member.work, control, wal, steps)
                member = booted(control, wal)
            case _:
                raise AssertionError(event)
        return member

    def _finish(self, member: Member, answers: list[tuple[str, Message]]) -> None:
        work = member.work
        assert work is not None
        member.control, member.wal = after(work, member.control, member.wal)
        member.work = None
        answers += member.replica.on_done(work, 0.0, 0.0)

    def _settle(
        self, member: Member, requests: list[tuple[str, Message]], answers: list[tuple[str, Message]]
    ) -> None:
        while (ready := member.replica.ready(0.0)) is not None:
            if ready.disk is not None:
                member.work = ready.disk
            for to, request in ready.requests:
                if isinstance(request, WalRange):
                    wal = member.log()[request.start_lsn - START : request.end_lsn - START]
                    assert len(wal) == request.end_lsn - request.start_lsn
                    requests.append((to, request.with_wal(wal)))
                else:
                    requests.append((to, request))
            if ready.disk is None:
                continue
            if self.bounds.is_atomic or not steps_of(ready.disk):
                self._finish(member, answers)
            else:
                break


def _next_term(proposer: Proposer) -> int:
    return max(proposer._term_max, proposer._log.state.term) + 1


def _stand(proposer: Proposer) -> None:
    """As if all had said yes to a pre-vote, which changes nothing and only forbids."""
    proposer.become_following()
    proposer.role = Role.STANDING
    proposer.term = _next_term(proposer)
    proposer._request_votes((proposer.name,), is_pre=False)
