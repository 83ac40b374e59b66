"""The WAL store: plain segment files with Postgres' names, one writer, many readers."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from walcore._native import WalScanner
from walproxy.errors import DataDamaged, Poisoned, WalFull, WalRemoved
from walproxy.ports import EndOfWal, LentFile
from walproxy.quorum.state import Cluster
from walproxy.quorum.terms import TermHistory
from walproxy.store.control import ADVICE
from walproxy.store.sealed import replace_file
from walproxy.store.segment import SegmentDirectory, SegmentId, clear, write_all
from walproxy.wire.lsn import INVALID_LSN, Lsn, segment_start

_SCAN_BYTES: Final = 1 << 20
_HISTORY: Final = re.compile(r"([0-9A-F]{8})\.history")


class SegmentStore:
    """``<data_dir>/wal/``. What each method promises stands at ``ports.WalStore``.

    Blocking. One thread writes; any thread reads what was written.
    Invariant: beyond ``write_lsn`` the disk holds zeros, so that no record of another history follows ours.

    Args:
        data_dir: made if missing.
        size_bytes_max: the space that segments may take, the one made ahead included. Of a segment
            that more than one timeline wrote to, one file counts: a turn of the timeline always fits.
    """

    def __init__(self, data_dir: Path, *, size_bytes_max: int) -> None:
        self._path = data_dir / "wal"
        self._size_bytes_max = size_bytes_max
        self._is_poisoned = False
        self._start_lsn = INVALID_LSN
        self._write_lsn = INVALID_LSN
        self._files: SegmentDirectory | None = None
        # Where each timeline of our log begins. Readers look at it: replaced, never changed.
        self._tli_starts: Mapping[int, Lsn] = {}
        self._open: tuple[SegmentId, int] | None = None  # What is written to, and its descriptor.
        self._full: list[tuple[SegmentId, int]] = []  # Written to their ends, not synced yet.
        with self._poisoning():
            self._path.mkdir(parents=True, exist_ok=True)
            self._histories = {
                int(match[1], 16): file.read_bytes()
                for file in self._path.iterdir()
                if (match := _HISTORY.fullmatch(file.name))
            }

    @property
    def start_lsn(self) -> Lsn:
        return self._start_lsn

    @property
    def write_lsn(self) -> Lsn:
        return self._write_lsn

    @property
    def size_bytes(self) -> int:
        return 0 if self._files is None else self._files.size_bytes

    @property
    def room_end_lsn(self) -> Lsn:
        """WAL that ends beyond here does not fit `size_bytes_max`. Moves up when segments are removed."""
        if self._files is None:
            return Lsn(self._size_bytes_max)
        size, held = self._files.segment_size, self._files.ids()
        first_lsn = held[0].start_lsn if held else self._start_lsn
        end_lsn = held[-1].start_lsn + size if held else self._start_lsn
        # The last one that fits is the one made ahead.
        return Lsn(max(end_lsn, first_lsn + (self._size_bytes_max // size - 1) * size))

    # --- the beginning and the end ------------------------------------------------------------------------

    def create(self, start_lsn: Lsn, *, tli: int, cluster: Cluster) -> None:
        """Begin an empty log on the ruins of any other. Raises Poisoned."""
        assert start_lsn == segment_start(start_lsn, cluster.segment_size)
        with self._poisoning():
            files = self._opened(cluster)
            for segment in reversed(files.ids()):
                files.remove(segment)
            self._tli_starts = {tli: start_lsn}
            self._start_lsn = self._write_lsn = start_lsn
            self._turn_to(SegmentId(start_lsn, tli))
            files.sync_names()

    def recover(
        self, from_lsn: Lsn, *, end_lsn_max: Lsn | None, history: TermHistory, cluster: Cluster
    ) -> EndOfWal:
        """Find the end of the log, and clear everything after it. Raises DataDamaged, Poisoned."""
        if end_lsn_max is not None and end_lsn_max < from_lsn:
            raise self._damaged(
                "the log was to be cut below its commit LSN", cut=end_lsn_max, commit=from_lsn
            )
        with self._poisoning():
            files = self._opened(cluster)
            # A timeline begins with the first term that wrote on it.
            self._tli_starts = {entry.tli: entry.start_lsn for entry in reversed(history.entries)}
            scan_lsn = segment_start(from_lsn, cluster.segment_size)
            log = self._log_segments(files, scan_lsn)
            if not log:
                raise self._damaged("WAL is missing", wanted=scan_lsn)
            scanner = WalScanner(scan_lsn, segment_size=cluster.segment_size, system_id=cluster.system_id)
            reason = self._scan(scanner, log, from_lsn)
            # If the segment begins with the rest of an older record, `from_lsn` may be the end of that one.
            is_there = scanner.record_end_lsn == from_lsn or scanner.last_record_lsn == 0
            if reason is not None or scanner.received_lsn < from_lsn or not is_there:
                raise self._damaged(
                    "WAL ends below what this node has promised",
                    promised=from_lsn,
                    end=Lsn(scanner.record_end_lsn),
                    reason=reason or "no more segments",
                )
            limit = end_lsn_max or Lsn(log[-1].start_lsn + files.segment_size)
            reason = self._scan(scanner, log, limit)
            if scanner.major not in {0, cluster.major}:
                raise self._damaged("WAL is of another major", major=scanner.major, wanted=cluster.major)
            end_lsn = Lsn(max(scanner.record_end_lsn, from_lsn))
            self._write_again(log, from_lsn, end_lsn)
            self._settle(log, end_lsn)
        return EndOfWal(end_lsn, Lsn(scanner.last_record_lsn), reason or "no more segments")

    def truncate(self, lsn: Lsn) -> None:
        """Cut the log back. Raises Poisoned."""
        assert self._start_lsn <= lsn <= self._write_lsn
        self.sync()
        with self._poisoning():
            self._cut(lsn)

    def close(self) -> None:
        """Let go of everything, without syncing."""
        self._close_descriptors()
        if self._files is not None:
            self._files.close()

    def _opened(self, cluster: Cluster) -> SegmentDirectory:
        self._check()
        self.close()
        self._files = SegmentDirectory(self._path, segment_size=cluster.segment_size)
        return self._files

    def _log_segments(self, files: SegmentDirectory, wanted_lsn: Lsn) -> list[SegmentId]:
        """Of each segment the file that holds our log: the unbroken run of them around ``wanted_lsn``."""
        runs: list[list[SegmentId]] = []
        for segment in files.ids():  # Of one segment, the higher timeline comes later.
            begins = self._tli_starts.get(segment.tli)
            if begins is None or begins >= segment.start_lsn + files.segment_size:
                continue
            if runs and runs[-1][-1].start_lsn == segment.start_lsn:
                runs[-1][-1] = segment
            elif runs and runs[-1][-1].start_lsn + files.segment_size == segment.start_lsn:
                runs[-1].append(segment)
            else:
                runs.append([segment])
        for run in runs:
            # A log may end with a whole segment, before the next one is begun.
            if run[0].start_lsn <= wanted_lsn <= run[-1].start_lsn + files.segment_size:
                return run
        return []

    def _scan(self, scanner: WalScanner, log: Sequence[SegmentId], end_lsn: Lsn) -> str | None:
        """Feed the scanner up to ``end_lsn``. Says why the WAL ends before that, if it does."""
        assert self._files is not None
        for segment in log:
            segment_end = segment.start_lsn + self._files.segment_size
            if segment_end <= scanner.received_lsn:
                continue
            fd = os.open(self._files.file(segment), os.O_RDWR)
            try:
                os.fdatasync(fd)  # A process that was killed may have left it unsynced.
                while (at := scanner.received_lsn) < min(segment_end, end_lsn):
                    wal = os.pread(
                        fd, min(_SCAN_BYTES, segment_end - at, end_lsn - at), at - segment.start_lsn
                    )
                    if not wal:
                        return "the segment file is too short"
                    if (reason := scanner.feed_to_end(wal)) is not None:
                        return reason
            finally:
                os.close(fd)
            if end_lsn <= segment_end:
                break
        return None

    def _write_again(self, log: Sequence[SegmentId], from_lsn: Lsn, end_lsn: Lsn) -> None:
        """Write what was read above ``from_lsn`` as if it were new.

        Where writing back has failed once, the page cache shows what the disk never got, and counts it as clean:
        no sync writes it any more (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).
        """
        assert self._files is not None
        for segment in log:
            at = max(from_lsn, segment.start_lsn)
            end = min(end_lsn, segment.start_lsn + self._files.segment_size)
            if at >= end:
                continue
            fd = os.open(self._files.file(segment), os.O_RDWR)
            try:
                while at < end:
                    offset = at - segment.start_lsn
                    wal = os.pread(fd, min(_SCAN_BYTES, end - at), offset)
                    write_all(fd, memoryview(wal), offset)
                    at = Lsn(at + len(wal))
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def _settle(self, log: Sequence[SegmentId], end_lsn: Lsn) -> None:
        """Make the files say that the log is ``log`` up to ``end_lsn``, and nothing else."""
        assert self._files is not None
        self._start_lsn = log[0].start_lsn
        self._write_lsn = end_lsn
        for segment in self._files.ids():
            if segment.start_lsn < self._start_lsn:
                self._files.remove(segment)
        for segment in log:
            if segment in self._files.partial and segment.start_lsn + self._files.segment_size <= end_lsn:
                self._files.finish(segment)
        self._cut(end_lsn, anew=True)

    def _cut(self, lsn: Lsn, *, anew: bool = False) -> None:
        """Remove what lies after ``lsn``; may be repeated after a crash at any point of it.

        ``anew`` writes zeros also where they are read: the disk may have others, as at `_write_again`.
        """
        assert self._files is not None
        files = self._files
        self._close_descriptors()
        self._write_lsn = lsn
        first = min(self._tli_starts.values())
        self._tli_starts = {
            tli: start for tli, start in self._tli_starts.items() if start < lsn or start == first
        }
        for segment in reversed(files.ids()):
            is_first = segment.start_lsn == self._start_lsn == lsn
            if segment.tli not in self._tli_starts or (segment.start_lsn >= lsn and not is_first):
                files.remove(segment)
        files.sync_names()
        for segment in files.ids():
            if segment.start_lsn + files.segment_size > lsn:
                fd = files.open_to_write(segment)
                try:
                    clear(fd, max(lsn - segment.start_lsn, 0), files.segment_size, anew=anew)
                    os.fdatasync(fd)
                finally:
                    os.close(fd)

    # --- writing ------------------------------------------------------------------------------------------

    def write(self, lsn: Lsn, wal: bytes, *, tli: int) -> None:
        """Put bytes at the end. Raises Poisoned; WalFull, and then nothing was written that counts."""
        self._check()
        assert lsn == self._write_lsn
        assert self._files is not None
        size = self._files.segment_size
        rest = memoryview(wal)
        try:
            while rest:
                at = self._write_lsn
                segment = SegmentId(segment_start(at, size), tli)
                if self._open is None or self._open[0] != segment:
                    self._turn_to(segment)
                assert self._open is not None
                taken = rest[: segment.start_lsn + size - at]
                write_all(self._open[1], taken, at - segment.start_lsn)
                rest = rest[len(taken) :]
                self._write_lsn = Lsn(at + len(taken))
                if self._write_lsn == segment.start_lsn + size:
                    self._full.append(self._open)
                    self._open = None
        except OSError as error:
            raise self.poisoned(error) from error

    def sync(self) -> None:
        """Make everything written durable. Raises Poisoned."""
        self._check()
        try:
            while self._full:
                segment, fd = self._full[0]
                os.fdatasync(fd)
                self._full.pop(0)
                os.close(fd)
                assert self._files is not None
                self._files.finish(segment)
            if self._open is not None:
                os.fdatasync(self._open[1])
            if self._files is not None:
                self._files.sync_names()
        except OSError as error:
            raise self.poisoned(error) from error

    def lend(self, tli: int) -> LentFile | None:
        """The file that is being written to, for a writer elsewhere; None if anything waits for a sync."""
        if self._is_poisoned or self._open is None or self._full or self._files is None:
            return None
        segment, fd = self._open
        if segment.tli != tli or self._files.has_new_names:
            return None
        return LentFile(fd, segment.start_lsn, Lsn(segment.start_lsn + self._files.segment_size))

    def lend_before(self, tli: int) -> LentFile | None:
        """The segment before that file, to be read, if it is all of that timeline. The descriptor is the caller's."""
        assert self._open is not None
        assert self._files is not None
        end_lsn = self._open[0].start_lsn
        segment = SegmentId(Lsn(end_lsn - self._files.segment_size), tli)
        is_there = self._tli_starts[tli] <= segment.start_lsn >= self._start_lsn
        if not is_there or segment not in self._files.complete:
            return None
        return LentFile(self._files.open_to_read(segment), segment.start_lsn, end_lsn)

    def on_written(self, lsn: Lsn) -> None:
        """The writer elsewhere has written and synced up to there."""
        assert self._open is not None
        assert self._files is not None
        assert self._write_lsn <= lsn < self._open[0].start_lsn + self._files.segment_size
        self._write_lsn = lsn

    def poisoned(self, error: OSError) -> Poisoned:
        """A failed write or sync is never tried again: what the kernel kept of it nobody knows."""
        self._is_poisoned = True
        return Poisoned("a write or sync of WAL failed", directory=self._path, error=error)

    def _turn_to(self, segment: SegmentId) -> None:
        """Go on writing in another file."""
        assert self._files is not None
        files = self._files
        if self._open is not None:  # The timeline ends inside the segment; its file stays partial for ever.
            _, fd = self._open
            self._open = None
            os.fdatasync(fd)
            os.close(fd)
        is_new = segment not in files.partial and segment not in files.complete
        if is_new and segment.start_lsn + files.segment_size > self.room_end_lsn:
            raise WalFull(
                "no room for more WAL: let the consumer that holds it go on, drop its slot, or raise "
                "max_wal_size_bytes",
                max_wal_size_bytes=self._size_bytes_max,
                room_end_lsn=self.room_end_lsn,
                start_lsn=self._start_lsn,
                write_lsn=self._write_lsn,
            )
        before = self.read(segment.start_lsn, self._write_lsn - segment.start_lsn) if is_new else b""
        fd = files.open_to_write(segment)
        try:
            write_all(fd, memoryview(before), 0)
        except OSError:
            os.close(fd)
            raise
        self._open = (segment, fd)
        if segment.tli not in self._tli_starts:
            self._tli_starts = {**self._tli_starts, segment.tli: self._write_lsn}
        files.prepare()

    # --- reading and removing -----------------------------------------------------------------------------

    def read(self, lsn: Lsn, size: int) -> bytes:
        """Bytes [lsn, lsn + size). Raises WalRemoved, ValueError."""
        if lsn + size > self._write_lsn:
            raise ValueError(f"read beyond what was written: {lsn} + {size} > {self._write_lsn}")
        parts = []
        while size > 0:
            if lsn < self._start_lsn:
                raise WalRemoved("WAL is no longer here", lsn=lsn, start_lsn=self._start_lsn)
            part = self._read_part(lsn, size)
            parts.append(part)
            lsn = Lsn(lsn + len(part))
            size -= len(part)
        return b"".join(parts)

    def _read_part(self, lsn: Lsn, size: int) -> bytes:
        """As much of it as stands in one file."""
        assert self._files is not None
        length = self._files.segment_size
        start_lsn = segment_start(lsn, length)
        tlis = sorted(
            (t for t, begins in self._tli_starts.items() if begins < start_lsn + length), reverse=True
        )
        for tli in tlis:
            segment = SegmentId(start_lsn, tli)
            if segment not in self._files.complete and segment not in self._files.partial:
                continue
            try:
                fd = self._files.open_to_read(segment)
            except FileNotFoundError:
                break  # Removed a moment ago.
            try:
                part = os.pread(fd, min(size, start_lsn + length - lsn), lsn - start_lsn)
            finally:
                os.close(fd)
            if not part:
                raise self._damaged("a segment file is too short", segment=self._files.file(segment).name)
            return part
        raise WalRemoved("WAL is no longer here", lsn=lsn, start_lsn=self._start_lsn)

    def remove_before(self, lsn: Lsn) -> int:
        """Remove whole segments below ``lsn``; the newest stays. Gives the bytes freed. Raises Poisoned."""
        self._check()
        if self._files is None:
            return 0
        size = self._files.segment_size
        newest = max((segment.start_lsn for segment in self._files.ids()), default=INVALID_LSN)
        old = [s for s in self._files.ids() if s.start_lsn + size <= lsn and s.start_lsn < newest]
        if not old:
            return 0
        self._start_lsn = Lsn(old[-1].start_lsn + size)
        with self._poisoning():
            for segment in old:
                self._files.remove(segment)
            self._files.sync_names()
        return len(old) * size

    # --- history files ------------------------------------------------------------------------------------

    def save_history(self, tli: int, content: bytes) -> None:
        """Keep ``<tli>.history``. Raises Poisoned."""
        self._check()
        with self._poisoning():
            replace_file(self._path / f"{tli:08X}.history", content)
        self._histories = {**self._histories, tli: content}

    def histories(self) -> Mapping[int, bytes]:
        """All history files kept, by timeline."""
        return self._histories

    # --- failure ------------------------------------------------------------------------------------------

    def _damaged(self, what: str, **facts: object) -> DataDamaged:
        return DataDamaged(f"{what} in {self._path}; {ADVICE}", **facts)

    def _check(self) -> None:
        if self._is_poisoned:
            raise Poisoned("an earlier write or sync of WAL failed", directory=self._path)

    @contextlib.contextmanager
    def _poisoning(self) -> Iterator[None]:
        """As `poisoned`, for what need not be quick."""
        try:
            yield
        except OSError as error:
            raise self.poisoned(error) from error

    def _close_descriptors(self) -> None:
        for _, fd in [*self._full, *([self._open] if self._open else [])]:
            os.close(fd)
        self._full = []
        self._open = None
