"""A timeline fed by hand: however the WAL is cut and taken up again, the pages are the same."""

import random
import shutil
from pathlib import Path

import pytest

from pageserver.layout import open_layout
from pageserver.manifest import read_manifest
from pageserver.timeline import LayerLimits, Timeline
from tests.e2e.pageserver_process import catch_up
from tests.fix_pageserver import NewPageserver, serving
from tests.fix_pg import NewServer
from tools.server import Server
from walcore.errors import WalCorrupt
from walproxy.wire.lsn import parse_lsn, segment_name, segment_start

SEGMENT = 1 << 20


@pytest.fixture
def grown(new_server: NewServer, new_pageserver: NewPageserver) -> tuple[Path, Server]:
    """A pageserver's directory as bootstrap left it, and a primary that has written more since."""
    primary = new_server(segment_size_mb=1, wal_keep_size="200MB").start()
    pageserver = new_pageserver(primary)
    pageserver.start()
    serving(pageserver)
    catch_up(primary, pageserver)
    assert pageserver.stop() == 0
    primary.run("pgbench", "-i", "-q", "-s", 1)
    primary.query("select pg_switch_wal()")
    primary.run("pgbench", "-n", "-t", 200)
    return pageserver.data_dir, primary


def read_wal(primary: Server, start_lsn: int, end_lsn: int) -> bytes:
    folder = primary.data_dir / "pg_wal"
    wal = b""
    lsn = segment_start(start_lsn, SEGMENT)
    while lsn < end_lsn:
        wal += (folder / segment_name(1, lsn, SEGMENT)).read_bytes()
        lsn = type(lsn)(lsn + SEGMENT)
    first = segment_start(start_lsn, SEGMENT)
    return wal[start_lsn - first : end_lsn - first]


def open_timeline(data_dir: Path, limits: LayerLimits) -> Timeline:
    layout = open_layout(data_dir)
    manifest = read_manifest(data_dir)
    assert manifest is not None
    return Timeline.open(layout, manifest, limits)


def all_pages(timeline: Timeline, lsn: int) -> list[bytes | Exception]:
    keys = [
        (spc, db, rel, fork, block)
        for spc, db, rel, fork, blocks in timeline.reader.relations(lsn)
        for block in range(blocks)
    ]
    return timeline.reader.pages(keys, [lsn])


def test_pages_do_not_depend_on_how_the_wal_arrives(grown: tuple[Path, Server], tmp_path: Path) -> None:
    data_dir, primary = grown
    end_lsn = parse_lsn(primary.value("select pg_current_wal_flush_lsn()::text"))
    limits = LayerLimits(wal_bytes_max=1 << 20, open_bytes_max=1 << 30)
    seen = []

    for cut in (1 << 22, 8191, 777):
        folder = tmp_path / f"cut-{cut}"
        shutil.copytree(data_dir, folder)
        timeline = open_timeline(folder, limits)
        draw = random.Random(cut)
        at = timeline.restart_stream()
        wal_start, wal = at, read_wal(primary, at, end_lsn)
        while at < end_lsn:
            piece = wal[at - wal_start : at - wal_start + cut]
            timeline.append(piece)
            at = type(at)(at + len(piece))
            if timeline.open_fill >= 1:
                timeline.take_written(timeline.write_frozen(timeline.freeze()))
            if draw.random() < cut / 1_000_000:
                at = timeline.restart_stream()
            assert timeline.ingested_lsn <= max(at, timeline.received_lsn) + SEGMENT
        assert timeline.sync() == timeline.ingested_lsn
        seen.append((timeline.ingested_lsn, all_pages(timeline, timeline.ingested_lsn)))
        timeline.close()

        # What is on disk is all of it: a new process finds the same.
        again = open_timeline_again(folder, limits)
        assert again.ingested_lsn == timeline.ingested_lsn
        assert all_pages(again, again.ingested_lsn) == seen[-1][1]
        again.close()

    assert seen[0][0] == end_lsn
    assert all(isinstance(page, bytes) for page in seen[0][1])
    assert seen[1] == seen[0]
    assert seen[2] == seen[0]


def open_timeline_again(folder: Path, limits: LayerLimits) -> Timeline:
    """The same directory without its lock, which this process still holds."""
    copy = folder.with_name(folder.name + "-again")
    shutil.copytree(folder, copy)
    return open_timeline(copy, limits)


def test_of_a_damaged_piece_nothing_is_kept(grown: tuple[Path, Server]) -> None:
    data_dir, primary = grown
    end_lsn = parse_lsn(primary.value("select pg_current_wal_flush_lsn()::text"))
    timeline = open_timeline(data_dir, LayerLimits(1 << 30, 1 << 30))
    start_lsn = timeline.restart_stream()
    wal = read_wal(primary, start_lsn, end_lsn)
    timeline.append(wal[:50_000])
    ingested_lsn, received_lsn = timeline.ingested_lsn, timeline.received_lsn
    files_before = {path.name: path.read_bytes() for path in (data_dir / "wal").iterdir()}
    draw = random.Random(7)

    for _ in range(50):
        at = received_lsn - start_lsn
        bad = bytearray(wal[at : at + 60_000])
        bad[draw.randrange(30_000)] ^= 1 << draw.randrange(8)
        try:
            timeline.append(bytes(bad))
        except WalCorrupt:
            pass
        else:
            # The flip fell into what WAL does not check: the zeros that fill up a record.
            assert timeline.ingested_lsn > ingested_lsn
            break
        assert timeline.ingested_lsn == ingested_lsn
        assert {path.name: path.read_bytes() for path in (data_dir / "wal").iterdir()} == files_before
        received_lsn = timeline.restart_stream()

    at = timeline.restart_stream()
    timeline.append(wal[at - start_lsn :])
    assert timeline.ingested_lsn == end_lsn
    timeline.close()
