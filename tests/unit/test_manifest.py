"""The manifest file."""

from dataclasses import replace
from pathlib import Path

import pytest

from pageserver.errors import DataDamaged
from pageserver.manifest import (
    FullPageWrites,
    LayerEntry,
    Manifest,
    StateEntry,
    decode_manifest,
    encode_manifest,
    read_manifest,
    replace_manifest,
)

MANIFEST = Manifest(
    generation=1,
    system_id=(1 << 63) + 5,
    major=18,
    catalog_version=202506291,
    tli=1,
    segment_size=16 << 20,
    data_checksums=True,
    start_lsn=0x2000028,
    consistency_lsn=0x2000158,
    end_lsn=0x3000000,
    layers=(LayerEntry("a.base", 1, 2, 3, 0), LayerEntry("b.index", 2, 4, 5, 1)),
    state=StateEntry("c.state", 7, 8),
    hint_steps=((0x2000028, True),),
    full_page_writes=FullPageWrites(is_on=True, lsn=0x2000028),
)


def test_what_is_written_is_read() -> None:
    assert decode_manifest(encode_manifest(MANIFEST)) == MANIFEST


def test_every_flipped_bit_and_every_truncation_is_noticed() -> None:
    data = encode_manifest(MANIFEST)

    for bit in range(len(data) * 8):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DataDamaged):
            decode_manifest(bytes(bad))
    for length in range(len(data)):
        with pytest.raises(DataDamaged):
            decode_manifest(data[:length])


def test_a_replaced_manifest_leaves_no_other_file(tmp_path: Path) -> None:
    replace_manifest(tmp_path, MANIFEST)
    replace_manifest(tmp_path, replace(MANIFEST, end_lsn=0x4000000))

    assert read_manifest(tmp_path) == replace(MANIFEST, end_lsn=0x4000000)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest"]


def test_an_empty_directory_has_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
