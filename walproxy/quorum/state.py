"""ControlState: what an acceptor keeps in its control file, and its form as bytes."""

from dataclasses import dataclass, field, replace
from typing import Final

from walproxy.quorum.coding import Reader, Writer
from walproxy.quorum.errors import MessageMalformed
from walproxy.quorum.membership import Membership
from walproxy.quorum.terms import TermHistory
from walproxy.wire.lsn import INVALID_LSN, Lsn

_SEGMENT_SIZES: Final = frozenset(1 << power for power in range(20, 31))  # What initdb takes: 1 MB to 1 GB.


@dataclass(frozen=True, slots=True)
class Cluster:
    """The Postgres cluster whose WAL this is."""

    system_id: int
    segment_size: int
    major: int


@dataclass(frozen=True, slots=True)
class ControlState:
    """Durable state of one acceptor, replaced as a whole. Which rule needs which field: docs/quorum.md."""

    name: str
    # Drawn once, with the data directory: a member that comes back without its disk has another one.
    node_id: bytes
    membership: Membership
    term: int = 0
    # Who got our vote in `term`; empty if the term was learned from a proposer already elected.
    voted_for: str = ""
    term_history: TermHistory = field(default_factory=TermHistory)
    # Set while the log is being cut back to there; whoever finds it set at start finishes the cut first.
    truncating_to_lsn: Lsn = INVALID_LSN
    cluster: Cluster | None = None
    # Where the whole group's log begins, and where ours does: a later member starts later.
    log_start_lsn: Lsn = INVALID_LSN
    local_start_lsn: Lsn = INVALID_LSN
    # A lower bound, saved now and then. Invariant: a record end that was flushed before it was saved.
    commit_lsn: Lsn = INVALID_LSN
    horizon_lsn: Lsn = INVALID_LSN
    # node_id of each peer, as first seen.
    peer_ids: tuple[tuple[str, bytes], ...] = ()

    @property
    def has_log(self) -> bool:
        """The log was begun. At start: create it anew if `must_create`, else recover it."""
        return self.cluster is not None

    @property
    def must_create(self) -> bool:
        """A crash came while the log was being begun, or cut back to its beginning."""
        return self.has_log and self.truncating_to_lsn == self.local_start_lsn

    @property
    def recover_from_lsn(self) -> Lsn:
        """A record end that the log on disk must reach."""
        return max(self.commit_lsn, self.local_start_lsn)


def with_membership(ours: ControlState, membership: Membership) -> ControlState:
    """The state with another membership, and the node ids that go with it."""
    peer_ids = dict(ours.peer_ids)
    for name in membership.everyone:
        contact = membership.contact(name)
        if contact is not None and contact.node_id:
            peer_ids[name] = contact.node_id
        elif name not in ours.membership.everyone:
            peer_ids.pop(name, None)
    peer_ids.pop(ours.name, None)
    return replace(ours, membership=membership, peer_ids=tuple(sorted(peer_ids.items())))


def may_adopt(ours: ControlState, peer: str, peer_id: bytes, theirs: Membership) -> bool:
    """Whether that peer may tell us of a newer membership. Source: docs/quorum.md rule 19."""
    mine = theirs.contact(ours.name)
    if mine is not None and mine.node_id:
        if mine.node_id == ours.node_id:
            return True  # Whoever gave it out has met us.
    elif not ours.membership.generation:
        return ours.name in theirs.everyone
    known = dict(ours.peer_ids).get(peer, peer_id)
    return peer in ours.membership.everyone and known == peer_id


_FORM = 3
_FORM_WITHOUT_SEALS = 1
_FORM_WITHOUT_CONTACTS = 2  # Of before members had more than names.


def encode_control(state: ControlState) -> bytes:
    """The payload of a control file. Magic, length and checksum are the file's business."""
    out = Writer()
    out.u8(_FORM).text(state.name).blob(state.node_id).membership(state.membership)
    out.u64(state.term).text(state.voted_for).terms(state.term_history).u64(state.truncating_to_lsn)
    put_cluster(out, state.cluster)
    out.u64(state.log_start_lsn).u64(state.local_start_lsn).u64(state.commit_lsn).u64(state.horizon_lsn)
    out.u16(len(state.peer_ids))
    for name, node_id in state.peer_ids:
        out.text(name).blob(node_id)
    return out.membership_rest(state.membership).done()


def decode_control(payload: bytes) -> ControlState:
    """The state that `encode_control` wrote.

    Raises:
        MessageMalformed: anything else. The file passed its checksum, so a program wrote this: of another
        version.
    """
    data = Reader(payload)
    form = data.u8()
    data.expect(form in {_FORM, _FORM_WITHOUT_CONTACTS, _FORM_WITHOUT_SEALS}, "unknown form of control state")
    state = ControlState(
        name=data.text(),
        node_id=data.blob(),
        membership=data.membership(),
        term=data.term(),
        voted_for=data.text(),
        term_history=data.terms(with_seals=form != _FORM_WITHOUT_SEALS),
        truncating_to_lsn=data.lsn(),
        cluster=read_cluster(data),
        log_start_lsn=data.lsn(),
        local_start_lsn=data.lsn(),
        commit_lsn=data.lsn(),
        horizon_lsn=data.lsn(),
        peer_ids=tuple((data.text(), data.blob()) for _ in range(data.u16())),
    )
    if form == _FORM:
        state = replace(state, membership=data.membership_rest(state.membership))
    data.end()
    return state


def put_cluster(out: Writer, cluster: Cluster | None) -> Writer:
    """Three numbers; all zero for none."""
    known = cluster or Cluster(0, 0, 0)
    return out.u64(known.system_id).u32(known.segment_size).u16(known.major)


def read_cluster(data: Reader) -> Cluster | None:
    """What `put_cluster` wrote."""
    cluster = Cluster(data.u64(), data.u32(), data.u16())
    return cluster if cluster.system_id else None


def check_segment_size(cluster: Cluster | None) -> None:
    """Refuse a cluster whose segments have a size that Postgres has not. Source: docs/quorum.md rule 15.

    For what comes in from outside: the core itself counts in segments of any size, as its tests do.

    Raises:
        MessageMalformed
    """
    if cluster is not None and cluster.segment_size not in _SEGMENT_SIZES:
        raise MessageMalformed("segment size is impossible", segment_size=cluster.segment_size)
