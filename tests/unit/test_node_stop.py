"""A node that ends saves what its state was when it began to end, and all of one moment."""

import asyncio
import threading
from pathlib import Path

import pytest

from tests.synthetic_wal import WalWriter
from walproxy.config import Settings
from walproxy.node import Node
from walproxy.opening import open_log
from walproxy.ports import Upstream
from walproxy.quorum.messages import Append, Elected
from walproxy.quorum.state import Cluster
from walproxy.quorum.terms import TermHistory
from walproxy.store.control import ControlFile
from walproxy.store.wal import SegmentStore
from walproxy.wire.lsn import Lsn

SEGMENT = 1 << 20
START = Lsn(3 * SEGMENT)


def settings(folder: Path) -> Settings:
    # Nobody answers there.
    return Settings(
        name="a",
        listen="127.0.0.1:7001",
        data_dir=folder,
        primary_conninfo="host=127.0.0.1 port=1",
        members={name: f"host=127.0.0.1 port=1 user={name}" for name in "abc"},
    )


def no_primary() -> Upstream:
    raise AssertionError("an acceptor with a log wants no primary")


@pytest.fixture
def wal() -> WalWriter:
    writer = WalWriter(START, segment_size=SEGMENT)
    for _ in range(10):
        writer.record(b"x" * 100)
    return writer


async def follow(node: Node, wal: WalWriter, *, end_lsn: int, commit_lsn: int) -> asyncio.Task[None]:
    """Let it take WAL of term 1 from b, as far as that, committed up to there."""
    running = asyncio.create_task(node.run())
    await asyncio.sleep(0)
    cluster = Cluster(wal.system_id, SEGMENT, 18)
    first = TermHistory.of([(1, 1, START)])
    node.on_request("b", Elected(1, 1, START, first, Lsn(0), START, cluster))
    node.settle()
    await node.written(START)
    node.on_request("b", append(wal, START, end_lsn, commit_lsn=commit_lsn))
    node.settle()
    await node.written(Lsn(end_lsn))
    return running


def append(wal: WalWriter, start_lsn: int, end_lsn: int, *, commit_lsn: int) -> Append:
    part = bytes(wal.wal)[start_lsn - START : end_lsn - START]
    return Append(1, 1, 1, Lsn(start_lsn), Lsn(commit_lsn), START, part)


async def test_the_commit_lsn_is_saved_at_an_orderly_stop(tmp_path: Path, wal: WalWriter) -> None:
    control, store = ControlFile(tmp_path), SegmentStore(tmp_path, size_bytes_max=64 << 20)
    node = Node(settings(tmp_path), control=control, store=store, make_upstream=no_primary)
    running = await follow(node, wal, end_lsn=wal.end_lsn, commit_lsn=wal.end_lsn)

    running.cancel()
    await asyncio.wait({running})
    store.close()

    saved = ControlFile(tmp_path).load()
    assert saved is not None
    assert saved.commit_lsn == node.commit_lsn == wal.end_lsn


async def test_wal_that_is_partly_on_disk_and_partly_in_memory_is_one(tmp_path: Path, wal: WalWriter) -> None:
    """A peer that lags is sent what the disk has, and in one piece with it what it has not yet."""
    control, store = ControlFile(tmp_path), SegmentStore(tmp_path, size_bytes_max=64 << 20)
    node = Node(settings(tmp_path), control=control, store=store, make_upstream=no_primary)
    written = Lsn(wal.ends[6])
    running = await follow(node, wal, end_lsn=written, commit_lsn=START)
    node._recent.add(written, wal.between(written, wal.end_lsn), term=1, stored_lsn=written)

    assert node._wal(START, wal.end_lsn) == wal.between(START, wal.end_lsn)
    assert node._wal(written, wal.end_lsn) == wal.between(written, wal.end_lsn)
    assert node._wal(START, written) == wal.between(START, written)
    running.cancel()
    await asyncio.wait({running})
    store.close()


async def test_a_node_ends_and_saves_nothing_if_work_was_never_handed_to_the_disk(
    tmp_path: Path, wal: WalWriter
) -> None:
    control, store = ControlFile(tmp_path), SegmentStore(tmp_path, size_bytes_max=64 << 20)
    node = Node(settings(tmp_path), control=control, store=store, make_upstream=no_primary)
    running = await follow(node, wal, end_lsn=wal.end_lsn, commit_lsn=wal.end_lsn)
    node._replica.has_disk_work_out = True  # As after an error between core and disk.

    running.cancel()
    await asyncio.wait({running}, timeout=10)
    store.close()

    saved = ControlFile(tmp_path).load()
    assert running.done()
    assert saved is not None
    assert saved.commit_lsn < node.commit_lsn


async def test_what_a_peer_says_while_a_node_stops_is_not_half_saved(
    tmp_path: Path, wal: WalWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    control, store = ControlFile(tmp_path), SegmentStore(tmp_path, size_bytes_max=64 << 20)
    node = Node(settings(tmp_path), control=control, store=store, make_upstream=no_primary)
    running = await follow(node, wal, end_lsn=wal.ends[6], commit_lsn=START)
    # The rest is taken, and not written when the node is told to end.
    node.on_request("b", append(wal, wal.ends[6], wal.end_lsn, commit_lsn=START))
    writing, go_on = threading.Event(), threading.Event()
    write = store.write

    def write_slowly(lsn: Lsn, part: bytes, *, tli: int) -> None:
        writing.set()
        assert go_on.wait(30)
        write(lsn, part, tli=tli)

    monkeypatch.setattr(store, "write", write_slowly)

    running.cancel()
    assert await asyncio.to_thread(writing.wait, 30)
    # c was elected with a log that ends after our third record: what is ours beyond it has to be cut.
    cut = Lsn(wal.ends[2])
    second = TermHistory.of([(1, 1, START), (2, 1, cut)])
    cluster = Cluster(wal.system_id, SEGMENT, 18)
    node.on_request("c", Elected(1, 2, cut, second, START, START, cluster))
    node.settle()
    go_on.set()
    await asyncio.wait({running})
    store.close()

    store = SegmentStore(tmp_path, size_bytes_max=64 << 20)
    again = open_log(settings(tmp_path), ControlFile(tmp_path), store)
    store.close()
    assert (again.record_end_lsn, again.last_log_term) == (wal.end_lsn, 1)
