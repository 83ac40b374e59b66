"""Opening a node's log over real files."""

from pathlib import Path

from tests.synthetic_wal import WalWriter
from walproxy.config import Settings
from walproxy.opening import open_log
from walproxy.quorum.membership import Membership
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.store.control import ControlFile
from walproxy.store.wal import SegmentStore
from walproxy.wire.lsn import Lsn

SEGMENT = 1 << 20
START = Lsn(3 * SEGMENT)
CLUSTER = Cluster(7_000_000_000_000_000_001, SEGMENT, 18)


def settings(folder: Path) -> Settings:
    return Settings(
        name="a",
        listen="127.0.0.1:7001",
        data_dir=folder,
        primary_conninfo="host=127.0.0.1",
        members={"a": "host=127.0.0.1 port=7001"},
    )


def test_wal_that_was_removed_since_the_state_was_saved_is_not_offered_rule_18(tmp_path: Path) -> None:
    store = SegmentStore(tmp_path, size_bytes_max=100 * SEGMENT)
    store.create(START, tli=1, cluster=CLUSTER)
    wal = WalWriter(START, SEGMENT)
    wal.fill(START + 3 * SEGMENT + 1000)
    store.write(START, bytes(wal.wal), tli=1)
    store.sync()
    state = ControlState(
        "a",
        b"id",
        Membership(1, ("a",)),
        term=1,
        term_history=TermHistory.of([(1, 1, START)]),
        cluster=CLUSTER,
        log_start_lsn=START,
        local_start_lsn=START,
        commit_lsn=wal.end_lsn,
    )
    ControlFile(tmp_path).save(state)
    store.remove_before(wal.end_lsn)
    store.close()

    again = SegmentStore(tmp_path, size_bytes_max=100 * SEGMENT)
    acceptor = open_log(settings(tmp_path), ControlFile(tmp_path), again)

    assert acceptor.greeting().local_start_lsn == again.start_lsn == START + 3 * SEGMENT
    again.close()


def test_a_state_that_was_found_is_written_again_rule_24(tmp_path: Path) -> None:
    """It may be in the page cache only, under a name that no sync made durable."""
    ControlFile(tmp_path).save(ControlState("a", b"id", Membership(1, ("a",)), term=5, voted_for="a"))
    before = (tmp_path / "control").stat().st_ino
    store = SegmentStore(tmp_path, size_bytes_max=100 * SEGMENT)

    open_log(settings(tmp_path), ControlFile(tmp_path), store)

    assert (tmp_path / "control").stat().st_ino != before
    assert ControlFile(tmp_path).load() == ControlState(
        "a", b"id", Membership(1, ("a",)), term=5, voted_for="a"
    )
