"""Adding up in parallel comes to what reading record by record comes to, whatever is wrong with the WAL."""

import gzip
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.synthetic_wal import PAGE, WalWriter
from walcore._native import WalInspector
from walproxy.errors import WalproxyError
from walproxy.inspect.reading import read_files
from walproxy.inspect.stretch import stretches_of
from walproxy.inspect.wanted import Wanted
from walproxy.wire.lsn import segment_name

SEGMENT = 1 << 20
START = 5 * SEGMENT
SEGMENTS = 4


@pytest.fixture
def writer() -> WalWriter:
    """Records of all lengths, to within the last segment."""
    made = WalWriter(START)
    length = 1
    while made.end_lsn < START + SEGMENTS * SEGMENT - 100_000:
        length = length * 5 % 2003
        made.record(b"x" * length)
    return made


def folder_of(writer: WalWriter, folder: Path) -> Path:
    wal = bytes(writer.wal).ljust(SEGMENTS * SEGMENT, b"\0")
    for at in range(0, len(wal), SEGMENT):
        (folder / segment_name(1, START + at, SEGMENT)).write_bytes(wal[at : at + SEGMENT])
    return folder


def reading(folder: Path, wanted: Wanted, *, go_on: bool, totals: bool) -> tuple[dict[str, Any], int]:
    """What was read; and how many bytes of WAL did not go the quick way."""
    slow = 0

    def count(inspector: WalInspector, wal: bytes, last: bool) -> None:
        nonlocal slow
        slow += len(wal)
        inspector.count(wal, last=last)

    try:
        found = asdict(read_files(stretches_of(folder, None), wanted, count, go_on=go_on, totals=totals))
    except WalproxyError as error:
        return {"error": str(error)}, slow
    return found | {"damages": [str(damage) for damage in found["damages"]]}, slow


WHOLE = Wanted()


def patched(name: int, at: int, data: bytes) -> Callable[[Path], None]:
    def patch(folder: Path) -> None:
        path = folder / segment_name(1, START + name * SEGMENT, SEGMENT)
        wal = bytearray(path.read_bytes())
        wal[at : at + len(data)] = data
        path.write_bytes(wal)

    return patch


def removed(folder: Path) -> None:
    (folder / segment_name(1, START + SEGMENT, SEGMENT)).unlink()


def cut(folder: Path) -> None:
    path = folder / segment_name(1, START + 2 * SEGMENT, SEGMENT)
    path.write_bytes(path.read_bytes()[:500_003])


def packed(folder: Path) -> None:
    path = folder / segment_name(1, START + SEGMENT, SEGMENT)
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 1))
    path.unlink()


def of_another_cluster(folder: Path) -> None:
    patched(2, 24, b"another1")(folder)


@pytest.mark.parametrize("go_on", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        patched(1, 300_000, b"damaged!"),
        patched(1, 40 * PAGE, bytes(PAGE)),
        patched(1, 40 * PAGE + 8, b"\1"),
        patched(2, 3, b"\xff"),
        patched(3, 8, b"\1"),
        removed,
        cut,
        packed,
        of_another_cluster,
    ],
)
@pytest.mark.parametrize(
    "wanted",
    [
        WHOLE,
        Wanted(start_lsn=START + 700_001, end_lsn=START + 2 * SEGMENT + 77),
        Wanted(limit=1500),
        Wanted(limit=0),
        Wanted(rmgrs=[10]),
        Wanted(start_lsn=START + SEGMENT + 40 * PAGE - 100, limit=3),
        Wanted(end_lsn=START + PAGE),
    ],
)
def test_totals_are_those_of_the_records(
    writer: WalWriter, tmp_path: Path, change: Callable[[Path], None], wanted: Wanted, go_on: bool
) -> None:
    change(folder_of(writer, tmp_path))

    quick, _ = reading(tmp_path, wanted, go_on=go_on, totals=True)
    by_record, _ = reading(tmp_path, wanted, go_on=go_on, totals=False)

    if wanted.limit == 0:
        # An inspector that is asked for nothing reads nothing that would tell it the major.
        quick.pop("major", None)
        by_record.pop("major", None)
    assert quick == by_record


def test_damage_behind_a_record_of_two_pages_is_placed_where_it_is(writer: WalWriter, tmp_path: Path) -> None:
    folder_of(writer, tmp_path)
    pairs = zip(writer.ends, writer.ends[1:], strict=False)
    end_lsn = next(end for before, end in pairs if before // PAGE < end // PAGE and end % PAGE)
    patched(0, end_lsn - START + 20, b"bad!")(tmp_path)

    for go_on in (False, True):
        quick, _ = reading(tmp_path, WHOLE, go_on=go_on, totals=True)
        assert quick == reading(tmp_path, WHOLE, go_on=go_on, totals=False)[0]
        assert str(end_lsn) in str(quick)


def test_sound_wal_goes_the_quick_way(writer: WalWriter, tmp_path: Path) -> None:
    quick, slow = reading(folder_of(writer, tmp_path), WHOLE, go_on=False, totals=True)

    assert quick["shown"] > 3000
    # But for its end, of which an inspector says that it is one.
    assert slow <= 1 << 18
