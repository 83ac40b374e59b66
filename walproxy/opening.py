"""Opening a node's log: from what is on disk to an acceptor that can go on."""

import secrets
from typing import Final

import structlog

from walcore._native import WalScanner
from walcore.errors import WalCorrupt
from walproxy.config import Settings
from walproxy.errors import ConfigInvalid
from walproxy.ports import ControlFile, WalStore
from walproxy.quorum.acceptor import Acceptor
from walproxy.quorum.errors import MessageRefused
from walproxy.quorum.membership import NOBODY, Membership
from walproxy.quorum.records import RecordScanner
from walproxy.quorum.state import Cluster, ControlState
from walproxy.wire.lsn import INVALID_LSN, Lsn

_NODE_ID_BYTES: Final = 16

_log = structlog.get_logger(__name__)


class NativeScanner:
    """The native `WalScanner`, as a `RecordScanner` of the core."""

    def __init__(self, start_lsn: Lsn, prev_lsn: Lsn, cluster: Cluster) -> None:
        self._scanner = WalScanner(
            start_lsn,
            segment_size=cluster.segment_size,
            system_id=cluster.system_id,
            prev_lsn=prev_lsn,
        )

    def feed(self, wal: bytes) -> None:
        try:
            self._scanner.feed(wal)
        except WalCorrupt as error:
            raise MessageRefused(f"wal is damaged: {error}") from error

    @property
    def native(self) -> WalScanner:
        """The scanner itself."""
        return self._scanner

    @property
    def record_end_lsn(self) -> int:
        return self._scanner.record_end_lsn

    @property
    def last_record_lsn(self) -> int:
        return self._scanner.last_record_lsn


def _check_members(settings: Settings, state: ControlState) -> None:
    """Once its members were changed, what a group has on disk counts. Source: docs/quorum.md rule 19."""
    ours, known = set(settings.members), set(state.membership.everyone)
    if state.name != settings.name:
        raise ConfigInvalid("name: not that of this data_dir", name=settings.name, data_dir_is_of=state.name)
    if ours == known or not ours:
        return
    if state.membership.generation == 1:
        raise ConfigInvalid(
            "members: not those that this data_dir was made for; `walproxy member` changes them",
            members=",".join(state.membership.everyone),
        )
    _log.warning(
        "members: the configuration differs from the group's own list, which counts; bring the file up to date",
        configured=",".join(sorted(ours)),
        members=",".join(sorted(known)),
        generation=state.membership.generation,
    )


def make_scanner(start_lsn: Lsn, *, prev_lsn: Lsn, cluster: Cluster) -> RecordScanner:
    return NativeScanner(start_lsn, prev_lsn, cluster)


def open_log(settings: Settings, control: ControlFile, store: WalStore) -> Acceptor:
    """Bring disk and control state to where the core can go on from. Blocking.

    Raises:
        ConfigInvalid: the members are not those of the group.
        DataDamaged, Poisoned
    """
    state = control.load()
    end = last = INVALID_LSN
    if state is None:
        # Who is not told of a group waits to be added to one.
        membership = Membership(1, tuple(sorted(settings.members))) if settings.members else NOBODY
        state = ControlState(settings.name, secrets.token_bytes(_NODE_ID_BYTES), membership)
    _check_members(settings, state)
    # Also what was found: it may be in the page cache only. Source: docs/quorum.md rule 24.
    control.save(state)
    if state.must_create:
        assert state.cluster is not None
        store.create(state.local_start_lsn, tli=state.term_history.last_tli, cluster=state.cluster)
        end = state.local_start_lsn
    elif state.cluster is not None:
        found = store.recover(
            state.recover_from_lsn,
            end_lsn_max=state.truncating_to_lsn or None,
            history=state.term_history,
            cluster=state.cluster,
        )
        end, last = found.record_end_lsn, found.last_record_lsn
        _log.info("log recovered", end_lsn=str(end), commit_lsn=str(state.commit_lsn), after=found.reason)
    acceptor = Acceptor(
        state,
        record_end_lsn=end,
        last_record_lsn=last,
        make_scanner=make_scanner,
        leader_timeout_s=settings.election_timeout_s,
    )
    if state.has_log:
        # Segments may have been removed since the state was saved.
        acceptor.on_removed(store.start_lsn)
    return acceptor
