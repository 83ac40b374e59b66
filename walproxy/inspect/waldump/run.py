"""Does what pg_waldump would do with the same command line."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, Final

from walcore._native import WalDump
from walproxy.inspect.waldump import images, totals
from walproxy.inspect.waldump.ended import PROGRAM, Ended, Fatal
from walproxy.inspect.waldump.nextrecord import EndReached, NextRecord, Refused
from walproxy.inspect.waldump.options import Options, parse
from walproxy.inspect.waldump.target import Target, locate
from walproxy.inspect.zone import local_steps
from walproxy.wire.lsn import Lsn, segment_start

# What one call reads: its text is held in memory, about twice as long.
TEXT_BYTES: Final = 32 << 20
TOTALS_BYTES: Final = 512 << 20
# Every change with its page's image, well compressed, grows a hundredfold.
IMAGES_BYTES: Final = 1 << 20
RECORD_BYTES_MAX: Final = 5 << 28
RETRY_S: Final = 0.5
# How often a segment that is not there yet is looked for: pg_waldump waits five seconds for it.
TRIES_MAX: Final = 10


def run(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    out: BinaryIO,
    complain: Callable[[str], object],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run a command line, the program's name left out; gives the exit code."""
    try:
        options = parse(arguments)
        with locate(options, environment) as target:
            Dumping(options, target, out, complain, sleep).run()
    except Ended as ended:
        out.write(ended.output.encode())
        out.flush()
        complain(ended.complaint)
        return ended.code
    out.flush()
    return 0


class Dumping:
    """One run over one target."""

    def __init__(
        self,
        options: Options,
        target: Target,
        out: BinaryIO,
        complain: Callable[[str], object],
        sleep: Callable[[float], None],
    ) -> None:
        self._options = options
        self._target = target
        self._out = out
        self._complain = complain
        self._sleep = sleep
        self._wal = target.wal
        # Text need not pass through Python then.
        self._to_stdout = out is getattr(sys.__stdout__, "buffer", None)
        shows = not options.quiet
        self._dump = WalDump(
            target.start_lsn,
            segment_size=self._wal.segment_size,
            until_lsn=target.end_lsn or None,
            limit=options.limit,
            rmgrs=sorted(options.rmgrs) or None,
            xid=options.xid,
            relation=options.relation,
            fork=options.fork,
            block=options.block,
            full_page=options.full_page,
            text=shows and options.stats is None,
            block_details=options.bkp_details,
            totals=shows and options.stats is not None,
            images=options.save_full_page is not None,
            zone=local_steps(),
        )

    def run(self) -> None:
        """Raises Ended."""
        first = self._first_record()
        start = self._target.start_lsn
        if first != start and start % self._wal.segment_size:
            self._tell_skipping(start, first)
        complaint = self._read_all()
        if self._options.stats is not None and not self._options.quiet:
            self._show_totals(first)
        if complaint is not None:
            last = Lsn(self._dump.last_lsn)
            raise Fatal(f"error in WAL record at {last}: {complaint}")

    def _first_record(self) -> Lsn:
        """Where the first record is that starts at the start or behind it."""
        start, reader = self._target.start_lsn, NextRecord(self._wal, self._target.end_lsn)
        self._wal.batch(start, 1)
        try:
            # Whatever the start, the page that says whose WAL it is comes first.
            reader.valid_page(segment_start(start, self._wal.segment_size))
        except (EndReached, Refused) as error:
            raise Fatal(f"could not find a valid record after {start}") from error
        finder = WalDump(
            start,
            segment_size=self._wal.segment_size,
            until_lsn=self._target.end_lsn or None,
            limit=1,
        )
        self._read_on(finder, IMAGES_BYTES)
        if not finder.shown:
            with suppress(EndReached):
                self._verdict(finder)
            raise Fatal(f"could not find a valid record after {start}")
        return Lsn(finder.first_lsn)

    def _tell_skipping(self, start: Lsn, first: Lsn) -> None:
        count = first - start
        unit = "byte" if count == 1 else "bytes"
        text = f"first record is after {start}, at {first}, skipping over {count} {unit}\n"
        if self._wal.words.tells_skipping_on_stdout:
            self._out.write(text.encode())
        else:
            self._complain(f"{PROGRAM}: {text}")

    def _read_all(self) -> str | None:
        """Read to the end; gives what is wrong there, if anything is."""
        batch_bytes = TEXT_BYTES if self._options.stats is None else TOTALS_BYTES
        if self._options.save_full_page is not None:
            batch_bytes = IMAGES_BYTES
        tries = 0
        with suppress(KeyboardInterrupt, EndReached):
            while True:
                self._read_on(self._dump, batch_bytes)
                if self._dump.done:
                    return None
                try:
                    complaint = self._verdict(self._dump)
                    if not self._options.follow:
                        return complaint
                    tries = 0
                except Fatal:
                    tries += 1
                    if not self._options.follow or tries > TRIES_MAX:
                        raise
                self._out.flush()
                self._sleep(RETRY_S)
                self._wal.refresh()
                self._dump.retry()
        return None

    def _read_on(self, dump: WalDump, length: int) -> None:
        """Read all that can be read now, ``length`` bytes at a time."""
        size, end_lsn = self._wal.segment_size, self._target.end_lsn
        while not dump.done and dump.stopped is None:
            before = dump.next_lsn
            start, segments = self._wal.batch(before, length)
            if not segments:
                return
            if self._to_stdout:
                self._out.flush()
            self._out.write(dump.read(start, segments, length=length, to_stdout=self._to_stdout))
            if self._options.save_full_page is not None:
                images.save(self._options.save_full_page, self._wal.tli, dump.images())
            if dump.next_lsn == before:
                # The record is longer than what was read, or not all there.
                behind = start + len(segments) * size
                if length > RECORD_BYTES_MAX or not self._wal.has(behind) or 0 < end_lsn <= behind:
                    return
                length *= 2

    def _verdict(self, dump: WalDump) -> str | None:
        """What Postgres' reader says of the record that could not be read. Raises EndReached, Fatal."""
        try:
            NextRecord(self._wal, self._target.end_lsn).read(dump.next_lsn, dump.last_lsn)
        except Refused as refused:
            return str(refused)
        return dump.stopped

    def _show_totals(self, first: Lsn) -> None:
        text = totals.text(
            self._dump.totals(),
            by_record=self._options.stats == "record",
            start_lsn=first,
            end_lsn=Lsn(self._dump.shown_end_lsn),
        )
        self._out.write(text.encode())
