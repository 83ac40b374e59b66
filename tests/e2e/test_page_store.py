"""The native page store against a stopped server's own files: every page, at the end of its WAL."""

import random
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha1
from pathlib import Path

from tests.fix_pg import NewServer
from tools.server import Server
from walcore import LsnNotCovered
from walcore._native import BaseWriter, Ingest, Layer, Reader, WalScanner, mask_page

SEGMENT_SIZE = 16 << 20
FORKS = {"": 0, "_vm": 2, "_init": 3}
RELATION = re.compile(r"(\d+)(_vm|_init)?(?:\.(\d+))?")
CHURN = """
    create table churn_a (id int primary key, note text) with (autovacuum_enabled = off);
    insert into churn_a select g, repeat(g::text, 30) from generate_series(1, 5000) g;
    vacuum churn_a;
    delete from churn_a where id > 1000;
    vacuum churn_a;
    insert into churn_a select g, 'again' from generate_series(6001, 12000) g;
    update churn_a set note = note || '!' where id % 7 = 0;
    create table churn_b with (autovacuum_enabled = off) as select * from churn_a;
    truncate churn_b;
    insert into churn_b select g, 'b' from generate_series(1, 2000) g;
    create index on churn_b (note, id);
    drop table churn_a;
    create table churn_a (id serial primary key, big text) with (autovacuum_enabled = off);
    insert into churn_a (big)
        select string_agg(md5(random()::text), '') from generate_series(1, 4000) g group by g / 200;
    create table churn_c as select * from churn_b;
    drop table churn_c;
    vacuum freeze churn_b;
    create unlogged table churn_u (id int primary key);
    insert into churn_u values (1);
    cluster churn_b using churn_b_note_id_idx;
    update churn_b set note = 'c' where id < 100;
"""

Fork = tuple[int, int, int, int]


def relation_files(data_dir: Path) -> dict[Fork, list[Path]]:
    """Files of every fork but free space maps and temporary relations, by (spc, db, rel, fork)."""
    folders = [(1664, 0, data_dir / "global")]
    folders += [(1663, int(folder.name), folder) for folder in (data_dir / "base").glob("[0-9]*")]
    for folder in (data_dir / "pg_tblspc").glob("*/PG_*/*"):
        folders.append((int(folder.parent.parent.name), int(folder.name), folder))
    found: dict[Fork, list[tuple[int, Path]]] = {}
    for spc, db, folder in folders:
        for path in folder.iterdir():
            if match := RELATION.fullmatch(path.name):
                name = (spc, db, int(match[1]), FORKS[match[2] or ""])
                found.setdefault(name, []).append((int(match[3] or 0), path))
    return {name: [path for _, path in sorted(files)] for name, files in sorted(found.items())}


def slru_files(data_dir: Path, kind: str) -> list[tuple[int, Path]]:
    return sorted((int(path.name, 16), path) for path in (data_dir / kind).iterdir())


@dataclass
class Store:
    """A page store in a folder, from a base backup and a directory of segments."""

    folder: Path
    wal_dir: Path
    major: int
    backup: Path
    start_lsn: int = 0
    end_lsn: int = 0
    system_id: int = 0
    base_state: bytes = b""
    layers: list[Layer] = field(default_factory=list)

    def build(self) -> Ingest:
        label = (self.backup / "backup_label").read_text()
        high, low = re.findall(r"START WAL LOCATION: (\w+)/(\w+)", label)[0]
        self.start_lsn = (int(high, 16) << 32) + int(low, 16)
        scanner = WalScanner(self.start_lsn, segment_size=SEGMENT_SIZE)
        for piece in self.wal(self.start_lsn, None):
            if scanner.feed_to_end(piece):
                break
        self.end_lsn, self.system_id = scanner.record_end_lsn, scanner.system_id
        path = self.folder / "base"
        writer = BaseWriter(str(path), lsn=self.start_lsn, system_id=self.system_id)
        for fork, files in relation_files(self.backup).items():
            writer.add_relation(*fork, [str(file) for file in files])
        for kind in ("pg_xact", "pg_multixact/offsets", "pg_multixact/members", "pg_commit_ts"):
            writer.add_slru(kind, [(n, str(file)) for n, file in slru_files(self.backup, kind)])
        self.base_state = writer.finish()
        self.layers.append(Layer.open(str(path)))
        return self.ingest(self.start_lsn, self.base_state)

    def ingest(self, lsn: int, state: bytes) -> Ingest:
        return Ingest(lsn, segment_size=SEGMENT_SIZE, system_id=self.system_id, major=self.major, state=state)

    def wal(self, start: int, end: int | None, piece: int = 1 << 20) -> Iterator[bytes]:
        """The bytes of the segments between two LSNs."""
        position = start
        while end is None or position < end:
            segno, offset = divmod(position, SEGMENT_SIZE)
            path = self.wal_dir / f"{1:08X}{segno // 256:08X}{segno % 256:08X}"
            if not path.exists():
                return
            with path.open("rb") as file:
                file.seek(offset)
                while data := file.read(piece if end is None else min(piece, end - position)):
                    position += len(data)
                    yield data

    def reader(self, *more: Layer, hint_bits_logged: bool = False) -> Reader:
        return Reader(
            [*self.layers, *more],
            wal_dir=str(self.wal_dir),
            tli=1,
            segment_size=SEGMENT_SIZE,
            major=self.major,
            hint_bits_logged=[(0, hint_bits_logged)],
        )


def access_methods(server: Server) -> dict[tuple[int, int], str]:
    """What kind of page each (database, relfilenode) has; database 0 for shared relations."""
    found = {}
    for name, oid in server.query("select datname, oid from pg_database where datallowconn"):
        rows = server.query(
            "select case when c.relisshared then 0 else %s end, pg_relation_filenode(c.oid),"
            " case when c.relkind = 'S' then 'sequence' else am.amname end"
            " from pg_class c left join pg_am am on am.oid = c.relam"
            " where pg_relation_filenode(c.oid) is not null",
            int(oid),
            dbname=name,
        )
        found.update({(int(db), int(rel)): am for db, rel, am in rows})
    return found


def differences(data_dir: Path, reader: Reader, lsn: int, methods: dict[tuple[int, int], str]) -> list[str]:
    """What is wrong with the store's pages and sizes, judged by a stopped server's files."""
    wrong = []
    sizes = {(spc, db, rel, fork): blocks for spc, db, rel, fork, blocks in reader.relations(lsn)}
    live = relation_files(data_dir)
    unlogged = {name[:3] for name in live if name[3] == 3}
    live = {name: files for name, files in live.items() if name[3] == 3 or name[:3] not in unlogged}
    wrong += [f"{name}: not on disk" for name, blocks in sizes.items() if blocks and name not in live]
    for name, files in live.items():
        pages = b"".join(file.read_bytes() for file in files)
        blocks = sizes.get(name, 0)
        if not fits(blocks, pages):
            wrong.append(f"{name}: {blocks} blocks, on disk {len(pages) // 8192}")
            continue
        method = "vm" if name[3] == 2 else methods.get((name[1], name[2]))
        got = reader.pages([(*name, blkno) for blkno in range(blocks)], [lsn])
        for blkno, ours in enumerate(got):
            theirs = pages[blkno * 8192 : (blkno + 1) * 8192]
            if isinstance(ours, Exception):
                wrong.append(f"{name} {blkno}: {ours!r}")
            elif method is None and ours != theirs:
                wrong.append(f"{name} {blkno}: unknown relation differs")
            elif method and masked(ours, method, blkno) != masked(theirs, method, blkno):
                wrong.append(
                    f"{name} {blkno}: {method} differs at {first_difference(ours, theirs, method, blkno)}"
                )
    return wrong


def fits(blocks: int, pages: bytes) -> bool:
    """Whether a fork of so many blocks in WAL can be these pages on disk: extension is not logged."""
    beyond = range(blocks * 8192, len(pages), 8192)
    return blocks <= len(pages) // 8192 and not any(pages[i + 24 : i + 8192].strip(b"\0") for i in beyond)


def masked(page: bytes, method: str, blkno: int) -> bytes:
    """The page without what WAL does not decide, and without a sequence's values, which lag its WAL."""
    page = mask_page(page, access_method=method, blkno=blkno)
    if method == "sequence":
        # last_value, log_cnt and is_called are the last 24 bytes before the special space of 8.
        return page[: -8 - 24] + page[-8:]
    return page


def first_difference(ours: bytes, theirs: bytes, method: str, blkno: int) -> str:
    pair = zip(masked(ours, method, blkno), masked(theirs, method, blkno), strict=True)
    at = next(i for i, (a, b) in enumerate(pair) if a != b)
    return f"{at} ({ours[at]:02x}, on disk {theirs[at]:02x}; lsn {ours[:8].hex()}, {theirs[:8].hex()})"


@dataclass
class Remembered:
    """What a relation's files held at an LSN at which nobody wrote."""

    lsn: int
    name: Fork
    pages: bytes


def remember(server: Server, relation: str) -> Remembered:
    """The main fork of a relation as it is on disk after a checkpoint, and the LSN to ask for.

    Nobody else may write to it: autovacuum is off for these relations.
    """
    server.query("checkpoint")
    lsn = int(server.value("select pg_current_wal_insert_lsn() - '0/0'"))
    db, rel = server.query(
        "select d.oid, pg_relation_filenode(%s::regclass) from pg_database d where datname = 'postgres'",
        relation,
    )[0]
    file = server.data_dir / server.value("select pg_relation_filepath(%s::regclass)", relation)
    return Remembered(lsn, (1663, int(db), int(rel), 0), file.read_bytes())


def forgotten(memories: list[Remembered], reader: Reader) -> list[str]:
    """Which remembered pages the reader does not give."""
    wrong = []
    for memory in memories:
        blocks = reader.size(*memory.name, memory.lsn)
        if blocks is None or not fits(blocks, memory.pages):
            wrong.append(f"{memory.name} at {memory.lsn:X}: {blocks} blocks")
            continue
        keys = [(*memory.name, blkno) for blkno in range(blocks)]
        for blkno, ours in enumerate(reader.pages(keys, [memory.lsn])):
            theirs = memory.pages[blkno * 8192 : (blkno + 1) * 8192]
            if isinstance(ours, Exception) or masked(ours, "heap", blkno) != masked(theirs, "heap", blkno):
                wrong.append(f"{memory.name} {blkno} at {memory.lsn:X}: {ours!r:.200}")
    return wrong


def slru_differences(data_dir: Path, reader: Reader, lsn: int) -> list[str]:
    wrong = []
    for segment, file in slru_files(data_dir, "pg_xact"):
        pages = file.read_bytes()
        for number in range(len(pages) // 8192):
            pageno = segment * 32 + number
            if reader.slru_page("pg_xact", pageno, lsn) != pages[number * 8192 : (number + 1) * 8192]:
                wrong.append(f"pg_xact {pageno}")
    return wrong


def churn(server: Server) -> list[Remembered]:
    """Fill, cut, drop and make again some tables, and remember them on the way."""
    memories: list[Remembered] = []
    for statement in CHURN.split(";\n"):
        if statement.strip():
            server.query(statement)
        exist = "select c from unnest(array['churn_a', 'churn_b']) c where to_regclass(c) is not null"
        memories.extend(remember(server, relation) for (relation,) in server.query(exist))
    return memories


def frozen_files(store: Store, pieces: int) -> tuple[list[Layer], bytes]:
    """The store's WAL as so many layer files, each by an Ingest begun where the last ended; and the state."""
    state = store.base_state
    layers = []
    step = (store.end_lsn - store.start_lsn) // pieces
    lsn = store.start_lsn
    for number in range(pieces):
        ingest = store.ingest(lsn, state)
        upto = store.end_lsn if number == pieces - 1 else store.start_lsn + (number + 1) * step
        for piece in store.wal(lsn, upto):
            ingest.feed(piece)
        path = store.folder / f"layer-{number}"
        ingest.freeze().write(str(path))
        layers.append(Layer.open(str(path)))
        layers[-1].check()
        lsn, state = ingest.ingested_lsn, ingest.state()
    return layers, state


def test_every_page_of_a_busy_database_equals_the_stopped_servers(
    folder: Path, new_server: NewServer
) -> None:
    server = new_server(wal_keep_size="4GB", autovacuum_naptime="1s", fsync=False).start()
    server.run("pgbench", "-i", "-q", "-s", 2)
    load = server.background("pgbench", "-c", 4, "-T", 8, "-n")
    load.start()
    backup = server.base_backup(server.folder / "backup", "-X", "none")
    memories = churn(server)
    load.wait()
    server.query("create database copy template postgres strategy file_copy")
    server.query("insert into churn_b values (99999, 'copied')", dbname="copy")
    methods = access_methods(server)
    server.stop()

    store = Store(folder, server.data_dir / "pg_wal", server.major, backup)
    ingest = store.build()
    for piece in store.wal(store.start_lsn, store.end_lsn):
        ingest.feed(piece)
    files, state = frozen_files(store, 5)
    Layer.merge(files[1:4], str(folder / "merged"))
    merged = [files[0], Layer.open(str(folder / "merged")), files[4]]

    assert ingest.ingested_lsn == store.end_lsn
    assert state == ingest.state()
    for layers in ([ingest.open_layer()], files, merged):
        reader = store.reader(*layers)
        wrong = differences(server.data_dir, reader, store.end_lsn, methods)
        wrong += forgotten(memories, reader)
        wrong += slru_differences(server.data_dir, reader, store.end_lsn)
        assert not wrong, "\n".join(wrong[:20])
    keys = [(*memory.name, 0) for memory in memories]
    readers = [store.reader(*layers) for layers in ([ingest.open_layer()], files, merged)]
    counts = [[reader.delta_counts(key) for key in keys] for reader in readers]
    assert counts[0] == counts[1] == counts[2]


@dataclass
class Shared:
    """What a feeding thread and reading ones share: the newest reader, and what was read."""

    store: Store
    ingest: Ingest
    reader: Reader
    is_done: bool = False
    answers: list[tuple[int, list[tuple[int, int, int, int, int]], list[str]]] = field(default_factory=list)

    def feed(self) -> None:
        """Feed small pieces; freeze, write and open a layer now and then."""
        for number, piece in enumerate(self.store.wal(self.store.start_lsn, self.store.end_lsn, 8192)):
            self.ingest.feed(piece)
            time.sleep(0.001)  # Or it would be done before anyone has read.
            if number % 200 == 199:
                frozen = self.ingest.freeze()
                self.reader = self.store.reader(frozen, self.ingest.open_layer())
                path = self.store.folder / f"live-{number}"
                frozen.write(str(path))
                self.store.layers.append(Layer.open(str(path)))
                self.reader = self.store.reader(self.ingest.open_layer())
        self.is_done = True

    def read(self, seed: int, keys: list[tuple[int, int, int, int, int]]) -> None:
        """Read some pages at the newest LSN, again and again."""
        draw = random.Random(seed)
        while not self.is_done:
            asked = draw.sample(keys, 20)
            reader, lsn = self.reader, self.ingest.ingested_lsn
            got = reader.pages(asked, [lsn])
            time.sleep(0.005)
            if not any(isinstance(page, LsnNotCovered) for page in got):
                self.answers.append((lsn, asked, shown(got)))


def shown(pages: list[bytes | Exception]) -> list[str]:
    return [repr(page) if isinstance(page, Exception) else sha1(page).hexdigest() for page in pages]


def test_pages_read_while_wal_is_fed_are_those_of_their_lsn(folder: Path, new_server: NewServer) -> None:
    server = new_server(wal_keep_size="4GB", fsync=False).start()
    backup = server.base_backup(server.folder / "backup", "-X", "none")
    for statement in CHURN.split(";\n"):
        if statement.strip():
            server.query(statement)
    server.stop()
    store = Store(folder, server.data_dir / "pg_wal", server.major, backup)
    ingest = store.build()
    base = list(store.layers)

    shared = Shared(store, ingest, store.reader(ingest.open_layer()))
    whole = store.ingest(store.start_lsn, store.base_state)
    for piece in store.wal(store.start_lsn, store.end_lsn):
        whole.feed(piece)
    expected = Store(folder, store.wal_dir, store.major, backup, layers=base).reader(whole.open_layer())
    rels = expected.relations(store.end_lsn)
    ours = [rel for rel in rels if rel[2] >= 16384]
    keys = [(spc, db, rel, fork, blkno) for spc, db, rel, fork, blocks in ours for blkno in range(blocks)]
    with ThreadPoolExecutor() as threads:
        readers = [threads.submit(shared.read, seed, keys) for seed in range(3)]
        threads.submit(shared.feed).result()
        for reader in readers:
            reader.result()

    assert len({lsn for lsn, _, _ in shared.answers}) > 20
    assert len(store.layers) > 3
    for lsn, asked, got in shared.answers:
        assert got == shown(expected.pages(asked, [lsn]))
