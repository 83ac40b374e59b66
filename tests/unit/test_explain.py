"""What `walproxy inspect` makes of WAL: files, queries, totals, on WAL made up on the spot."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from tests.synthetic_wal import WalWriter
from walproxy.cli import app
from walproxy.inspect.columns import BLOCKS, RECORDS, Arrow
from walproxy.inspect.errors import TargetUnusable
from walproxy.inspect.transactions import Around, Asked

COUNT = 500
DOCUMENT = Path(__file__).parents[2] / "docs" / "wal-columns.md"


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    """A partial segment of records that do nothing."""
    wal = WalWriter(0x1000000)
    for _ in range(COUNT):
        wal.record(b"y" * 700)
    path = tmp_path / "000000010000000000000010.partial"
    path.write_bytes(wal.wal)
    return path


def inspect(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


def test_every_column_is_documented_with_its_type() -> None:
    written = re.findall(r"^\| (\w+) \| (\w+\??) \|", DOCUMENT.read_text(), re.MULTILINE)

    assert [row for row in written if row[0] != "column"] == [*RECORDS, *BLOCKS]
    schema = Arrow(None, option="--to").nested_records
    assert schema.names == [*(name for name, _ in RECORDS), "blocks"]
    assert all(schema.field(name).nullable == kind.endswith("?") for name, kind in RECORDS)


def test_records_become_a_file_of_either_kind(segment: Path, tmp_path: Path) -> None:
    for name in ("wal.parquet", "wal.arrow"):
        done = inspect(segment, "--to", tmp_path / name)
        assert (done.exit_code, done.stdout) == (0, ""), done.stderr

    table = pyarrow.parquet.read_table(tmp_path / "wal.parquet")
    with pa.ipc.open_file(tmp_path / "wal.arrow") as file:
        assert file.read_all().to_pylist() == table.to_pylist()
    table.validate(full=True)
    first, *_ = table.to_pylist()
    assert table.num_rows == COUNT
    assert (first["lsn"], first["rmgr"], first["record"], first["xid"]) == (0x1000028, "XLOG", "NOOP", None)
    assert (first["length"], first["total_length"], first["blocks"]) == (729, 729, [])
    assert sorted(path.name for path in tmp_path.iterdir()) == [segment.name, "wal.arrow", "wal.parquet"]


def test_what_came_before_damage_is_in_the_file(segment: Path, tmp_path: Path) -> None:
    wal = bytearray(segment.read_bytes())
    wal[200_000] ^= 1
    segment.write_bytes(wal)

    done = inspect(segment, "--to", tmp_path / "wal.parquet")

    assert done.exit_code == 3
    table = pyarrow.parquet.read_table(tmp_path / "wal.parquet")
    assert 200 < table.num_rows < COUNT
    assert max(table["end_lsn"].to_pylist()) <= 0x1000000 + 200_000


def test_a_folder_that_cannot_be_written_is_named(segment: Path) -> None:
    done = inspect(segment, "--to", "/nowhere/wal.parquet")

    assert done.exit_code == 1
    assert "cannot write the file file=/nowhere/wal.parquet" in done.stderr


def test_a_query_runs_on_records(segment: Path) -> None:
    query = "select record, count(*) as n, pg_lsn(min(lsn)) as first from records group by record"

    done = inspect(segment, "--json", "--sql", query)

    assert json.loads(done.stdout) == {"record": "NOOP", "n": COUNT, "first": "0/1000028"}
    assert inspect(segment, "--sql", "select lsn from blocks").stdout == ""


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("pyarrow", ("--to", "wal.parquet"), "walproxy[arrow]"),
        ("duckdb", ("--sql", "select 1"), "walproxy[sql]"),
        ("pytz", ("--sql", "select 1"), "walproxy[sql]"),
        ("pyarrow", ("--sql", "select 1"), "walproxy["),
    ],
)
def test_a_missing_extra_is_named(
    module: str, arguments: tuple[str, ...], extra: str, segment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    done = inspect(segment, *arguments)

    assert done.exit_code == 1
    assert f"needs {module}: pip install '{extra}" in done.stderr


def test_wal_without_images_promises_no_saving(segment: Path) -> None:
    done = inspect(segment, "--usage", "--json")

    numbers = {"records": COUNT, "record_bytes": 729 * COUNT, "images": 0, "image_bytes": 0}
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"by": "relation", "relation": None} | numbers,
        {"by": "rmgr", "rmgr": "XLOG"} | numbers,
    ]


def test_transactions_are_chosen_by_time_number_and_relation() -> None:
    transaction = {
        "xid": 9,
        "subxids": [10, 11],
        "time_us": 60_000_000,
        "changes": [((1663, 5, 100), 1, 1, 0, 1, 0, 0)],
    }
    minute = datetime(2000, 1, 1, 0, 1, tzinfo=UTC)
    second = timedelta(seconds=1)
    for asked, wants in (
        (Asked(), True),
        (Asked(xid=9), True),
        (Asked(xid=11), True),
        (Asked(xid=12), False),
        (Asked(relation=(1663, 5, 100)), True),
        (Asked(relation=(1663, 5, 101)), False),
        (Asked(Around(minute + second, second)), True),
        (Asked(Around(minute + 2 * second, second)), False),
    ):
        assert asked.wants(transaction) is wants, asked
    assert not Asked(Around(minute, second)).wants(transaction | {"time_us": None})


def test_a_time_without_a_zone_is_the_readers() -> None:
    assert Around.parse("2026-11-22T17:05:00+01:00", 1).time == datetime(2026, 11, 22, 16, 5, tzinfo=UTC)
    assert Around.parse("2026-11-22 17:05", 1).time == datetime(2026, 11, 22, 17, 5).astimezone()
    with pytest.raises(TargetUnusable):
        Around.parse("yesterday", 1)
