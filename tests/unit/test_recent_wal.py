"""The newest WAL in memory, read by one thread while another adds to it."""

import sys
import threading
from collections.abc import Iterator

import pytest

from walproxy.recent import RecentWal
from walproxy.wire.lsn import Lsn

CHUNK = 10
CHUNKS = 100_000


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_a_thread_reads_while_another_adds_and_drops() -> None:
    recent = RecentWal(bytes_max=300 * CHUNK)
    start_lsn = 0x100_0000

    def add() -> None:
        for number in range(CHUNKS):
            lsn = Lsn(start_lsn + number * CHUNK)
            recent.add(lsn, number.to_bytes(CHUNK), term=1, stored_lsn=lsn)

    adding = threading.Thread(target=add)
    adding.start()
    found = 0
    while adding.is_alive():
        end_lsn = recent.end_lsn
        wal = recent.get(Lsn(end_lsn - 200 * CHUNK), end_lsn, term=1)
        if wal is not None:
            numbers = [int.from_bytes(wal[at : at + CHUNK]) for at in range(0, len(wal), CHUNK)]
            last = (end_lsn - start_lsn) // CHUNK
            assert numbers == list(range(last - 200, last))
            found += 1
    adding.join()
    assert found > 0


def test_what_was_taken_in_another_term_is_not_given_out() -> None:
    """A proposer that lost its place may have its log cut, and get other bytes from the next one."""
    recent = RecentWal(bytes_max=1000)
    recent.add(Lsn(100), b"mine", term=1, stored_lsn=Lsn(100))

    assert recent.get(Lsn(100), Lsn(104), term=1) == b"mine"
    assert recent.get(Lsn(100), Lsn(104), term=2) is None

    recent.add(Lsn(104), b"more", term=3, stored_lsn=Lsn(104))
    assert recent.get(Lsn(100), Lsn(108), term=3) is None
    assert recent.get(Lsn(104), Lsn(108), term=3) == b"more"
