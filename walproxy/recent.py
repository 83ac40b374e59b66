"""RecentWal: the newest WAL in memory, so that what has just come in need not be read from disk to go out."""

import threading
from collections import deque
from collections.abc import Callable

from walproxy.wire.lsn import INVALID_LSN, Lsn


class RecentWal:
    """Unbroken chunks up to the end of the log, the oldest dropped first. One thread writes, any may read.

    All of one term: in the next one the log may have been cut, and other bytes be in their place.

    Args:
        bytes_max: kept at most, once all of it is on disk.
    """

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._chunks: deque[tuple[Lsn, bytes]] = deque()
        self._size = 0
        self._lock = threading.Lock()
        self._term = 0
        self.end_lsn = INVALID_LSN

    def clear(self) -> None:
        """Forget all: the log was cut, or goes on elsewhere."""
        with self._lock:
            self._clear()

    def add(self, lsn: Lsn, wal: bytes, *, term: int, stored_lsn: Lsn) -> None:
        """Take the next bytes of the log; what is below `stored_lsn` may be dropped."""
        with self._lock:
            if lsn != self.end_lsn or term != self._term:
                self._clear()
                self._term = term
            self._chunks.append((lsn, wal))
            self._size += len(wal)
            self.end_lsn = Lsn(lsn + len(wal))
            while self._size > self._bytes_max:
                first, chunk = self._chunks[0]
                if first + len(chunk) > stored_lsn:
                    break
                self._chunks.popleft()
                self._size -= len(chunk)

    def read(self, start_lsn: Lsn, end_lsn: Lsn, *, term: int, stored: Callable[[Lsn, int], bytes]) -> bytes:
        """That range of the log of `term`, of what lies before our chunks as `stored` reads it off the disk.

        Raises what `stored` does.
        """
        with self._lock:
            begins = self._chunks[0][0] if self._chunks and term == self._term else INVALID_LSN
        if start_lsn < begins < end_lsn:  # The disk may lack what follows.
            rest = self.read(begins, end_lsn, term=term, stored=stored)
            return stored(start_lsn, begins - start_lsn) + rest
        found = self.get(start_lsn, end_lsn, term=term)
        return stored(start_lsn, end_lsn - start_lsn) if found is None else found

    def get(self, start_lsn: Lsn, end_lsn: Lsn, *, term: int) -> bytes | None:
        """The bytes of that range of the log of `term`; None if not all of them are here."""
        parts: list[bytes] = []
        with self._lock:
            if (
                not self._chunks
                or term != self._term
                or start_lsn < self._chunks[0][0]
                or end_lsn > self.end_lsn
            ):
                return None
            for lsn, chunk in reversed(self._chunks):
                if lsn >= end_lsn:
                    continue
                from_at, to_at = max(start_lsn - lsn, 0), end_lsn - lsn
                parts.append(chunk if from_at == 0 and to_at >= len(chunk) else chunk[from_at:to_at])
                if lsn <= start_lsn:
                    break
        return parts[0] if len(parts) == 1 else b"".join(reversed(parts))

    def _clear(self) -> None:
        self._chunks.clear()
        self._size = 0
        self.end_lsn = INVALID_LSN
