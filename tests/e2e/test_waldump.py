"""`walproxy inspect --format=pg_waldump` says and does what pg_waldump of the same major says and does."""

import gzip
import importlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import zstandard
from typer.testing import CliRunner

from tools.server import Server
from tools.wait import until
from walproxy.cli import app
from walproxy.inspect.waldump import run as waldump

WORK = """
create table t (k int primary key, v text, j jsonb, p point);
create index on t using gin (j); create index on t using gist (p); create index on t using hash (v);
create index on t using brin (k); create index on t using spgist (p);
insert into t select g, repeat(g::text, 9), jsonb_build_object('a', g), point(g, g) from generate_series(1, 3000) g;
checkpoint;
update t set v = v || 'x' where k % 2 = 0;
delete from t where k % 3 = 0;
create unlogged table u (k int primary key);
create sequence s; select nextval('s');
select pg_logical_emit_message(true, 'prefix', 'content');
vacuum t;
begin; insert into t values (9001, 'v', '{}', point(1, 1)); rollback;
checkpoint;
update t set v = v || 'y';
"""


@dataclass(frozen=True, slots=True)
class Corpus:
    """WAL of a server that is stopped, from its first segment on."""

    folder: Path
    program: Path
    major: int
    start: str  # Where the work began, and where it ended.
    end: str
    relation: str
    xid: str

    def segment(self, number: int) -> Path:
        return self.folder / f"00000001{0:08X}{number:08X}"

    def theirs(self, *options: str | Path, cwd: Path | None = None) -> tuple[int, bytes, str]:
        done = subprocess.run([self.program, *options], capture_output=True, check=False, cwd=cwd)
        return done.returncode, done.stdout, done.stderr.decode()


@pytest.fixture(scope="module")
def corpus(major: int, module_server: Server) -> Corpus:
    server, folder = module_server, module_server.folder.parent
    server.configure(
        wal_level="logical", wal_compression="pglz", wal_keep_size="1GB", fsync=False, autovacuum=False
    )
    server.start()
    start = server.value("select pg_current_wal_insert_lsn()")
    for statement in WORK.strip().split(";\n"):
        server.query(statement) if "begin" not in statement else server.run("psql", "-qc", statement)
    server.reload(wal_consistency_checking="all")
    end = server.value("select pg_current_wal_insert_lsn()")
    relation = (
        "select format('1663/%%s/%%s', oid, pg_relation_filenode('t')) from pg_database where datname = %s"
    )
    of_t = server.value(relation, server.value("select current_database()"))
    xid = server.value("select xmin::text from t where k = 1")
    for number in range(2):
        server.query("select pg_switch_wal()")
        server.query(f"create table behind_{number} as select 1 as k")
    server.stop()
    kept = folder / "wal"
    shutil.copytree(server.data_dir / "pg_wal", kept)
    return Corpus(kept, server.bindir / "pg_waldump", major, start, end, of_t, xid)


def ours(*options: str | Path) -> tuple[int, bytes, str]:
    out, complaints = io.BytesIO(), list[str]()
    code = waldump.run(list(map(str, options)), os.environ, out, complaints.append)
    return code, out.getvalue(), "".join(complaints)


@pytest.mark.pg_every
def test_every_option_gives_what_pg_waldump_gives(corpus: Corpus) -> None:
    path, work = ("-p", str(corpus.folder)), ("-s", corpus.start, "-e", corpus.end)
    begin = f"{corpus.start[:-1]}{int(corpus.start[-1], 16) + 1:X}"
    for options in (
        (*path, "-s", "0/1000000"),
        (*path, *work, "-b"),
        *(
            (*path, "-s", "0/1000000", form)
            for form in ("-z", "--stats", "--stat", "--stats=rmgr", "--stats=record")
        ),
        (*path, "-s", corpus.end, "--quiet"),
        (*path, "-s", corpus.end, "--stats=record", "-r", "XLOG"),
        *((*path, *work, "-r", *named) for named in (("Heap2", "-r", "gin"), ("custom128",), ("GIST",))),
        (*path, *work, "--xid", corpus.xid),
        (*path, *work, "-R", corpus.relation),
        (*path, *work, "-R", corpus.relation, "--block=2", "--stats"),
        *((*path, "-s", "0/1000000", "-F", fork) for fork in ("vm", "init", "fsm")),
        (*path, *work, "-w", "-b"),
        *((*path, *work, "-n", limit) for limit in ("17", "0", "-3")),
        (*path, *work, "--follow"),
        (*path, *work, "-t", "1"),
        (*path, "-s", begin, "-n", "3"),
        (*path, "-s", begin, "-e", begin),
        (str(corpus.segment(1)),),
        (str(corpus.segment(1)), corpus.segment(2).name, "-z"),
        (*path, corpus.segment(1).name, str(corpus.segment(2)), "-n", "5000"),
        ("--rmgr=list",),
    ):
        found, expected = ours(*options), corpus.theirs(*options)
        assert found[::2] == expected[::2], options
        assert found[1].splitlines() == expected[1].splitlines(), options


@pytest.mark.pg_every
def test_what_pg_waldump_refuses_is_refused_in_its_words(corpus: Corpus, tmp_path: Path) -> None:
    first = str(corpus.segment(1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    cases: list[Sequence[str]] = [
        (),
        ("-p", str(corpus.folder)),
        ("-p", "/nowhere", "-s", "0/1000000"),
        ("-p", str(tmp_path), "-s", "0/1000000"),
        ("/nowhere/000000010000000000000001",),
        (f"{corpus.folder}/000000010000000900000001",),
        (first, "nothing"),
        (str(corpus.segment(2)), first),
        (str(corpus.segment(2)), "-s", "0/1000000"),
        (first, "-e", "0/3000000"),
        ("-z", "a", "b", "c"),
        ("--stats=x",),
        *((option, "bad") for option in ("-B", "-F", "-n", "-R", "-r", "-s", "-e", "-x")),
        ("-B", "4294967295"),
        ("-B", "3"),
        ("-R", "0/5/3"),
        ("-r", "custom12"),
    ]
    if corpus.major == 18:
        # pg_waldump waits five seconds for the file.
        cases.append(("-p", str(corpus.folder), "-s", "9/0"))
    if corpus.major > 15:
        cases += [
            ("-t", "bad"),
            ("-t", "0"),
            ("-t", "-1"),
            ("--save-fullpage", str(tmp_path / "full"), first),
        ]
    for options in cases:
        assert ours(*options) == corpus.theirs(*options), options


@pytest.mark.pg_every
def damaged(corpus: Corpus, folder: Path, change: Callable[[bytearray], object]) -> Path:
    folder.mkdir()
    data = bytearray(corpus.segment(1).read_bytes())
    change(data)
    (folder / corpus.segment(1).name).write_bytes(data)
    shutil.copy(corpus.segment(2), folder)
    return folder


def test_damage_ends_the_reading_where_and_as_it_does_in_pg_waldump(corpus: Corpus, tmp_path: Path) -> None:
    changes: tuple[Callable[[bytearray], object], ...] = (
        *(
            lambda data, at=at: data.__setitem__(at, data[at] ^ 0x5A)
            for at in (300_000, 300_001, 300_017, 300_100)
        ),
        *(
            lambda data, at=at: data.__setitem__(slice(at, at + 8192), bytes(8192))
            for at in (16384, 65536, 70_000)
        ),
        # Of a page header: magic, flags, timeline, address, length of what is continued.
        *(lambda data, at=at: data.__setitem__(81920 + at, 0x77) for at in (0, 2, 3, 9, 16, 18)),
        lambda data: data.__setitem__(slice(81920 + 4, 81920 + 8), bytes(4)),
        lambda data: data.__delitem__(slice(700_001, None)),
        lambda data: data.__delitem__(slice(8192 * 40 + 12, None)),
    )
    for number, change in enumerate(changes):
        folder = damaged(corpus, tmp_path / str(number), change)
        for form in ((), ("-z",)):
            options = ("-p", str(folder), "-s", "0/1000000", *form)
            assert ours(*options) == corpus.theirs(*options), (number, form)


@pytest.mark.pg_every
def test_a_timeline_that_the_next_page_takes_back_ends_the_reading_no_later(
    corpus: Corpus, tmp_path: Path
) -> None:
    folder = damaged(corpus, tmp_path / "tli", lambda data: data.__setitem__(81920 + 4, 0x77))
    options = ("-p", str(folder), "-s", "0/1000000")

    code, shown, complaint = ours(*options)

    their_code, theirs, _ = corpus.theirs(*options)
    assert (code, their_code) == (1, 1)
    # pg_waldump trusts the page until it has seen the next one.
    assert theirs.startswith(shown)
    assert "error in WAL record" in complaint


@pytest.mark.pg(16, 17, 18)
@pytest.mark.pg_every
def test_full_page_images_are_saved_as_pg_waldump_saves_them(corpus: Corpus, tmp_path: Path) -> None:
    saved = []
    for name, dump in (("ours", ours), ("theirs", corpus.theirs)):
        folder = tmp_path / name / "new"
        done = dump(
            "-p", corpus.folder, "-s", corpus.start, "-e", corpus.end, "-q", f"--save-fullpage={folder}"
        )
        assert done == (0, b"", "")
        saved.append({path.name: path.read_bytes() for path in folder.iterdir()})

    assert saved[0] == saved[1]
    assert len(saved[0]) > 50


def test_archives_are_read_whatever_they_are_packed_with(corpus: Corpus, tmp_path: Path) -> None:
    whole = [corpus.segment(number).read_bytes() for number in (1, 2, 3)]
    names = [corpus.segment(number).name for number in (1, 2, 3)]
    (tmp_path / f"{names[0]}.gz").write_bytes(gzip.compress(whole[0], 1))
    (tmp_path / f"{names[1]}-{'0123456789' * 4}.zst").write_bytes(zstandard.compress(whole[1]))
    (tmp_path / f"{names[2]}.partial.lz4").write_bytes(
        importlib.import_module("lz4.frame").compress(whole[2])
    )
    plain = corpus.theirs("-p", corpus.folder, "-s", "0/1000000", "-e", "0/4000000")
    assert len(plain[1]) > 1_000_000

    assert ours("-p", tmp_path, "-s", "0/1000000", "-e", "0/4000000") == plain
    assert ours(tmp_path, "-e", "0/4000000") == plain
    assert ours(tmp_path / f"{names[1]}-{'0123456789' * 4}.zst")[1:] == corpus.theirs(corpus.segment(2))[1:]
    table = CliRunner().invoke(app, ["inspect", str(tmp_path), "--json"])
    assert table.stdout == CliRunner().invoke(app, ["inspect", str(corpus.folder), "--json"]).stdout

    (tmp_path / f"{names[0]}.gz").write_bytes(gzip.compress(whole[0], 1)[:-20_000])
    code, text, complaint = ours(tmp_path)
    assert (code, text) == (1, b"")
    assert "the file does not unpack" in complaint


def test_a_live_server_is_read_like_its_files(pg: Server) -> None:
    pg.query("create table t as select g as k from generate_series(1, 50000) g")
    end = pg.value("select pg_current_wal_flush_lsn()")

    text = ours(pg.conninfo(), "-s", "0/1000000", "-e", end)
    present = ours(pg.conninfo(), "--stats")

    pg.stop()
    assert text == ours("-p", pg.data_dir, "-s", "0/1000000", "-e", end)
    assert len(text[1]) > 1_000_000
    assert present[0] == 0
    assert b"WAL statistics between" in present[1]
    assert "error" in ours(pg.conninfo())[2]


def test_following_shows_what_is_written_until_it_is_interrupted(pg: Server, tmp_path: Path) -> None:
    start = pg.value("select pg_current_wal_insert_lsn()")
    pg.query("create table t (k int)")
    for target in (("-p", str(pg.data_dir), "-s", start), (pg.conninfo(), "-s", start)):
        shown = tmp_path / str(len(list(tmp_path.iterdir())))
        command = [sys.executable, "-m", "walproxy", "inspect", "--format=pg_waldump", "-f", *target]
        # Whoever runs the tests in the background may have told them to ignore the interrupt.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        with (
            shown.open("wb") as out,
            subprocess.Popen(command, stdout=out, preexec_fn=heeding) as process,  # noqa: PLW1509
        ):
            try:
                for word in ("one", "two"):
                    pg.query("select pg_logical_emit_message(false, 'walproxy', %s)", word)
                    pg.query("select pg_switch_wal()")
                    until(partial(shows, shown, word.encode().hex(" ").upper()), what="the message is shown")
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 0
            finally:
                process.kill()


def shows(path: Path, text: str) -> bool:
    return text in path.read_text()


def test_the_program_starts_without_what_other_commands_need(corpus: Corpus) -> None:
    options = ("-p", str(corpus.folder), "-s", corpus.start, "-e", corpus.end)
    command = [
        sys.executable,
        "-X",
        "importtime",
        "-m",
        "walproxy",
        "inspect",
        "--format",
        "pg_waldump",
        *options,
    ]

    done = subprocess.run(command, capture_output=True, check=True)

    assert done.stdout == corpus.theirs(*options)[1]
    assert b"walcore._native" in done.stderr
    for heavy in (b"typer", b"asyncio", b"pydantic", b"psycopg"):
        assert heavy not in done.stderr, heavy
