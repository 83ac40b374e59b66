"""Segment files: their names, zeros written ahead, and nothing about what stands in them."""

import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walproxy.store.sealed import sync_directory
from walproxy.wire.errors import MalformedInput
from walproxy.wire.lsn import Lsn, parse_segment_name, segment_name

PARTIAL: Final = ".partial"
_SPARE: Final = "spare"
_ZEROS: Final = bytes(1 << 20)


@dataclass(frozen=True, slots=True, order=True)
class SegmentId:
    """One file: the segment that begins at ``start_lsn``, as timeline ``tli`` has it."""

    start_lsn: Lsn
    tli: int


class SegmentDirectory:
    """The files of ``<data_dir>/wal``. Blocking; OSError leaves as it is.

    Segments have full size and zeros where no WAL was written: fdatasync of a block that extends a file costs
    more than one of a block that is there. The next file is made in a thread while this one fills.
    """

    def __init__(self, path: Path, *, segment_size: int) -> None:
        self.path = path
        self.segment_size = segment_size
        self.partial: set[SegmentId] = set()
        self.complete: set[SegmentId] = set()
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="segment-maker")
        self._spare: Future[None] | None = None
        # Whoever gave the files their names may have ended before the names were durable.
        self.has_new_names = True
        for file in sorted(path.iterdir()):
            self._take_in(file)

    def _take_in(self, file: Path) -> None:
        """Sort a file that was here before; rests of what a crash interrupted go."""
        if file.name == _SPARE or file.suffix == ".new":
            file.unlink()
            return
        try:
            tli, start_lsn = parse_segment_name(file.name.removesuffix(PARTIAL), self.segment_size)
        except MalformedInput:
            return
        kept = self.partial if file.name.endswith(PARTIAL) else self.complete
        kept.add(SegmentId(start_lsn, tli))

    def close(self) -> None:
        self._maker.shutdown(wait=True, cancel_futures=True)

    @property
    def size_bytes(self) -> int:
        """Of all segments, each once, and of the file made ahead."""
        count = len({segment.start_lsn for segment in self.ids()}) + (self._spare is not None)
        return count * self.segment_size

    def ids(self) -> list[SegmentId]:
        return sorted(self.partial | self.complete)

    def file(self, segment: SegmentId) -> Path:
        name = segment_name(segment.tli, segment.start_lsn, self.segment_size)
        return self.path / (name + PARTIAL if segment in self.partial else name)

    def open_to_read(self, segment: SegmentId) -> int:
        """A descriptor. It may get its final name at this very moment, in the other thread."""
        try:
            return os.open(self.file(segment), os.O_RDONLY)
        except FileNotFoundError:
            return os.open(self.file(segment), os.O_RDONLY)

    def open_to_write(self, segment: SegmentId) -> int:
        """A descriptor of a partial file, which is made if it is not there."""
        if segment in self.complete:
            self.reopen(segment)
        if segment not in self.partial:
            self._make(segment)
        return os.open(self.file(segment), os.O_RDWR)

    def _make(self, segment: SegmentId) -> None:
        if self._spare is None:
            self._spare = self._maker.submit(self._make_spare)
        self._spare.result()
        self._spare = None
        name = segment_name(segment.tli, segment.start_lsn, self.segment_size) + PARTIAL
        (self.path / _SPARE).rename(self.path / name)
        self.partial.add(segment)
        self.has_new_names = True

    def prepare(self) -> None:
        """Begin to make the file that will be needed next."""
        if self._spare is None:
            self._spare = self._maker.submit(self._make_spare)

    def _make_spare(self) -> None:
        with (self.path / _SPARE).open("wb", buffering=0) as file:
            left = self.segment_size
            while left > 0:
                left -= file.write(_ZEROS[:left])
            os.fsync(file.fileno())

    def finish(self, segment: SegmentId) -> None:
        """Give a full and synced segment its final name."""
        file = self.file(segment)
        file.rename(file.with_name(file.name.removesuffix(PARTIAL)))
        # Both sets name it for a moment, so that a reader finds it under the one name or the other.
        self.complete.add(segment)
        self.partial.discard(segment)
        self.has_new_names = True

    def reopen(self, segment: SegmentId) -> None:
        """Make a complete segment partial again. Durable when it returns, so that its end may be cleared."""
        file = self.file(segment)
        file.rename(file.with_name(file.name + PARTIAL))
        self.partial.add(segment)
        self.complete.discard(segment)
        sync_directory(self.path)

    def remove(self, segment: SegmentId) -> None:
        self.file(segment).unlink(missing_ok=True)
        self.partial.discard(segment)
        self.complete.discard(segment)
        self.has_new_names = True

    def sync_names(self) -> None:
        """Make new and changed names durable."""
        if self.has_new_names:
            # Cleared first: a name that changes while we sync has to wait for the next one.
            self.has_new_names = False
            sync_directory(self.path)


def write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        offset += written
        data = data[written:]


def clear(fd: int, start: int, end: int, *, anew: bool = False) -> None:
    """Put zeros where anything else stands; ``anew``, everywhere."""
    while start < end:
        found = os.pread(fd, min(len(_ZEROS), end - start), start)
        size = len(found) or min(len(_ZEROS), end - start)
        if anew or found != _ZEROS[:size]:
            write_all(fd, memoryview(_ZEROS)[:size], start)
        start += size
