"""The data directory."""

from pathlib import Path

import pytest

from pageserver.errors import ConfigInvalid
from pageserver.layout import open_layout


def test_two_pageservers_cannot_share_a_directory(tmp_path: Path) -> None:
    first = open_layout(tmp_path / "data")

    with pytest.raises(ConfigInvalid, match="another pageserver"):
        open_layout(tmp_path / "data")
    first.close()
    open_layout(tmp_path / "data").close()


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("18\n")

    with pytest.raises(ConfigInvalid, match="PG_VERSION"):
        open_layout(tmp_path)


def test_what_an_interrupted_bootstrap_left_is_removed(tmp_path: Path) -> None:
    layout = open_layout(tmp_path)
    layout.clear()
    (layout.layers / "half.base").write_bytes(b"x")
    (layout.staging / "1663").mkdir()

    layout.clear()

    assert not list(layout.layers.iterdir())
    assert not list(layout.staging.iterdir())
    layout.close()


def test_only_what_the_manifest_names_stays(tmp_path: Path) -> None:
    layout = open_layout(tmp_path)
    layout.clear()
    for name in ("kept.base", "kept.sizes", "cut.index.new", "orphan.index"):
        (layout.layers / name).write_bytes(b"x")
    (layout.root / "manifest.new").write_bytes(b"x")

    swept = layout.sweep(frozenset({"kept.base", "kept.sizes"}))

    assert swept == ["cut.index.new", "orphan.index"]
    assert sorted(path.name for path in layout.layers.iterdir()) == ["kept.base", "kept.sizes"]
    assert not (layout.root / "manifest.new").exists()
    layout.close()
