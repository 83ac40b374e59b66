"""`walproxy inspect` finds in WAL what that major's own pg_waldump finds in it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tools.server import Server
from walproxy.cli import app

WORKLOADS = Path(__file__).parent.parent / "workloads"
LINE = re.compile(
    r"rmgr: (?P<rmgr>\S+)\s+len \(rec/tot\):\s+(?P<len>\d+)/\s*(?P<total>\d+), tx:\s+(?P<xid>\d+), "
    r"lsn: (?P<lsn>[0-9A-F]+/[0-9A-F]+), prev (?P<prev>[0-9A-F]+/[0-9A-F]+), "
    r"desc: (?P<record>\S+(?: \([0-9a-f]+\))?) "
)
BLOCK = re.compile(
    r"\tblkref #(\d+): rel (\S+) fork (\w+) blk (\d+)"
    r"(?: \((FPW|FPW for WAL verification)\); hole: offset: (\d+), length: (\d+)"
    r"(?:, compression saved: (-?\d+), method: (\w+))?)?"
)


@dataclass(frozen=True, slots=True)
class Corpus:
    """WAL of a server that is stopped: its segments, from the first the server wrote."""

    folder: Path
    waldump: Path
    major: int
    late: str  # Where every change began to come with its page's image.

    @property
    def segments(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if re.fullmatch(r"[0-9A-F]{24}", path.name))

    def pg_waldump(self, *options: str) -> list[str]:
        """Its lines; where nothing else ends them, it fails at the end of WAL."""
        done = subprocess.run(
            [self.waldump, "-p", self.folder, *options], capture_output=True, text=True, check=False
        )
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def corpus(major: int, module_server: Server) -> Corpus:
    """The WAL of a short mixed workload, then of one with every change's page image."""
    server, folder = module_server, module_server.folder.parent
    server.configure(
        wal_level="logical", wal_keep_size="4GB", wal_compression="pglz", fsync=False, autovacuum_naptime="1s"
    )
    server.start()
    environment = server.environment | {"TX": "60", "ROUNDS": "1"}
    subprocess.run(["bash", WORKLOADS / "mixed.sh"], env=environment, check=True, timeout=200)
    late = server.value("select pg_current_wal_insert_lsn()")
    server.reload(wal_consistency_checking="all")
    server.run("pgbench", "-n", "-c", 2, "-t", 3, "-f", WORKLOADS / "mixed_tx.sql")
    server.query("select pg_switch_wal()")
    server.query("select pg_create_restore_point('here')")
    server.stop()
    kept = folder / "wal"
    shutil.copytree(server.data_dir / "pg_wal", kept)
    return Corpus(kept, server.bindir / "pg_waldump", major, late)


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def records(*arguments: str | Path) -> list[dict[str, Any]]:
    done = inspect(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def lsn(text: str) -> int:
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def of_pg_waldump(lines: list[str]) -> Iterator[tuple[Any, ...]]:
    """What is compared, from the output of ``pg_waldump --bkp-details``."""
    record: list[Any] = []
    for line in lines:
        if (head := LINE.match(line)) is not None:
            if record:
                yield tuple(record)
            numbers = (
                lsn(head["lsn"]),
                lsn(head["prev"]),
                *(int(head[key]) for key in ("len", "total", "xid")),
            )
            record = [*numbers, head["rmgr"], head["record"]]
        elif (block := BLOCK.fullmatch(line)) is not None:
            number, relation, fork, blkno, image, offset, length, _, method = block.groups()
            hole = (int(offset), int(length)) if image else None
            record.append((int(number), relation, fork, int(blkno), image, hole, method))
        else:
            assert not line.strip(), line
    if record:
        yield tuple(record)


def of_ours(found: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for record in found:
        blocks = []
        for block in record["blocks"]:
            image = block.get("image")
            kind = hole = method = None
            if image:
                kind = "FPW" if image["apply"] else "FPW for WAL verification"
                hole = (image["hole_offset"], image["hole_length"])
                method = None if image["compression"] == "none" else image["compression"]
            blocks.append((block["id"], block["relation"], block["fork"], block["block"], kind, hole, method))
        numbers = (record["length"], record["total_length"], record["xid"])
        positions = (lsn(record["lsn"]), lsn(record["prev"]))
        yield (*positions, *numbers, record["rmgr"], record["record"], *blocks)


@pytest.mark.pg_every
def test_the_same_records_as_pg_waldump(corpus: Corpus) -> None:
    # What initdb and set-up wrote; the middle; the end, with an image of every page changed.
    for options in (
        ("-s", "0/1000000", "-n", "20000"),
        ("-s", "0/5000000", "-n", "40000"),
        ("-s", corpus.late),
    ):
        theirs = list(of_pg_waldump(corpus.pg_waldump("--bkp-details", *options)))

        ours = list(of_ours(records(corpus.folder, *options)))

        assert len(theirs) > 200
        for mine, other in zip(ours, theirs, strict=False):
            assert mine == other
        assert len(ours) == len(theirs)


@pytest.mark.pg_every
def test_text_is_that_of_pg_waldump_byte_for_byte(corpus: Corpus) -> None:
    for options in ((), ("--bkp-details",)):
        theirs = corpus.pg_waldump("-s", "0/1000000", *options)

        done = inspect(corpus.folder, "--format=pg_waldump", *options)

        assert len(theirs) > 100_000
        assert done.stdout.splitlines() == theirs


def lsns(lines: list[str]) -> list[int]:
    return [lsn(head["lsn"]) for line in lines if (head := LINE.match(line)) is not None]


def test_filters_choose_what_pg_waldump_chooses(corpus: Corpus) -> None:
    whole = ("-s", "0/3000000", "-e", "0/3800000")
    everything = records(corpus.folder, *whole)
    some = next(r for r in everything if r["rmgr"] == "Btree" and r["xid"] and r["blocks"][0]["block"] > 1)
    relation, block = some["blocks"][0]["relation"], str(some["blocks"][0]["block"])
    middle, later = everything[len(everything) // 3]["lsn"], everything[len(everything) // 2]["lsn"]
    between = everything[len(everything) * 5 // 12]["rmgr"]
    for options in (
        ("-r", "Heap2", "-r", "gin", *whole),
        ("-x", str(some["xid"]), *whole),
        ("-R", relation, *whole),
        ("-R", relation, "-B", block, *whole),
        ("-F", "vm", "-s", "0/1000000"),
        ("-w", "-s", "0/1000000", "-e", "0/1800000"),
        ("-n", "17", *whole),
        ("-s", middle, "-n", "5"),
        ("-s", middle, "-e", later),
        ("-s", f"{middle[:-2]}08", "-e", f"{later[:-2]}03", "-r", between),
    ):
        theirs = lsns(corpus.pg_waldump(*options))
        ours = [lsn(record["lsn"]) for record in records(corpus.folder, *options)]
        assert ours == theirs, options
        assert theirs, options


def test_totals_are_those_of_pg_waldump(corpus: Corpus) -> None:
    for by in ("rmgr", "record"):
        theirs = {}
        for line in corpus.pg_waldump(f"--stats={by}", "-s", "0/1000000"):
            if row := re.match(r"(\S+)\s+(\d+) \(.{6}\)\s+(\d+) \(.{6}\)\s+(\d+) \(", line):
                kind, *numbers = row.groups()
                theirs[kind] = [int(number) for number in numbers]

        done = inspect(corpus.folder, f"--stats={by}", "--json")

        ours = {}
        for row in map(json.loads, done.stdout.splitlines()):
            kind = f"{row['rmgr']}/{row['record']}" if by == "record" else row["rmgr"]
            ours[kind] = [row["count"], row["record_bytes"], row["fpi_bytes"]]
        assert ours == {kind: numbers for kind, numbers in theirs.items() if numbers[0]}
        assert sum(row[2] for row in ours.values()) > 0


def test_tables_show_records_and_totals(corpus: Corpus) -> None:
    rows = inspect(corpus.folder, "-n", "3").stdout.splitlines()
    assert "CHECKPOINT_SHUTDOWN" in rows[1]
    assert len(rows) == 4

    totals = inspect(corpus.folder, "-z").stdout
    assert f"PostgreSQL {corpus.major}" in totals
    assert "images' share" in totals


def test_one_segment_ends_where_its_last_record_does_not(corpus: Corpus) -> None:
    segment = corpus.segments[0]

    ours = records(segment, "-s", "0/1F00000")

    assert ours == records(corpus.folder, "-s", "0/1F00000", "-e", "0/2000000")
    assert len(ours) > 1000


def test_a_partial_segment_may_end_anywhere(corpus: Corpus, tmp_path: Path) -> None:
    whole = corpus.segments[1]
    partial = tmp_path / f"{whole.name}.partial"
    partial.write_bytes(whole.read_bytes()[:1_000_001])

    ours = records(tmp_path)

    assert ours == [r for r in records(whole) if lsn(r["end"]) <= lsn("0/2000000") + 1_000_001]
    assert len(ours) > 100


def test_a_truncated_segment_is_an_error_that_says_where(corpus: Corpus, tmp_path: Path) -> None:
    whole = corpus.segments[1]
    cut = tmp_path / whole.name
    cut.write_bytes(whole.read_bytes()[:1_000_001])

    done = inspect(cut, "--json")

    last = json.loads(done.stdout.splitlines()[-1])
    assert done.exit_code == 3
    assert "the file is shorter than a segment" in done.stderr
    assert f"good_until={last['end']} file={cut} size=1000001" in done.stderr


def test_a_flipped_bit_is_an_error_that_says_where(corpus: Corpus, tmp_path: Path) -> None:
    whole = corpus.segments[1]
    wal = bytearray(whole.read_bytes())
    wal[500_000] ^= 4
    bad = tmp_path / whole.name
    bad.write_bytes(wal)
    good = records(whole, "-e", "0/2200000")

    done = inspect(bad, "--json")

    shown = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.exit_code == 3
    assert shown == good[: len(shown)]
    place = lsn(shown[-1]["end"])
    assert place <= lsn("0/2000000") + 500_000 < lsn(good[len(shown)]["end"])
    assert f"good_until={shown[-1]['end']} file={bad} offset={place - lsn('0/2000000')}" in done.stderr

    behind = inspect(bad, "--json", "--continue", "-e", "0/2200000")

    shown = [json.loads(line) for line in behind.stdout.splitlines()]
    assert behind.exit_code == 3
    assert shown[-1] == good[-1]
    kept = {record["lsn"] for record in shown}
    assert [record for record in good if record["lsn"] in kept] == shown
    assert 0 < len(good) - len(shown) < 1000


def test_wal_that_is_missing_is_named(corpus: Corpus, tmp_path: Path) -> None:
    for path in corpus.segments[:4]:
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / corpus.segments[1].name).unlink()

    done = inspect(tmp_path, "--json")
    assert done.exit_code == 3
    assert "wal is missing from_lsn=0/2000000 to_lsn=0/3000000" in done.stderr

    behind = inspect(tmp_path, "--json", "--start", "0/3000000")
    assert behind.exit_code == 0
    assert len(behind.stdout.splitlines()) > 1000


def test_what_is_no_wal_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    text = tmp_path / "letter"
    text.write_text("dear reader, " * 100)
    renamed = tmp_path / "000000010000000000000009"
    renamed.write_bytes(corpus.segments[0].read_bytes())
    for arguments, code, says in (
        ((text,), 1, "no wal segment of postgres 15 to 18"),
        ((renamed,), 3, "the file holds other wal than its name says"),
        ((tmp_path / "nothing",), 1, "no such file or folder"),
        ((corpus.folder, "-s", "9/0"), 1, "the start is not in there"),
        ((corpus.folder, "-r", "Heap3"), 1, "no such resource manager"),
        ((corpus.folder, "-B", "3"), 1, "option --block requires option --relation"),
        ((corpus.folder, "-e", "xyz"), 1, "not an lsn"),
    ):
        done = inspect(*arguments)
        assert (done.exit_code, done.stdout) == (code, ""), done.stderr
        assert says in done.stderr


def test_a_live_server_is_read_like_its_files(pg: Server) -> None:
    start = pg.value("select pg_current_wal_insert_lsn()")
    pg.query("create table seen as select g from generate_series(1, 1000) g")
    end = pg.value("select pg_current_wal_flush_lsn()")

    ours = records(pg.conninfo(), "--start", start, "--end", end)
    from_segment = records(pg.conninfo())

    pg.stop()
    files = records(pg.data_dir, "--start", start, "--end", end)
    assert ours == files
    assert len(ours) > 1000
    assert lsn(from_segment[0]["lsn"]) < lsn(start)

    gone = inspect(pg.conninfo())
    assert gone.exit_code == 1
    assert "cannot connect" in gone.stderr
