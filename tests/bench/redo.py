"""Every page that WAL touches, rebuilt into files, beside stock crash recovery of the same WAL; and redo in small."""

import random
import re
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.harness import Result, compare, rounds
from tests.e2e.test_page_store import SEGMENT_SIZE, Store
from tools.server import Server
from walcore._native import Layer, Reader, redo_page

PEER = "crash recovery"
MIXED = Path(__file__).parents[1] / "workloads" / "mixed.sh"
TMPFS = Path("/dev/shm")
SHORT_RECORD_BYTES = 200
CHAIN_RECORDS = 60
RECORD_GOAL_US, CHAIN_GOAL_US = 0.5, 40.0
HEAP_RMGRS = {"Heap", "Heap2"}
REDONE = re.compile(r"redo done at \S+ system usage: CPU: user: (\S+) s, system: (\S+) s, elapsed: (\S+) s")
CHECKPOINTED = re.compile(r"checkpoint complete: .* total=(\S+) s")
SETTINGS: Mapping[str, Any] = {
    "wal_level": "logical",
    "fsync": False,
    "synchronous_commit": False,
    "max_wal_size": "32GB",
    "wal_keep_size": "16GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "1GB",
}

Key = tuple[int, int, int, int, int]


def run(bindir: Path, *, runs: int, say: Callable[[str], None]) -> list[Result]:
    """All results; everything lies in a file system in memory, where there is one."""
    folder = Path(tempfile.mkdtemp(prefix="walproxy-", dir=TMPFS if TMPFS.is_dir() else None))
    folder.chmod(0o755)
    try:
        server = Server(folder / "origin", bindir, name="origin").initdb()
        try:
            backup = _write_wal(server)
        finally:
            server.kill()
        store = Store(folder, server.data_dir / "pg_wal", server.major, backup)
        ingest = store.build()
        for piece in store.wal(store.start_lsn, store.end_lsn):
            ingest.feed(piece)
        index = folder / "index"
        ingest.freeze().write(str(index))
        say(f"{(store.end_lsn - store.start_lsn) / 1e6:.0f} MB of WAL of the mixed workload")
        layers = [Layer.open(str(index))]
        taken = rounds(
            {
                "rebuilt": lambda: _rebuilt(store, lambda: store.reader(*layers)),
                "indexed and rebuilt": lambda: _rebuilt(store, lambda: _indexed(store)),
                PEER: lambda: _recovered(folder / "peer", bindir, store),
            },
            runs=runs,
            say=say,
        )
        reader = store.reader(*layers)
        return [*_beside_recovery(taken), *_in_small(store, reader, runs, say)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _beside_recovery(taken: Mapping[str, list[Mapping[str, float]]]) -> Iterator[Result]:
    for name in ("rebuilt", "indexed and rebuilt"):
        for figure in ("wall", "cpu"):
            yield compare(
                f"redo, every page {name}, {figure}",
                "s",
                ours=[figures[figure] for figures in taken[name]],
                peer=[figures[figure] for figures in taken[PEER]],
                peer_name=PEER,
                better="lower",
            )


def _write_wal(server: Server) -> Path:
    """A base backup of an empty cluster, and the WAL of two rounds of the mixed workload after it."""
    server.configure(**SETTINGS).start()
    backup = server.base_backup(server.folder / "backup", "-X", "none")
    subprocess.run(["bash", MIXED], env=server.environment, check=True, capture_output=True)
    server.stop(immediate=True)
    return backup


def _indexed(store: Store) -> Reader:
    ingest = store.ingest(store.start_lsn, store.base_state)
    for piece in store.wal(store.start_lsn, store.end_lsn):
        ingest.feed(piece)
    return store.reader(ingest.open_layer())


def _rebuilt(store: Store, make_reader: Callable[[], Reader]) -> Mapping[str, float]:
    """Wall and CPU seconds for all pages of the cluster, those that the WAL leaves alone among them."""
    target = store.folder / "rebuilt"
    target.mkdir()
    try:
        with _measured() as figures:
            reader = make_reader()
            forks = []
            for spc, db, rel, fork, _ in reader.relations(store.end_lsn):
                forks.append((spc, db, rel, fork, f"{target}/{spc}_{db}_{rel}_{fork}"))
            pages, unreadable = reader.write_files(forks, store.end_lsn, checksums=False, sync=False)
        assert not unreadable, unreadable[0]
        return figures | {"pages": pages}
    finally:
        shutil.rmtree(target)


@contextmanager
def _measured() -> Iterator[dict[str, float]]:
    figures: dict[str, float] = {}
    before, begin_s = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    yield figures
    figures["wall"] = time.perf_counter() - begin_s
    after = resource.getrusage(resource.RUSAGE_SELF)
    figures["cpu"] = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _recovered(folder: Path, bindir: Path, store: Store) -> Mapping[str, float]:
    """As the server's log says: redo, and the checkpoint that writes the pages (of that the CPU is not counted)."""
    server = Server(folder, bindir, name="recovery")
    try:
        server.restore(store.backup)
        for segment in store.wal_dir.glob("0*"):
            subprocess.run(["cp", "-a", segment, server.data_dir / "pg_wal"], check=True)
        server.start(deadline_s=300)
        log = (folder / "log").read_text()
        server.stop(immediate=True)
    finally:
        server.destroy()
    redone, checkpointed = REDONE.search(log), CHECKPOINTED.search(log)
    assert redone, log
    assert checkpointed, log
    user_s, system_s, elapsed_s = map(float, redone.groups())
    return {"wall": elapsed_s + float(checkpointed[1]), "cpu": user_s + system_s}


@dataclass(frozen=True, slots=True)
class _Step:
    """One record of a page's chain, to be timed alone: a page, and the record behind it."""

    key: Key
    page: bytes
    record: tuple[int, int, bytes]


def _in_small(store: Store, reader: Reader, runs: int, say: Callable[[str], None]) -> Iterator[Result]:
    steps, chains = _samples(store, reader)
    say(f"{len(steps)} short records, {len(chains)} chains of {CHAIN_RECORDS} heap records")
    redo = partial(redo_page, major=store.major, hint_bits_logged=False)
    record_us, chain_us = [], []
    for _ in range(runs):
        # What a call costs without a record is not redo.
        record_us.append(
            statistics.median(
                _least_us(partial(redo, step.page, [step.record], step.key))
                - _least_us(partial(redo, step.page, [], step.key))
                for step in steps
            )
        )
        chain_us.append(
            statistics.median(_least_us(partial(reader.pages, [key], [lsn])) for key, lsn in chains)
        )
    for name, ours, goal in (
        ("redo of one short record", record_us, RECORD_GOAL_US),
        (f"a page by a chain of {CHAIN_RECORDS} heap records", chain_us, CHAIN_GOAL_US),
    ):
        yield compare(name, "us", ours=ours, peer=[goal] * runs, peer_name="goal", better="lower")


def _least_us(call: Callable[[], object]) -> float:
    """The shortest of some calls: whatever else the machine does only adds."""
    least_s = float("inf")
    for _ in range(7):
        begin_s = time.perf_counter()
        call()
        least_s = min(least_s, time.perf_counter() - begin_s)
    return least_s * 1e6


def _samples(store: Store, reader: Reader) -> tuple[list[_Step], list[tuple[Key, int]]]:
    """Short records with the page before each, and pages with the LSN at which so many records make them."""
    draw = random.Random(7)  # The same pages in every run.
    keys = [
        (spc, db, rel, fork, block)
        for spc, db, rel, fork, blocks in reader.relations(store.end_lsn)
        for block in range(blocks)
    ]
    draw.shuffle(keys)
    steps: list[_Step] = []
    chains: list[tuple[Key, int]] = []
    for key in keys:
        chain = reader.chain(key, store.end_lsn)
        if len(chain) > CHAIN_RECORDS and key[3] == 0:
            records = chain[1 : CHAIN_RECORDS + 1]
            if all(record["rmgr"] in HEAP_RMGRS for record in records) and len(chains) < 100:
                chains.append((key, records[-1]["lsn"]))
        short = [n for n in range(1, len(chain)) if chain[n]["bytes"] <= SHORT_RECORD_BYTES]
        if short and len(steps) < 1000:
            number = draw.choice(short)
            (page,) = reader.pages([key], [chain[number - 1]["lsn"]])
            record = _record(store, chain[number])
            if record is not None and isinstance(page, bytes):
                steps.append(_Step(key, page, record))
    return steps, chains


def _record(store: Store, step: dict[str, Any]) -> tuple[int, int, bytes] | None:
    """A record's bytes; None if it goes on behind a page header."""
    start, size = step["start_lsn"], step["bytes"]
    if start % 8192 + size > 8192:
        return None
    segno, offset = divmod(start, SEGMENT_SIZE)
    with (store.wal_dir / f"{1:08X}{segno // 256:08X}{segno % 256:08X}").open("rb") as file:
        file.seek(offset)
        return start, step["lsn"], file.read(size)
