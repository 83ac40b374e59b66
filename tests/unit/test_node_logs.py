"""The comparison of logs says where they differ, and says nothing only if it has compared all."""

from pathlib import Path

import pytest

from tools.logs import log_differences
from tools.stack import Program
from walproxy.wire.lsn import Lsn, segment_name

SIZE = 1 << 20
END = Lsn(3 * SIZE + 5000)


@pytest.fixture
def nodes(tmp_path: Path) -> list[Program]:
    """Three nodes with the same log: segments 1, 2 and the beginning of 3."""
    made = [Program("walproxy", name, tmp_path / name) for name in "abc"]
    for node in made:
        (node.data_dir / "wal").mkdir(parents=True)
        for number in (1, 2, 3):
            file_of(node, number).write_bytes(bytes([number]) * SIZE)
    return made


def file_of(node: Program, number: int, *, tli: int = 1) -> Path:
    partial = ".partial" if number == 3 else ""
    return node.data_dir / "wal" / (segment_name(tli, Lsn(number * SIZE), SIZE) + partial)


def found(nodes: list[Program]) -> list[str]:
    return list(log_differences(nodes, END, SIZE))


def overwrite(file: Path, at: int) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(b"x")


def test_equal_logs_have_no_differences_whatever_lies_after_the_end(nodes: list[Program]) -> None:
    overwrite(file_of(nodes[1], 3), 5000)

    assert found(nodes) == []


def test_the_last_byte_counts(nodes: list[Program]) -> None:
    overwrite(file_of(nodes[1], 3), 4999)

    (line,) = found(nodes)
    assert "from 0/300000 to 0/301388" in line


def test_old_segments_may_be_gone_but_none_in_between(nodes: list[Program]) -> None:
    file_of(nodes[0], 1).unlink()
    assert found(nodes) == []

    file_of(nodes[1], 2).unlink()
    (line,) = found(nodes)
    assert line.startswith("b: a segment is missing")


def test_a_log_that_ends_early_differs(nodes: list[Program]) -> None:
    file_of(nodes[2], 3).unlink()

    (line,) = found(nodes)
    assert "missing" in line


def test_of_a_segment_that_two_timelines_share_the_later_one_is_compared(nodes: list[Program]) -> None:
    for node in nodes:
        file_of(node, 3, tli=2).write_bytes(b"2" * SIZE)
    overwrite(file_of(nodes[0], 3), 0)
    assert found(nodes) == []

    overwrite(file_of(nodes[0], 3, tli=2), 0)
    assert len(found(nodes)) == 1


def test_nothing_in_common_is_not_taken_for_equal(nodes: list[Program]) -> None:
    assert list(log_differences(nodes, Lsn(SIZE), SIZE)) != []
