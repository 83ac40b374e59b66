"""Layers and readers over files made by hand: what they give, and what they say of what they cannot give."""

import random
from pathlib import Path

import pytest

from walcore import LayerCorrupt, LsnNotCovered, NoSuchBlock, NoSuchRelation, PageUnreadable
from walcore._native import BaseWriter, Ingest, Layer, Reader

SYSTEM_ID = 7_000_000_000_000_000_001
BASE_LSN = 0x1000028
SEGMENT_SIZE = 16 << 20
REL = (1663, 5, 16384, 0)


def some_page(number: int) -> bytes:
    """Bytes with a page's header and a content of its own."""
    noise = random.Random(number).randbytes(2000)
    return bytes(8) + b"\0\0\0\0\x18\0\0\x20\0\x20\x04\x20\0\0\0\0" + noise + bytes(8192 - 24 - 2000)


def base(folder: Path, pages: list[bytes], *, system_id: int = SYSTEM_ID) -> tuple[Layer, bytes]:
    """A base layer with one relation, and the sizes."""
    data = folder / "relation"
    data.write_bytes(b"".join(pages))
    path = folder / f"base-{system_id}"
    writer = BaseWriter(str(path), lsn=BASE_LSN, system_id=system_id)
    assert writer.add_relation(*REL, [str(data)]) == len(pages)
    sizes = writer.finish()
    return Layer.open(str(path)), sizes


def reader(folder: Path, *layers: Layer) -> Reader:
    return Reader(
        list(layers),
        wal_dir=str(folder),
        tli=1,
        segment_size=SEGMENT_SIZE,
        major=15,
        hint_bits_logged=[(0, False)],
    )


def test_pages_of_a_base_come_back(tmp_path: Path) -> None:
    pages = [some_page(1), bytes(8192), some_page(2)]
    layer, _ = base(tmp_path, pages)

    got = reader(tmp_path, layer).pages([(*REL, blkno) for blkno in range(3)], [BASE_LSN])

    assert got == pages
    # The page of zeros needs no image: two pages and a size.
    assert (layer.entries, layer.start_lsn, layer.end_lsn) == (3, BASE_LSN, BASE_LSN)


def test_a_part_of_a_page_at_the_end_of_a_file_is_left_to_the_wal(tmp_path: Path) -> None:
    data = tmp_path / "relation"
    data.write_bytes(some_page(1) + some_page(2)[:4000])
    writer = BaseWriter(str(tmp_path / "base"), lsn=BASE_LSN, system_id=SYSTEM_ID)

    assert writer.add_relation(*REL, [str(data)]) == 1


def test_each_page_has_its_own_error(tmp_path: Path) -> None:
    layer, _ = base(tmp_path, [some_page(1)])
    keys = [(*REL, 0), (*REL, 1), (1663, 5, 1, 0, 0), (1663, 5, 16384, 2, 0), (*REL, 0), (*REL, 0)]
    lsns = [BASE_LSN] * 4 + [BASE_LSN + 8, BASE_LSN - 8]

    got = reader(tmp_path, layer).pages(keys, lsns)

    assert got[0] == some_page(1)
    kinds = [NoSuchBlock, NoSuchRelation, NoSuchRelation, LsnNotCovered, LsnNotCovered]
    assert [type(error) for error in got[1:]] == kinds
    assert str(got[1]) == "block does not exist: page=1663/5/16384 fork=0 blk=1 blocks=1 lsn=0/1000028"


def test_a_page_newer_than_asked_for_is_refused(tmp_path: Path) -> None:
    newer = (0).to_bytes(4, "little") + (BASE_LSN + 8).to_bytes(4, "little") + some_page(1)[8:]
    layer, _ = base(tmp_path, [newer])

    (got,) = reader(tmp_path, layer).pages([(*REL, 0)], [BASE_LSN])

    assert isinstance(got, PageUnreadable)
    assert "page_lsn=0/1000030" in str(got)


def test_sizes_and_relations_are_those_of_the_base(tmp_path: Path) -> None:
    layer, _ = base(tmp_path, [some_page(1), bytes(8192)])
    pages = reader(tmp_path, layer)

    assert pages.size(*REL, BASE_LSN) == 2
    assert pages.size(1663, 5, 1, 0, BASE_LSN) is None
    assert pages.relations(BASE_LSN) == [(*REL, 2)]
    assert pages.relations(BASE_LSN, db=6) == []
    with pytest.raises(LsnNotCovered):
        pages.size(*REL, BASE_LSN + 1)


def test_slru_pages_come_back_and_those_not_followed_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "0001"
    data.write_bytes(some_page(1) * 2)
    writer = BaseWriter(str(tmp_path / "base"), lsn=BASE_LSN, system_id=SYSTEM_ID)
    assert writer.add_slru("pg_xact", [(1, str(data))]) == 2
    assert writer.add_slru("pg_commit_ts", [(0, str(data))]) == 2
    writer.finish()
    pages = reader(tmp_path, Layer.open(str(tmp_path / "base")))

    assert pages.slru_page("pg_xact", 33, BASE_LSN) == some_page(1)
    assert pages.slru_page("pg_xact", 34, BASE_LSN) is None
    with pytest.raises(PageUnreadable, match="not followed"):
        pages.slru_page("pg_commit_ts", 0, BASE_LSN)
    with pytest.raises(ValueError, match="pg_subtrans"):
        pages.slru_page("pg_subtrans", 0, BASE_LSN)


def test_forks_out_of_order_are_refused(tmp_path: Path) -> None:
    data = tmp_path / "relation"
    data.write_bytes(some_page(1))
    writer = BaseWriter(str(tmp_path / "base"), lsn=BASE_LSN, system_id=SYSTEM_ID)
    writer.add_relation(1663, 5, 2, 0, [str(data)])

    with pytest.raises(OSError, match="out of order"):
        writer.add_relation(1663, 5, 1, 0, [str(data)])


def test_a_finished_base_takes_no_more(tmp_path: Path) -> None:
    writer = BaseWriter(str(tmp_path / "base"), lsn=BASE_LSN, system_id=SYSTEM_ID)
    writer.finish()

    with pytest.raises(ValueError, match="finished"):
        writer.finish()


def test_a_layer_is_not_written_over_another_file(tmp_path: Path) -> None:
    _, sizes = base(tmp_path, [])
    ingest = Ingest(BASE_LSN, segment_size=SEGMENT_SIZE, system_id=SYSTEM_ID, major=15, state=sizes)
    (tmp_path / "taken").touch()

    with pytest.raises(FileExistsError):
        ingest.freeze().write(str(tmp_path / "taken"))


def test_a_damaged_layer_is_refused_at_once_or_when_the_damage_is_read(tmp_path: Path) -> None:
    pages = [some_page(number) for number in range(40)]
    base(tmp_path, pages)
    good = (tmp_path / f"base-{SYSTEM_ID}").read_bytes()
    damaged = tmp_path / "damaged"
    for at in range(0, len(good), 997):
        damaged.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        try:
            layer = Layer.open(str(damaged))
        except LayerCorrupt:
            continue
        with pytest.raises(LayerCorrupt):
            layer.check()
        got = reader(tmp_path, layer).pages([(*REL, blkno) for blkno in range(40)], [BASE_LSN])
        assert all(
            ours == theirs or type(ours) is LayerCorrupt for ours, theirs in zip(got, pages, strict=True)
        )
        assert any(type(ours) is LayerCorrupt for ours in got)


def test_sizes_that_are_not_those_given_out_are_refused(tmp_path: Path) -> None:
    _, sizes = base(tmp_path, [some_page(1)])

    for wrong in (b"", sizes[:-1], sizes[:-1] + b"\0", bytes(len(sizes))):
        with pytest.raises(LayerCorrupt):
            Ingest(BASE_LSN, segment_size=SEGMENT_SIZE, system_id=SYSTEM_ID, major=15, state=wrong)


def test_layers_with_a_gap_or_of_two_clusters_make_no_reader(tmp_path: Path) -> None:
    first, sizes = base(tmp_path, [some_page(1)])
    other, _ = base(tmp_path, [some_page(1)], system_id=SYSTEM_ID + 1)
    later = Ingest(BASE_LSN + 800, segment_size=SEGMENT_SIZE, system_id=SYSTEM_ID, major=15, state=sizes)

    with pytest.raises(ValueError, match="gap between layers"):
        reader(tmp_path, first, later.open_layer())
    with pytest.raises(ValueError, match="several clusters"):
        reader(tmp_path, first, other)


def test_a_reader_without_layers_covers_nothing(tmp_path: Path) -> None:
    (got,) = reader(tmp_path).pages([(*REL, 0)], [BASE_LSN])

    assert isinstance(got, LsnNotCovered)
