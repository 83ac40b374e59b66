"""Frozen members: a replica with its disk as a value that can be kept, compared and brought back to life."""

import copy
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from walproxy.quorum.acceptor import Acceptor, DiskWork
from walproxy.quorum.membership import NOBODY, Membership
from walproxy.quorum.messages import Greeting
from walproxy.quorum.peer import Peer
from walproxy.quorum.primary import PrimaryIdentity
from walproxy.quorum.proposer import Proposer
from walproxy.quorum.replica import Replica
from walproxy.quorum.role import Role
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.quorum.timing import Timing
from walproxy.wire.lsn import INVALID_LSN, Lsn

CLUSTER = Cluster(system_id=7, segment_size=16, major=18)
START = Lsn(16)
PRIMARY = PrimaryIdentity(CLUSTER, 1, START, START, "explore")
_NEVER_S = float("-inf")
Thing = TypeVar("Thing")
_TIMES = {"_patience_s": 1.0, "_stand_s": 0.0, "_quorum_s": 0.0, "_commit_due_s": None}
_NOT_STATE = {"_log", "_histories", "_timing", "_make_scanner"}


class ByteScanner:
    """Each byte is a record."""

    def __init__(self, start_lsn: int) -> None:
        self.record_end_lsn = start_lsn
        self.last_record_lsn = 0

    def feed(self, wal: bytes) -> None:
        self.record_end_lsn += len(wal)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByteScanner) and hash(self) == hash(other)

    def __hash__(self) -> int:
        return hash(self.record_end_lsn)


def make_scanner(start_lsn: Lsn, *, prev_lsn: Lsn, cluster: Cluster) -> ByteScanner:
    assert cluster == CLUSTER
    assert prev_lsn == INVALID_LSN
    return ByteScanner(start_lsn)


@dataclass
class Member:
    """A replica, its disk, and the work on it that is not done yet."""

    replica: Replica
    control: ControlState
    wal: bytes
    work: DiskWork | None = None

    @property
    def name(self) -> str:
        return self.replica.name

    def copied(self) -> "Member":
        """One that may be changed without changing this one."""
        acceptor, proposer = _twin(self.replica.acceptor), _twin(self.replica.proposer)
        proposer._log = acceptor
        proposer.peers = {name: copy.copy(peer) for name, peer in proposer.peers.items()}
        acceptor._scanner = copy.copy(acceptor._scanner)
        replica = _twin(self.replica)
        replica.acceptor, replica.proposer = acceptor, proposer
        return Member(replica, self.control, self.wal, self.work)

    def key(self) -> tuple[object, ...]:
        """Equal for members that will behave alike: what is never looked at again is forgotten first."""
        self.forget_times()
        self._forget()
        acceptor, proposer = self.replica.acceptor, self.replica.proposer
        peers = [
            (name, *(getattr(peer, field.name) for field in _PEER_FIELDS))
            for name, peer in proposer.peers.items()
        ]
        return (
            *_values(acceptor),
            *_values(proposer, without={"peers"}),
            tuple(peers),
            self.control,
            self.wal,
            self.work,
            self.replica.has_disk_work_out,
        )

    def forget_times(self) -> None:
        """Times decide when something happens; here everything may happen at any time."""
        acceptor, proposer = self.replica.acceptor, self.replica.proposer
        acceptor.leader_heard_s = acceptor._answered_s = _NEVER_S
        for name, value in _TIMES.items():
            setattr(proposer, name, value)
        for peer in proposer.peers.values():
            peer.heard_s = peer.sent_s = _NEVER_S

    def _forget(self) -> None:
        acceptor, proposer = self.replica.acceptor, self.replica.proposer
        acceptor.last_record_lsn = acceptor.restart_lsn = INVALID_LSN
        acceptor._saved_commit_lsn = acceptor.commit_lsn  # No log here is a segment long.
        acceptor.horizon_lsn = proposer.told_horizon_lsn = INVALID_LSN
        if acceptor.leader != self.name:
            acceptor.leader = ""  # Not heard any more, times being what they are.
        proposer.primary = PRIMARY
        if proposer.role is Role.PROPOSING:
            proposer._granted = set()
        else:
            proposer.term_start_lsn = proposer.commit_lsn = INVALID_LSN
            proposer.term_history = TermHistory()
        if proposer.role is Role.FOLLOWING:
            proposer.term = 0
        proposer._term_max = max(proposer._term_max, acceptor.state.term)
        for peer in proposer.peers.values():
            peer.held_lsn, peer.refused = INVALID_LSN, ""
            peer.write_lsn = INVALID_LSN  # No window is ever full.
            if peer.greeting is not None:
                peer.greeting = _GREETED  # What it says is used when it comes.
            if not peer.is_streaming:
                peer.next_lsn = peer.sent_commit_lsn = INVALID_LSN
                peer.told_entries = 0
        # Of whom nothing is known there need be no entry.
        proposer.peers = {name: peer for name, peer in sorted(proposer.peers.items()) if peer != _UNKNOWN}

    def log(self) -> bytes:
        """All of it, what is not on disk yet included."""
        acceptor = self.replica.acceptor
        wal = self.wal[: max(0, acceptor._stored_lsn - START)]
        if self.work is not None:
            wal = after(self.work, self.control, self.wal)[1][: max(0, acceptor._stored_lsn - START)]
        return wal + b"".join(write.wal for write in acceptor._wal)


_GREETED = Greeting(
    1,
    "",
    b"",
    Membership(1, ("a",)),
    0,
    INVALID_LSN,
    INVALID_LSN,
    INVALID_LSN,
    INVALID_LSN,
    TermHistory(),
    None,
)
_UNKNOWN = Peer()
_PEER_FIELDS = [field for field in fields(Peer) if field.name not in {"heard_s", "sent_s"}]


def _twin(thing: Thing) -> Thing:
    made = copy.copy(thing)
    for name, value in vars(made).items():
        if isinstance(value, (list, set, dict)):
            setattr(made, name, value.copy())
    return made


def _values(thing: Acceptor | Proposer, without: frozenset[str] | set[str] = frozenset()) -> list[object]:
    values: list[object] = []
    for name, value in vars(thing).items():
        if name in _NOT_STATE or name in without:
            continue
        match value:
            case list():
                values.append(tuple(value))
            case dict():
                values.append(tuple(value.items()))
            case set():
                values.append(frozenset(value))
            case _:
                values.append(value)
    return values


def after(work: DiskWork, control: ControlState, wal: bytes, steps: int = 99) -> tuple[ControlState, bytes]:
    """The disk when so many steps of the work are done; a write without its sync is one that is lost."""
    done: list[object] = []
    if work.control:
        done.append("control")
    if work.new_log or work.cut_to_lsn is not None:
        done.append("cut")
    if work.control_after_cut:
        done.append("after")
    if work.wal:
        done.append("wal")
    for step in done[:steps]:
        if step == "control" and work.control:
            control = work.control
        elif step == "cut":
            wal = b"" if work.new_log else wal[: (work.cut_to_lsn or START) - START]
        elif step == "after" and work.control_after_cut:
            control = work.control_after_cut
        elif step == "wal":
            for write in work.wal:
                assert write.lsn == START + len(wal), "a gap on disk"
                wal += write.wal
    return control, wal


def steps_of(work: DiskWork) -> int:
    return sum(
        map(
            bool,
            (work.control, work.new_log or work.cut_to_lsn is not None, work.control_after_cut, work.wal),
        )
    )


def booted(control: ControlState, wal: bytes) -> Member:
    """A member that starts from that disk; what lies beyond a cut that was announced is gone."""
    if control.must_create:
        wal = b""
    elif control.truncating_to_lsn:
        wal = wal[: control.truncating_to_lsn - START]
    end = Lsn(START + len(wal)) if control.has_log else INVALID_LSN
    acceptor = Acceptor(
        control,
        record_end_lsn=end,
        last_record_lsn=INVALID_LSN,
        make_scanner=make_scanner,
        leader_timeout_s=1.0,
    )
    replica = Replica(acceptor, histories=dict, timing=Timing(), now_s=0.0, draw=0.0)
    if not control.has_log:
        replica.proposer.on_primary(PRIMARY, 0.0)
    return Member(replica, control, wal)


def first(name: str, membership: Membership) -> ControlState:
    """Of a member that has met all the others, or of a node that waits to become one."""
    if name not in membership.everyone:
        return ControlState(name, name.encode(), NOBODY)
    others = tuple((other, other.encode()) for other in sorted(membership.everyone) if other != name)
    return replace(ControlState(name, name.encode(), membership), peer_ids=others)
