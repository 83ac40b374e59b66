"""Files that are replaced as a whole."""

from dataclasses import replace
from pathlib import Path

import pytest

from walproxy.errors import DataDamaged, Poisoned
from walproxy.quorum.membership import Membership
from walproxy.quorum.state import Cluster, ControlState
from walproxy.quorum.terms import TermHistory
from walproxy.store.control import ControlFile
from walproxy.wire.lsn import Lsn

STATE = ControlState(
    name="a",
    node_id=bytes(range(16)),
    membership=Membership(1, ("a", "b", "c")),
    term=4,
    voted_for="b",
    term_history=TermHistory.of([(1, 1, 100), (4, 2, 200)]),
    cluster=Cluster(7, 1 << 24, 18),
    commit_lsn=Lsn(300),
    peer_ids=(("b", b"bb"),),
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    file = ControlFile(tmp_path)

    assert file.load() is None
    for term in (4, 5, 6):
        file.save(replace(STATE, term=term))
        assert ControlFile(tmp_path).load() == replace(STATE, term=term)
    assert [p.name for p in tmp_path.iterdir()] == ["control"]


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path: Path) -> None:
    ControlFile(tmp_path).save(STATE)
    path = tmp_path / "control"
    content = path.read_bytes()

    for at in range(0, len(content) * 8, 5):
        damaged = bytearray(content)
        damaged[at // 8] ^= 1 << at % 8
        path.write_bytes(damaged)
        with pytest.raises(DataDamaged, match=r"damaged.*keep its data directory"):
            ControlFile(tmp_path).load()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataDamaged):
            ControlFile(tmp_path).load()


@pytest.mark.parametrize("size", [0, 1 << 19, 3 << 20, 1 << 31])
def test_a_state_with_segments_that_postgres_has_not_is_refused_rule_15(tmp_path: Path, size: int) -> None:
    ControlFile(tmp_path).save(replace(STATE, cluster=Cluster(7, size, 18)))

    with pytest.raises(DataDamaged, match="segment size"):
        ControlFile(tmp_path).load()


def test_wal_without_a_control_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wal").mkdir()
    (tmp_path / "wal" / "000000010000000000000001.partial").touch()

    with pytest.raises(DataDamaged, match="missing"):
        ControlFile(tmp_path).load()


def test_a_file_that_cannot_be_written_poisons(tmp_path: Path) -> None:
    file = ControlFile(tmp_path)
    file.save(STATE)
    (tmp_path / "control.new").mkdir()

    for _ in range(2):
        with pytest.raises(Poisoned):
            file.save(replace(STATE, term=9))

    assert file.load() == STATE
