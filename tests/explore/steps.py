"""Steps: what one member does on one event, worked out once and remembered."""

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.explore.bounds import Bounds, Grain
from tests.explore.events import Event
from tests.explore.member import START, Member, after, booted, steps_of
from tests.explore.plain import plain_answer, plain_request
from tests.explore.promises import Log, View
from walproxy.quorum.errors import ChangeRefused, MessageRefused
from walproxy.quorum.membership import Contact
from walproxy.quorum.messages import Message
from walproxy.quorum.proposer import Proposer
from walproxy.quorum.role import Role
from walproxy.quorum.state import ControlState
from walproxy.quorum.walrange import WalRange


@dataclass(frozen=True)
class Step:
    """Where an event leads a member, and what it sends.

    `torn`: the members that it is instead if it crashes amidst the disk work.
    """

    member: int
    is_refused: bool
    requests: tuple[tuple[str, Message], ...]
    answers: tuple[tuple[str, Message], ...]
    torn: tuple[int, ...] = ()


@dataclass(frozen=True)
class About:
    """What can be said of a member by itself: also whom it may dial, to whom it has a
    connection, and whether it has none but while it greets."""

    dials: frozenset[str]
    connected: frozenset[str]
    is_quiet: bool
    view: View | None
    log: Log
    events: tuple[Event, ...]


class Steps:
    """All members ever met, each under a number."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self._members: list[Member] = []
        self._numbers: dict[tuple[object, ...], int] = {}

    def __len__(self) -> int:
        return len(self._members)

    def number(self, member: Member) -> int:
        found = self._numbers.setdefault(member.key(), len(self._members))
        if found == len(self._members):
            self._members.append(member)
        return found

    def about(self, number: int) -> About:
        member = self._members[number]
        replica, acceptor, proposer = member.replica, member.replica.acceptor, member.replica.proposer
        view = None
        if replica.is_proposing:
            view = View(
                member.name,
                proposer.term,
                proposer.term_start_lsn,
                proposer.commit_lsn,
                member.log(),
                acceptor.state.membership,
            )
        connected = frozenset(name for name, peer in proposer.peers.items() if peer.is_connected)
        log = Log(member.name, member.wal, acceptor.commit_lsn)
        is_quiet = self.bounds.is_lean and proposer.role is Role.FOLLOWING
        dials = frozenset(() if is_quiet and not self.bounds.is_gossiping else replica.peers_to_dial)
        return About(dials, connected, is_quiet, view, log, tuple(self._possible(member)))

    def step(self, number: int, event: Event) -> Step:
        """Raises AssertionError."""
        return self._take(self._members[number].copied(), event)

    def _possible(self, member: Member) -> list[Event]:
        replica, work = member.replica, member.work
        proposer, acceptor = replica.proposer, replica.acceptor
        events: list[Event] = [("crash", steps) for steps in range(1 + (steps_of(work) if work else 0))]
        if work is not None:
            events.append(("work",))
        if member.name in self.bounds.proposers and acceptor.is_voter:
            lowest = _next_term(proposer)
            highest = self.bounds.terms if self.bounds.is_lean else min(lowest, self.bounds.terms)
            events += [("stand", term) for term in range(lowest, highest + 1)]
        if replica.is_proposing:
            holds = acceptor.state.term_history.last_term == proposer.term and acceptor._scanner is not None
            if holds and acceptor.write_lsn < START + self.bounds.positions:
                events.append(("write",))
            if any(
                p.is_streaming and p.sent_commit_lsn < proposer.known_commit_lsn
                for p in proposer.peers.values()
            ):
                events.append(("news",))
            for word in ("change", "go on") if self.bounds.wanted else ():
                if self._changes(member, word):
                    events.append((word,))
        return events

    def _changes(self, member: Member, word: str) -> bool:
        made = member.copied()
        try:
            self._happen(made, (word,), _Out())
        except ChangeRefused:
            return False
        return made.replica.acceptor.generation != member.replica.acceptor.generation

    def _take(self, member: Member, event: Event) -> Step:
        out = _Out()
        is_refused = False
        before = member.replica.acceptor.commit_lsn
        try:
            member = self._happen(member, event, out)
        except MessageRefused:
            is_refused = True
        self._settle(member, out)
        if self.bounds.is_lean:
            self._hang_up(member, event)
        if event[0] != "crash":
            assert member.replica.acceptor.commit_lsn >= before, "I5: commit lsn went back"
        number = self.number(member)
        torn = tuple(dict.fromkeys(self.number(booted(*disk)) for disk in out.disks))
        requests = tuple((to, self.plain(message, plain_request)) for to, message in out.requests)
        answers = tuple((to, self.plain(message, plain_answer)) for to, message in out.answers)
        return Step(number, is_refused, requests, answers, torn)

    def plain(self, message: Message, how: Callable[[Message], Message]) -> Message:
        """As it is kept while it is under way."""
        return how(message)

    def _hang_up(self, member: Member, event: Event) -> None:
        """What it has heard of terms it may have heard from anyone. Source: `Bounds.is_lean`."""
        proposer = member.replica.proposer
        proposer._term_max = member.replica.acceptor.state.term
        is_greeting = self.bounds.is_gossiping and event[0] in {"dial", "answer"}
        if proposer.role is Role.FOLLOWING and not is_greeting:
            proposer.peers = {}

    def _happen(self, member: Member, event: Event, out: "_Out") -> Member:
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
            case ("stand", int(term)):
                if self.bounds.is_lean:
                    proposer.peers = {}
                _stand(proposer, term)
            case ("write",):
                wal = bytes([proposer.term])
                replica.on_primary_wal(replica.acceptor.write_lsn, wal, 0.0)
            case ("news",):
                for name, known in proposer.peers.items():
                    if known.is_streaming and known.sent_commit_lsn < proposer.known_commit_lsn:
                        proposer._send_range(name, known, known.next_lsn, 0.0)
            case ("change",):
                _hear_all(proposer)
                contacts = tuple(
                    Contact(name, "", name.encode())
                    for name in dict.fromkeys(
                        (*replica.acceptor.state.membership.everyone, *self.bounds.wanted)
                    )
                )
                if replica.acceptor.generation == 1:
                    replica.change_members(self.bounds.wanted, contacts, 0.0)
            case ("go on",):
                _hear_all(proposer)
                proposer._maybe_continue_change(0.0)
            case ("work",):
                self._finish(member, out)
            case ("crash", int(steps)):
                control, wal = member.control, member.wal
                if member.work is not None:
                    control, wal = after(member.work, control, wal, steps)
                member = booted(control, wal)
            case _:
                raise AssertionError(event)
        return member

    def _finish(self, member: Member, out: "_Out") -> None:
        work = member.work
        assert work is not None
        member.control, member.wal = after(work, member.control, member.wal)
        member.work = None
        out.answers += member.replica.on_done(work, 0.0, 0.0)

    def _settle(self, member: Member, out: "_Out") -> None:
        begun_with = member.control, member.wal
        while (ready := member.replica.ready(0.0)) is not None:
            if ready.disk is not None:
                member.work = ready.disk
            for to, request in ready.requests:
                if isinstance(request, WalRange):
                    wal = member.log()[request.start_lsn - START : request.end_lsn - START]
                    assert len(wal) == request.end_lsn - request.start_lsn
                    out.requests.append((to, request.with_wal(wal)))
                else:
                    out.requests.append((to, request))
            if ready.disk is None:
                continue
            if self.bounds.grain is Grain.WRITE and steps_of(ready.disk):
                break
            for steps in range(steps_of(ready.disk)):
                out.disks.append(after(ready.disk, member.control, member.wal, steps))
            self._finish(member, out)
        out.disks = [disk for disk in out.disks if disk not in (begun_with, (member.control, member.wal))]


@dataclass
class _Out:
    """What comes of an event beside the member; `disks` are those that a crash amidst the work would leave."""

    requests: list[tuple[str, Message]] = field(default_factory=list)
    answers: list[tuple[str, Message]] = field(default_factory=list)
    disks: list[tuple[ControlState, bytes]] = field(default_factory=list)


def _next_term(proposer: Proposer) -> int:
    return max(proposer._term_max, proposer._log.state.term) + 1


def _stand(proposer: Proposer, term: int) -> None:
    """As if all had said yes to a pre-vote, which changes nothing and only forbids."""
    proposer.become_following()
    proposer.role = Role.STANDING
    proposer.term = term
    proposer._request_votes((proposer.name,), is_pre=False)


def _hear_all(proposer: Proposer) -> None:
    """Anyone may just have been heard of."""
    for name in proposer.others:
        proposer.peer(name).heard_s = 0.0
