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
            recent.add(lsn, number.to_bytes(CHUNK), stored_lsn=lsn)

    adding = threading.Thread(target=add)
    adding.start()
    found = 0
    while adding.is_alive():
        end_lsn = recent.end_lsn
        wal = recent.get(Lsn(end_lsn - 200 * CHUNK), end_lsn)
        if wal is not None:
            numbers = [int.from_bytes(wal[at : at + CHUNK]) for at in range(0, len(wal), CHUNK)]
            last = (end_lsn - start_lsn) // CHUNK
            assert numbers == list(range(last - 200, last))
            found += 1
    adding.join()
    assert found > 0
