"""The WAL store over real files and real records."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.synthetic_wal import WalWriter
from walproxy.errors import DataDamaged, Poisoned, WalFull, WalRemoved
from walproxy.quorum.state import Cluster
from walproxy.quorum.terms import TermHistory
from walproxy.store import segment
from walproxy.store.wal import SegmentStore
from walproxy.wire.lsn import Lsn, segment_name

SEGMENT = 1 << 20
START = Lsn(3 * SEGMENT)
CLUSTER = Cluster(7_000_000_000_000_000_001, SEGMENT, 18)
HISTORY = TermHistory.of([(1, 1, START)])


def new_store(path: Path, *, segments_max: int = 100) -> SegmentStore:
    return SegmentStore(path, size_bytes_max=segments_max * SEGMENT)


@pytest.fixture
def store(tmp_path: Path) -> SegmentStore:
    made = new_store(tmp_path)
    made.create(START, tli=1, cluster=CLUSTER)
    return made


def files(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "wal").iterdir() if file.name != "spare")


def name(lsn: int, tli: int = 1, *, partial: bool = False) -> str:
    return segment_name(tli, lsn, SEGMENT) + (".partial" if partial else "")


def written(store: SegmentStore, until: int, *, piece: int = 50_000) -> WalWriter:
    wal = WalWriter(START, SEGMENT)
    wal.fill(until)
    for at in range(0, len(wal.wal), piece):
        store.write(Lsn(START + at), bytes(wal.wal[at : at + piece]), tli=1)
        store.sync()
    return wal


@pytest.mark.parametrize("piece", [7919, SEGMENT, 3 * SEGMENT])
def test_segments_hold_what_was_written_under_the_names_of_postgres(
    store: SegmentStore, tmp_path: Path, piece: int
) -> None:
    wal = written(store, START + 2 * SEGMENT + 5000, piece=piece)

    assert files(tmp_path) == [name(START), name(START + SEGMENT), name(START + 2 * SEGMENT, partial=True)]
    on_disk = b"".join((tmp_path / "wal" / file).read_bytes() for file in files(tmp_path))
    assert on_disk == bytes(wal.wal) + bytes(3 * SEGMENT - len(wal.wal))
    assert store.read(START, len(wal.wal)) == wal.wal
    assert store.read(Lsn(START + SEGMENT - 10), 20) == wal.wal[SEGMENT - 10 : SEGMENT + 10]
    assert store.write_lsn == wal.end_lsn


def test_recovery_finds_the_last_whole_record_and_clears_the_rest(
    store: SegmentStore, tmp_path: Path
) -> None:
    wal = written(store, START + SEGMENT + 40_000)
    torn = bytes(wal.wal[-1040:-900])  # The beginning of a record, where it does not belong.
    store.write(store.write_lsn, torn, tli=1)

    again = new_store(tmp_path)
    end = again.recover(wal.ends[10], end_lsn_max=None, history=HISTORY, cluster=CLUSTER)

    assert end.record_end_lsn == again.write_lsn == wal.end_lsn
    tail = (tmp_path / "wal" / name(START + SEGMENT, partial=True)).read_bytes()
    assert tail == bytes(wal.wal[SEGMENT:]) + bytes(2 * SEGMENT - len(wal.wal))
    again.write(again.write_lsn, b"next", tli=1)
    assert again.read(Lsn(wal.end_lsn - 4), 8) == wal.wal[-4:] + b"next"


def test_recovery_from_every_record_end_finds_the_same_end(store: SegmentStore, tmp_path: Path) -> None:
    wal = written(store, START + SEGMENT + 30_000)

    for from_lsn in (START, *wal.ends[::50], *wal.ends[-32:]):
        again = new_store(tmp_path)
        end = again.recover(from_lsn, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)
        assert end.record_end_lsn == wal.end_lsn
        again.close()


def test_a_log_that_lost_promised_wal_is_refused_and_left_alone(store: SegmentStore, tmp_path: Path) -> None:
    wal = written(store, START + SEGMENT + 30_000)
    segment = tmp_path / "wal" / name(START + SEGMENT, partial=True)
    damaged = bytearray(segment.read_bytes())
    damaged[20_000] ^= 1
    segment.write_bytes(damaged)

    again = new_store(tmp_path)
    with pytest.raises(DataDamaged, match=f"keep its data directory.*promised={wal.ends[-1]}"):
        again.recover(wal.ends[-1], end_lsn_max=None, history=HISTORY, cluster=CLUSTER)

    assert segment.read_bytes() == damaged
    below = max(end for end in wal.ends if end <= START + SEGMENT + 20_000)
    end = again.recover(below, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)
    assert end.record_end_lsn == below


def test_a_promise_that_is_no_record_end_is_refused(store: SegmentStore, tmp_path: Path) -> None:
    wal = written(store, START + 30_000)

    with pytest.raises(DataDamaged, match="ends below"):
        new_store(tmp_path).recover(Lsn(wal.ends[5] + 8), end_lsn_max=None, history=HISTORY, cluster=CLUSTER)


def test_recovery_finishes_segments_that_a_crash_left_unnamed(store: SegmentStore, tmp_path: Path) -> None:
    wal = WalWriter(START, SEGMENT)
    wal.fill(START + 2 * SEGMENT + 10)
    store.write(START, bytes(wal.wal), tli=1)
    assert all(file.endswith(".partial") for file in files(tmp_path))

    new_store(tmp_path).recover(START, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)

    assert files(tmp_path) == [name(START), name(START + SEGMENT), name(START + 2 * SEGMENT, partial=True)]


@pytest.mark.parametrize("what", ["truncated", "missing", "other cluster"])
def test_a_segment_that_is_not_whole_is_refused(store: SegmentStore, tmp_path: Path, what: str) -> None:
    wal = written(store, START + SEGMENT + 30_000)
    segment = tmp_path / "wal" / name(START)
    cluster = CLUSTER
    if what == "truncated":
        os.truncate(segment, SEGMENT // 2)
    elif what == "missing":
        segment.unlink()
    else:
        cluster = Cluster(1, SEGMENT, 18)

    with pytest.raises(DataDamaged, match="keep its data directory"):
        new_store(tmp_path).recover(wal.ends[900], end_lsn_max=None, history=HISTORY, cluster=cluster)


@pytest.mark.parametrize("back", [1, 30, 1001, 1048])
def test_a_cut_leaves_zeros_behind_it_and_can_be_repeated(
    store: SegmentStore, tmp_path: Path, back: int
) -> None:
    wal = written(store, START + 3 * SEGMENT + 30_000)
    cut = wal.ends[-back]

    store.truncate(cut)
    store.truncate(cut)

    boundary = cut - cut % SEGMENT
    assert store.write_lsn == cut
    assert files(tmp_path)[-1] == name(boundary, partial=True)
    content = (tmp_path / "wal" / name(boundary, partial=True)).read_bytes()
    assert content == wal.between(boundary, cut) + bytes(SEGMENT - cut % SEGMENT)
    again = new_store(tmp_path)
    assert again.recover(START, end_lsn_max=None, history=HISTORY, cluster=CLUSTER).record_end_lsn == cut


def test_a_cut_that_was_begun_is_finished_by_recovery(store: SegmentStore, tmp_path: Path) -> None:
    wal = written(store, START + SEGMENT + 30_000)
    cut = wal.ends[50]

    again = new_store(tmp_path)
    end = again.recover(wal.ends[20], end_lsn_max=cut, history=HISTORY, cluster=CLUSTER)

    assert end.record_end_lsn == again.write_lsn == cut
    assert files(tmp_path) == [name(START, partial=True)]
    with pytest.raises(DataDamaged):
        again.recover(wal.ends[51], end_lsn_max=cut, history=HISTORY, cluster=CLUSTER)


def test_an_empty_log_recovers_again_and_again(store: SegmentStore, tmp_path: Path) -> None:
    assert store.write_lsn == START
    for _ in range(3):
        again = new_store(tmp_path)
        end = again.recover(START, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)
        assert end.record_end_lsn == START
        again.close()
    assert files(tmp_path) == [name(START, partial=True)]


def test_a_log_that_ends_with_a_whole_segment_recovers(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    store.create(START, tli=1, cluster=CLUSTER)
    wal = WalWriter(START, SEGMENT)
    wal.fill(START + SEGMENT - 6000)
    wal.record_up_to(START + SEGMENT)
    store.write(START, bytes(wal.wal), tli=1)
    store.sync()
    assert files(tmp_path) == [name(START)]

    for _ in range(2):
        again = new_store(tmp_path)
        end = again.recover(wal.end_lsn, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)
        assert end.record_end_lsn == START + SEGMENT
        again.close()


def test_a_new_timeline_takes_the_beginning_of_its_segment_along(store: SegmentStore, tmp_path: Path) -> None:
    old = written(store, START + SEGMENT + 30_000)
    switch = old.end_lsn
    new = WalWriter(switch, SEGMENT, tli=2, prev_lsn=old.prev_lsn)
    new.fill(switch + SEGMENT)
    store.write(switch, bytes(new.wal), tli=2)
    store.sync()
    history = TermHistory.of([(1, 1, START), (2, 2, switch)])

    boundary = START + SEGMENT
    assert files(tmp_path) == [
        name(START),
        name(boundary, partial=True),
        name(boundary, 2),
        name(boundary + SEGMENT, 2, partial=True),
    ]
    whole = bytes(old.wal) + bytes(new.wal)
    assert (tmp_path / "wal" / name(boundary, 2)).read_bytes() == whole[SEGMENT : 2 * SEGMENT]
    again = new_store(tmp_path)
    assert (
        again.recover(START, end_lsn_max=None, history=history, cluster=CLUSTER).record_end_lsn == new.end_lsn
    )
    assert again.read(START, len(whole)) == whole

    again.truncate(old.ends[-3])  # Back before the switch: the second timeline was never there.
    assert files(tmp_path) == [name(START), name(boundary, partial=True)]
    assert again.read(START, old.ends[-3] - START) == old.wal[: old.ends[-3] - START]
    third = WalWriter(old.ends[-3], SEGMENT, tli=3, prev_lsn=old.ends[-4])
    third.record(b"third")
    again.write(old.ends[-3], bytes(third.wal), tli=3)
    again.sync()
    last = new_store(tmp_path).recover(
        START,
        end_lsn_max=None,
        history=TermHistory.of([(1, 1, START), (3, 3, old.ends[-3])]),
        cluster=CLUSTER,
    )
    assert last.record_end_lsn == third.end_lsn


def test_old_segments_go_and_what_is_gone_is_said_to_be(store: SegmentStore, tmp_path: Path) -> None:
    wal = written(store, START + 3 * SEGMENT + 30_000)

    assert store.remove_before(Lsn(START + 2 * SEGMENT + 5)) == 2 * SEGMENT
    assert store.remove_before(Lsn(START + 2 * SEGMENT + 5)) == 0
    assert store.start_lsn == START + 2 * SEGMENT
    with pytest.raises(WalRemoved):
        store.read(START, 10)
    assert store.read(store.start_lsn, 10) == wal.between(store.start_lsn, store.start_lsn + 10)
    assert store.remove_before(wal.end_lsn) == SEGMENT
    again = new_store(tmp_path)
    first_end = min(
        end for end in wal.ends if end > START + 3 * SEGMENT
    )  # Of a record begun in a removed segment.
    end = again.recover(first_end, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)
    assert (end.record_end_lsn, again.start_lsn) == (wal.end_lsn, START + 3 * SEGMENT)


def test_reading_beyond_the_end_is_refused(store: SegmentStore) -> None:
    written(store, START + 1000)

    with pytest.raises(ValueError, match="beyond"):
        store.read(START, store.write_lsn - START + 1)


def test_a_full_store_says_so_and_serves_on(tmp_path: Path) -> None:
    store = new_store(tmp_path, segments_max=3)
    store.create(START, tli=1, cluster=CLUSTER)
    wal = WalWriter(START, SEGMENT)
    wal.fill(START + 2 * SEGMENT + 10)

    with pytest.raises(WalFull, match=f"max_wal_size_bytes={3 * SEGMENT}"):
        store.write(START, bytes(wal.wal), tli=1)
    store.sync()

    assert store.write_lsn == START + 2 * SEGMENT
    assert store.size_bytes <= 3 * SEGMENT
    assert store.read(START, 2 * SEGMENT) == wal.wal[: 2 * SEGMENT]
    store.remove_before(Lsn(START + SEGMENT))
    store.write(store.write_lsn, wal.between(store.write_lsn, wal.end_lsn), tli=1)


def test_a_full_store_takes_new_timelines_up_to_the_end_of_its_room_rule_18(tmp_path: Path) -> None:
    store = new_store(tmp_path, segments_max=4)
    store.create(START, tli=1, cluster=CLUSTER)
    wal = written(store, START + 2 * SEGMENT + 5000)
    room = store.room_end_lsn
    assert room == START + 3 * SEGMENT

    entries, prev = [(1, 1, START)], wal.prev_lsn
    for tli in (2, 3):
        at = store.write_lsn
        new = WalWriter(at, SEGMENT, tli=tli, prev_lsn=prev)
        new.record(b"new timeline")
        store.write(at, bytes(new.wal), tli=tli)
        store.sync()
        entries.append((tli, tli, at))
        prev = new.prev_lsn
        assert store.room_end_lsn == room
        assert store.size_bytes <= 4 * SEGMENT, "of a segment one file counts"

    again = new_store(tmp_path, segments_max=4)
    again.recover(START, end_lsn_max=None, history=TermHistory.of(entries), cluster=CLUSTER)
    assert (again.write_lsn, again.room_end_lsn) == (store.write_lsn, room)
    last = WalWriter(again.write_lsn, SEGMENT, tli=4, prev_lsn=prev)
    last.fill(room + 10)
    again.write(again.write_lsn, last.between(again.write_lsn, room), tli=4)
    with pytest.raises(WalFull):
        again.write(room, b"more", tli=4)


def test_history_files_are_kept(store: SegmentStore, tmp_path: Path) -> None:
    store.save_history(2, b"1\t0/3000000\tno recovery target specified\n")

    again = new_store(tmp_path)
    assert again.histories() == {2: b"1\t0/3000000\tno recovery target specified\n"}
    assert "00000002.history" in files(tmp_path)


def limited(bytes_max: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, bytes_max))


POISON = """
import sys
from pathlib import Path
from walproxy.errors import Poisoned
from walproxy.quorum.state import Cluster
from walproxy.store import segment
from walproxy.store.wal import SegmentStore
from walproxy.wire.lsn import Lsn

store = SegmentStore(Path(sys.argv[1]), size_bytes_max=1 << 40)
for attempt in range(2):
    try:
        store.create(Lsn(3 << 20), tli=1, cluster=Cluster(1, 1 << 20, 18))
    except Poisoned as error:
        print(error)
"""


def test_a_failed_write_poisons_the_store_for_ever(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", POISON, tmp_path],
        preexec_fn=limited(1 << 19),
        capture_output=True,
        text=True,
        check=True,
    )

    first, second = done.stdout.splitlines()
    assert "File too large" in first
    assert "an earlier write or sync of WAL failed" in second


def test_a_failed_sync_is_never_tried_again(store: SegmentStore, monkeypatch: pytest.MonkeyPatch) -> None:
    written(store, START + 1000)
    calls = []

    def failing(fd: int) -> None:
        calls.append(fd)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", failing)
    store.write(store.write_lsn, b"abc", tli=1)
    for _ in range(2):
        with pytest.raises(Poisoned):
            store.sync()
    with pytest.raises(Poisoned):
        store.write(store.write_lsn, b"abc", tli=1)

    assert len(calls) == 1


class LyingCache:
    """A disk whose page cache shows, after a failed sync, what the disk never got; it gets only what is new.

    ``disk`` is what the file would be after a loss of power.

    Args:
        failing: the one of the coming syncs that fails, counted from 1.
    """

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch, *, failing: int = 1) -> None:
        self.file = file
        self.disk = bytearray(file.read_bytes())
        self._unsynced: list[tuple[int, bytes]] = []
        self._inode = file.stat().st_ino
        self._pwrite, self._fdatasync = os.pwrite, os.fdatasync
        self._monkeypatch = monkeypatch
        self.failing = failing
        monkeypatch.setattr(os, "pwrite", self.pwrite)
        monkeypatch.setattr(os, "fdatasync", self.fdatasync)

    def pwrite(self, fd: int, data: memoryview, offset: int) -> int:
        written = self._pwrite(fd, data, offset)
        if os.fstat(fd).st_ino == self._inode:
            self._unsynced.append((offset, bytes(data[:written])))
        return written

    def fdatasync(self, fd: int) -> None:
        if os.fstat(fd).st_ino == self._inode:
            unsynced, self._unsynced = self._unsynced, []
            is_failing = self.failing == 1
            self.failing = max(0, self.failing - 1)
            if is_failing:
                raise OSError(5, "Input/output error")
            for offset, data in unsynced:
                self.disk[offset : offset + len(data)] = data
        self._fdatasync(fd)

    def lose_power(self) -> None:
        self._monkeypatch.undo()
        self.file.write_bytes(self.disk)


def test_what_the_page_cache_shows_after_a_failed_sync_is_written_again_rule_24(
    store: SegmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = written(store, START + 5000)
    synced = wal.end_lsn
    wal.fill(START + 60_000)
    cache = LyingCache(tmp_path / "wal" / name(START, partial=True), monkeypatch)
    store.write(synced, wal.between(synced, wal.end_lsn), tli=1)
    with pytest.raises(Poisoned):
        store.sync()

    restarted = new_store(tmp_path)
    claimed = restarted.recover(synced, end_lsn_max=None, history=HISTORY, cluster=CLUSTER).record_end_lsn
    cache.lose_power()
    again = new_store(tmp_path).recover(synced, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)

    assert claimed == wal.end_lsn
    assert again.record_end_lsn == claimed


def test_zeros_that_the_page_cache_shows_after_a_failed_sync_are_written_again_rule_24(
    store: SegmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = written(store, START + 60_000)
    cut = wal.ends[4]
    cache = LyingCache(tmp_path / "wal" / name(START, partial=True), monkeypatch, failing=2)
    with pytest.raises(Poisoned):
        store.truncate(cut)

    restarted = new_store(tmp_path)
    ends = restarted.recover(START, end_lsn_max=cut, history=HISTORY, cluster=CLUSTER).record_end_lsn
    cache.lose_power()
    again = new_store(tmp_path).recover(START, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)

    assert cache.failing == 0
    assert ends == cut
    assert again.record_end_lsn == cut


def test_names_that_were_never_synced_are_synced_at_the_start_rule_24(
    store: SegmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = written(store, START + 5000)
    synced: list[Path] = []
    monkeypatch.setattr(segment, "sync_directory", synced.append)

    new_store(tmp_path).recover(wal.end_lsn, end_lsn_max=None, history=HISTORY, cluster=CLUSTER)

    assert synced == [tmp_path / "wal"]


def test_a_file_is_lent_only_when_nothing_waits_for_a_sync(store: SegmentStore) -> None:
    wal = WalWriter(START, SEGMENT)
    wal.fill(START + SEGMENT + 5000)
    store.sync()
    middle = Lsn(START + 50_000)
    store.write(START, wal.between(START, middle), tli=1)

    lent = store.lend(1)
    assert lent is not None
    assert (lent.start_lsn, lent.end_lsn) == (START, START + SEGMENT)
    assert store.lend(2) is None

    more = wal.between(middle, START + 60_000)
    os.pwrite(lent.fd, more, middle - lent.start_lsn)
    store.on_written(Lsn(START + 60_000))
    assert store.read(START, 60_000) == wal.between(START, START + 60_000)
    with pytest.raises(AssertionError):
        store.on_written(Lsn(START + SEGMENT))

    store.write(Lsn(START + 60_000), wal.between(START + 60_000, wal.end_lsn), tli=1)
    assert store.lend(1) is None  # The full segment has neither been synced nor got its name.
    store.sync()
    assert store.lend(1) is not None


def test_a_writer_elsewhere_that_fails_poisons_the_store_rule_23(store: SegmentStore) -> None:
    error = store.poisoned(OSError(5, "Input/output error"))

    assert isinstance(error, Poisoned)
    assert store.lend(1) is None
    with pytest.raises(Poisoned):
        store.sync()
