"""Local WAL: plain segment files that stock tools can read."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

from pageserver.errors import DataDamaged, Poisoned
from pageserver.manifest import sync_dir
from walproxy.wire.lsn import Lsn, segment_name, segment_start

_READ_BYTES = 1 << 20


class WalFiles:
    """Writes WAL at its place in full-size segment files.

    Files are allocated whole when they are begun, so that a full disk shows there and a map of a file stays
    valid while it fills. One thread writes; others may sync.
    """

    def __init__(self, directory: Path, *, tli: int, segment_size: int) -> None:
        self.directory = directory
        self._tli = tli
        self._segment_size = segment_size
        self._lock = threading.Lock()
        self._sync_lock = threading.Lock()
        self._open: dict[Lsn, int] = {}
        self._is_name_new = False

    def write(self, start_lsn: int, wal: bytes) -> None:
        """Put bytes where they belong. Readers see them at once; `sync` makes them durable.

        Raises:
            Poisoned: the disk refused.
        """
        view = memoryview(wal)
        try:
            while view:
                segment = segment_start(start_lsn, self._segment_size)
                offset = start_lsn - segment
                written = os.pwrite(self._file(segment), view[: self._segment_size - offset], offset)
                start_lsn += written
                view = view[written:]
        except OSError as error:
            raise Poisoned("cannot write wal", lsn=Lsn(start_lsn), reason=error.strerror) from error

    def sync(self) -> None:
        """Make everything written before the call durable.

        Raises:
            Poisoned: the disk refused; what is on it is unknown.
        """
        with self._sync_lock:
            with self._lock:
                files = sorted(self._open.items())
                is_name_new, self._is_name_new = self._is_name_new, False
            try:
                for _segment, fd in files:
                    os.fdatasync(fd)
                if is_name_new:
                    sync_dir(self.directory)
            except OSError as error:
                raise Poisoned("cannot sync wal", reason=error.strerror) from error
            # The last one still grows; the writer had gone on from the others before we looked.
            with self._lock:
                for segment, fd in files[:-1]:
                    os.close(fd)
                    del self._open[segment]

    def read(self, start_lsn: int) -> Iterator[bytes]:
        """The bytes from there to the end of the last file, in pieces."""
        while True:
            segment = segment_start(start_lsn, self._segment_size)
            try:
                file = self._path(segment).open("rb")
            except FileNotFoundError:
                return
            with file:
                file.seek(start_lsn - segment)
                while piece := file.read(_READ_BYTES):
                    start_lsn += len(piece)
                    yield piece
            if start_lsn != segment + self._segment_size:
                return

    def check_whole(self, start_lsn: int, end_lsn: int) -> None:
        """Every byte of a range has its place in a file.

        Raises:
            DataDamaged: a file is missing or cut short.
        """
        segment = segment_start(start_lsn, self._segment_size)
        while segment < end_lsn:
            path = self._path(segment)
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise DataDamaged("a wal segment that layers point into is missing", path=path) from None
            if size != self._segment_size:
                raise DataDamaged("a wal segment is cut short", path=path, bytes=size)
            segment = Lsn(segment + self._segment_size)

    def adopt(self, start_lsn: int, end_lsn: int) -> None:
        """Have the next `sync` cover a range that an earlier process wrote, and may not have synced.

        It is written again: where writing back has failed once, the page cache shows what the disk never got,
        and no sync writes it any more.

        Raises:
            Poisoned: the disk refused.
        """
        try:
            while start_lsn < end_lsn:
                segment = segment_start(start_lsn, self._segment_size)
                size = min(_READ_BYTES, end_lsn - start_lsn, segment + self._segment_size - start_lsn)
                wal = os.pread(self._file(segment), size, start_lsn - segment)
                self.write(start_lsn, wal)
                start_lsn += len(wal)
        except OSError as error:
            raise Poisoned("cannot read wal", lsn=Lsn(start_lsn), reason=error.strerror) from error
        self._is_name_new = True

    @property
    def open_files(self) -> int:
        """How many files are open: those with bytes that may not be durable yet."""
        with self._lock:
            return len(self._open)

    def close(self) -> None:
        """Close the files without syncing."""
        with self._lock:
            for fd in self._open.values():
                os.close(fd)
            self._open.clear()

    def _path(self, segment: Lsn) -> Path:
        return self.directory / segment_name(self._tli, segment, self._segment_size)

    def _file(self, segment: Lsn) -> int:
        with self._lock:
            fd = self._open.get(segment)
            if fd is None:
                fd = os.open(self._path(segment), os.O_RDWR | os.O_CREAT, 0o600)
                self._open[segment] = fd
                if os.fstat(fd).st_size < self._segment_size:
                    os.posix_fallocate(fd, 0, self._segment_size)
                    self._is_name_new = True
            return fd
