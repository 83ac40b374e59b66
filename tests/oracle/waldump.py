"""`walproxy inspect --format=pg_waldump` beside pg_waldump of the same major, over the WAL of PostgreSQL's own suite.

Both are run as a user runs them, with each option and filter over all of the WAL; what they print, say on stderr,
save and exit with has to be the same to the byte.
"""

import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.oracle.finding import RESULTS
from tools import regress
from tools.server import Server, Setting
from walcore._native import rmgr_names

SETTINGS: Final[dict[str, Setting]] = {
    "wal_level": "logical",
    "wal_compression": "pglz",
    "track_commit_timestamp": True,
    "wal_keep_size": "100GB",
    "max_wal_size": "1GB",
    "fsync": False,
}
FORKS: Final = ("main", "fsm", "vm", "init")
START: Final = "0/1000000"
SEED: Final = 20_26
_LINE: Final = re.compile(rb"rmgr: .*? tx: +(\d+), lsn: ([0-9A-F/]+),.*?(?: rel (\d+/\d+/\d+) .*?blk (\d+))?")
_PIECE_BYTES: Final = 1 << 20
# What is drawn of the lines of the WAL.
_SAMPLE: Final = 400


@dataclass(frozen=True, slots=True)
class Case:
    """One command line: what pg_waldump printed, and where ours was not the same."""

    options: str
    bytes: int
    files: int = 0
    different: str | None = None


@dataclass(slots=True)
class Comparison:
    """All command lines over one WAL.

    Attributes:
        wal_bytes: of the segments that were read.
        tests_failed: of the suite, against what it expects; what they wrote is WAL all the same.
    """

    major: int
    version: str
    wal_bytes: int
    records: int = 0
    tests_passed: int = 0
    tests_failed: list[str] = field(default_factory=list)
    settings: dict[str, Setting] = field(default_factory=lambda: dict(SETTINGS))
    cases: list[Case] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Compared, over all command lines."""
        return sum(case.bytes for case in self.cases)

    def figures(self) -> str:
        """In one line."""
        wrong = len(list(self.wrong()))
        return (
            f"command lines={len(self.cases)} bytes={self.bytes:,} records={self.records:,} different={wrong}"
        )

    def wrong(self) -> Iterator[str]:
        """What must not be, in words."""
        for case in self.cases:
            if case.different:
                yield f"{case.options}: {case.different}"

    def save(self, folder: Path = RESULTS) -> Path:
        """Write it as ``waldump-regression-MAJOR.json``, a line a command line."""
        path = folder / f"waldump-regression-{self.major}.json"
        facts = {"bytes": self.bytes, "different": len(list(self.wrong()))} | asdict(self)
        cases = ",\n  ".join(
            json.dumps(
                {name: value for name, value in case.items() if value not in (0, None)}
                | {"bytes": case["bytes"]}
            )
            for case in facts.pop("cases")
        )
        text = json.dumps(facts, indent=1).removesuffix("\n}")
        path.write_text(f'{text},\n "cases": [\n  {cases}\n ]\n}}\n')
        return path


def run(folder: Path, major: int) -> Comparison:
    """Run the suite on a server of its own, and compare what both programs make of its WAL."""
    comparison, wal, bindir = record(folder, major)
    return compare(comparison, wal, bindir)


def record(folder: Path, major: int) -> tuple[Comparison, Path, Path]:
    """The WAL of the suite, in the data directory of a server that is stopped; and the server's programs."""
    suite = regress.suite(major)
    server = Server(folder / "primary", suite.bindir).initdb().configure(**SETTINGS).start()
    try:
        outcome = regress.run(suite, server, folder / "output", deadline_s=7200)
        version = str(server.value("show server_version"))
        server.query("select pg_switch_wal()")
    finally:
        server.stop(deadline_s=600)
    wal = server.data_dir / "pg_wal"
    wal_bytes = sum(path.stat().st_size for path in _segments(wal))
    comparison = Comparison(major, version, wal_bytes)
    comparison.tests_passed, comparison.tests_failed = outcome.passed, list(outcome.failed)
    return comparison, wal, suite.bindir


def compare(comparison: Comparison, wal: Path, bindir: Path) -> Comparison:
    """Run every command line with both programs."""
    program = bindir / "pg_waldump"
    sample = _sample(comparison, wal, program)
    for options in command_lines(sample, major=comparison.major):
        comparison.cases.append(_case(program, wal, options))
        print(comparison.cases[-1], flush=True)
    return comparison


@dataclass(slots=True)
class Sample:
    """Positions, transactions and pages that occur in the WAL, drawn from all of it."""

    lsns: list[str] = field(default_factory=list)
    xids: list[str] = field(default_factory=list)
    pages: list[tuple[str, str]] = field(default_factory=list)


def command_lines(sample: Sample, *, major: int) -> Iterator[list[str]]:
    """Options: of the whole WAL, by each filter, and of stretches of it."""
    draw = random.Random(SEED)
    whole = ["-s", START]
    for form in (
        [],
        ["-b"],
        ["--stats"],
        ["--stats=record"],
        ["--fullpage"],
        ["-b", "--fullpage"],
        ["--quiet"],
    ):
        yield [*whole, *form]
    if major > 15:
        yield [*whole, "--quiet", "--save-fullpage=saved"]
        yield [*whole, "--save-fullpage=saved", "-r", "Btree", "-r", "Gin"]
    for name in (*rmgr_names(), "custom128"):
        yield [*whole, "-r", name]
    for fork in FORKS:
        yield [*whole, "-F", fork]
    for relation, block in draw.sample(sample.pages, 4):
        yield [*whole, "-R", relation]
        yield [*whole, "-b", "-R", relation, "-B", block]
        yield [*whole, "--stats=record", "-R", relation, "-F", draw.choice(FORKS)]
    for xid in draw.sample(sample.xids, 4):
        yield [*whole, "-x", xid]
        yield [*whole, "--stats=record", "-x", xid]
    for _ in range(16):
        start, end = sorted(draw.sample(sample.lsns, 2), key=_position)
        form = draw.choice(([], ["-b"], ["--stats=record"], ["--fullpage"], ["-r", "Heap"]))
        # Also from the middle of a record, and to the middle of one.
        yield [
            "-s",
            _moved(start, draw.choice((0, 1, 8, 4096))),
            "-e",
            _moved(end, draw.choice((0, 3, 8))),
            *form,
        ]
        yield ["-s", start, "-n", str(draw.choice((1, 2, 17, 1000, 30_000))), *form]


def _sample(comparison: Comparison, wal: Path, program: Path) -> Sample:
    draw, sample = random.Random(SEED), Sample()
    with subprocess.Popen(
        [program, "-p", wal, "-s", START], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            comparison.records += 1
            if draw.random() > 0.002 and len(sample.lsns) > _SAMPLE:
                continue
            if match := _LINE.match(line):
                xid, lsn, *_ = (part.decode() if part else "" for part in match.groups())
                sample.lsns.append(lsn)
                sample.xids += [xid] if xid != "0" else []
            if page := re.search(rb" rel (\d+/\d+/\d+) (?:fork \w+ )?blk (\d+)", line):
                sample.pages.append((page[1].decode(), page[2].decode()))
    return sample


def _case(program: Path, wal: Path, options: Sequence[str]) -> Case:
    ours = [sys.executable, "-m", "walproxy", "inspect", "--format=pg_waldump"]
    target = ["-p", str(wal), *options]
    with tempfile.TemporaryDirectory(dir=wal.parent.parent) as scratch:
        places = [Path(scratch, name) for name in ("ours", "theirs")]
        for place in places:
            place.mkdir()
        with (
            Path(scratch, "our complaint").open("w+b") as our_complaint,
            Path(scratch, "their complaint").open("w+b") as their_complaint,
            _started([*ours, *target], places[0], our_complaint) as our_process,
            _started([str(program), *target], places[1], their_complaint) as their_process,
        ):
            length, different = _first_difference(our_process.stdout, their_process.stdout)
            codes = our_process.wait(), their_process.wait()
            said = [file.seek(0) or file.read() for file in (our_complaint, their_complaint)]
        if different is None and (codes[0] != codes[1] or said[0] != said[1]):
            different = f"exit codes {codes}, ours said {said[0]!r}, theirs {said[1]!r}"
        files, unlike = _saved(*places)
        return Case(" ".join(options), length, files, different or unlike)


def _started(command: Sequence[str], place: Path, complaint: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=complaint)


def _first_difference(ours: IO[bytes] | None, theirs: IO[bytes] | None) -> tuple[int, str | None]:
    """How many bytes theirs has, and where the first is not the same."""
    assert ours is not None
    assert theirs is not None
    length, different = 0, None
    while True:
        ours_read, theirs_read = ours.read(_PIECE_BYTES), theirs.read(_PIECE_BYTES)
        if different is None and ours_read != theirs_read:
            pairs = zip(ours_read, theirs_read, strict=False)
            at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours_read), len(theirs_read)))
            around = slice(max(at - 200, 0), at + 100)
            different = f"at byte {length + at}: ours {ours_read[around]!r}, theirs {theirs_read[around]!r}"
        length += len(theirs_read)
        if not ours_read and not theirs_read:
            return length, different


def _saved(ours: Path, theirs: Path) -> tuple[int, str | None]:
    """How many images theirs saved, and which of ours is not the same."""
    names = [sorted(path.name for path in (place / "saved").glob("*")) for place in (ours, theirs)]
    if names[0] != names[1]:
        return len(names[1]), f"other images: {sorted(set(names[0]) ^ set(names[1]))[:5]}"
    for name in names[1]:
        if (ours / "saved" / name).read_bytes() != (theirs / "saved" / name).read_bytes():
            return len(names[1]), f"another image: {name}"
    return len(names[1]), None


def _segments(wal: Path) -> list[Path]:
    return sorted(path for path in wal.iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))


def _position(lsn: str) -> int:
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def _moved(lsn: str, by: int) -> str:
    position = _position(lsn) + by
    return f"{position >> 32:X}/{position & 0xFFFF_FFFF:X}"
