"""Reads stretches of WAL to their end, and tells the end of WAL from damage."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from walcore._native import WalDump, WalInspector
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.segment import PAGE_SIZE
from walproxy.inspect.stretch import Stretch
from walproxy.inspect.wanted import Wanted
from walproxy.wire.lsn import INVALID_LSN, Lsn

# What is added up at a time.
TOTALS_BYTES: Final = 256 << 20
# Takes the next bytes of WAL: (inspector, bytes, whether they are the last).
Render = Callable[[WalInspector, bytes, bool], None]
# Reads what is wanted of a target that is settled already, and renders it.
Read = Callable[[Wanted, Render], "Reading"]
StatsRow = tuple[str, str, int, int, int]


@dataclass(slots=True)
class Reading:
    """What was read so far."""

    shown: int = 0
    first_lsn: Lsn = INVALID_LSN
    end_lsn: Lsn = INVALID_LSN
    major: int = 0
    stats: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    damages: list[WalDamaged] = field(default_factory=list)
    end_of_wal: str | None = None

    def add(self, inspector: WalInspector) -> None:
        """Count what one inspector has shown."""
        self.major = inspector.major or self.major
        self._add(inspector.shown, inspector.first_shown_lsn, inspector.last_shown_end_lsn, inspector.stats())

    def add_totals(self, dump: WalDump, major: int) -> None:
        """Count what was added up natively."""
        self.major = major
        self._add(dump.shown, dump.shown_start_lsn, dump.shown_end_lsn, dump.totals())

    def _add(self, shown: int, first_lsn: int, end_lsn: int, stats: Iterable[StatsRow]) -> None:
        if shown:
            self.first_lsn = self.first_lsn or Lsn(first_lsn)
            self.end_lsn = Lsn(end_lsn)
        self.shown += shown
        for rmgr, record, *numbers in stats:
            totals = self.stats.setdefault((rmgr, record), [0, 0, 0])
            self.stats[rmgr, record] = [a + b for a, b in zip(totals, numbers, strict=True)]


def read_files(
    stretches: Sequence[Stretch], wanted: Wanted, render: Render, *, go_on: bool, totals: bool = False
) -> Reading:
    """Read all that is wanted of the stretches; with ``go_on``, what follows damage too.

    ``totals``: records are only added up; ``render`` gets those that could not be added up in parallel.

    Raises:
        TargetUnusable: the start is not in there.
        WalDamaged: unless ``go_on``; everything before was rendered.
    """
    reading = Reading()
    start_lsn = stretches[0].start_lsn if wanted.start_lsn is None else wanted.start_lsn
    if not any(s.start_lsn <= start_lsn < s.end_lsn for s in stretches):
        raise TargetUnusable(
            "the start is not in there",
            start=Lsn(start_lsn),
            first=stretches[0].start_lsn,
            end=stretches[-1].end_lsn,
        )
    for stretch in stretches:
        if stretch.end_lsn <= start_lsn:
            continue
        if stretch.damage and stretch.start_lsn > start_lsn:
            _note(reading, stretch.damage, go_on=go_on)
        first = max(stretch.start_lsn, start_lsn - start_lsn % PAGE_SIZE)
        for damage in _read(stretch, first, wanted, render, reading, totals=totals):
            _note(reading, damage, go_on=go_on)
        if wanted.limit is not None and reading.shown >= wanted.limit:
            break
        if wanted.end_lsn is not None and stretch.end_lsn >= wanted.end_lsn:
            break
    return reading


def _note(reading: Reading, damage: WalDamaged, *, go_on: bool) -> None:
    reading.damages.append(damage)
    if not go_on:
        raise damage


def _read(
    stretch: Stretch, start_lsn: int, wanted: Wanted, render: Render, reading: Reading, *, totals: bool
) -> Iterator[WalDamaged]:
    """Read one stretch; for each damage in it, give it, and go on with the next page that is good."""
    place: int | None = start_lsn
    while place is not None:
        if totals and stretch.is_of_one_cluster:
            place, wanted = _add_up(stretch, place, wanted, reading)
        inspector = wanted.inspector(
            place, segment_size=stretch.segment_size, system_id=stretch.system_id, shown=reading.shown
        )
        for piece in stretch.pieces(place):
            render(inspector, piece, False)
            if inspector.done or inspector.stopped is not None:
                break
        else:
            render(inspector, b"", True)
        reading.add(inspector)
        place = None
        if inspector.stopped is not None:
            place = _behind(stretch, inspector, start_lsn)
            reading.end_of_wal = None if place else inspector.stopped
            if place:
                yield _damage(stretch, inspector)
        elif not inspector.done:
            yield from _cut_short(stretch, inspector)


def _add_up(stretch: Stretch, start_lsn: int, wanted: Wanted, reading: Reading) -> tuple[int, Wanted]:
    """Add up what can be in parallel; gives where an inspector has to begin, and what is left for it.

    It begins with the page of the last record, so that it knows as much as if it had read all of it.
    """
    from_lsn = max(start_lsn, wanted.start_lsn or 0)
    dump = wanted.totals(from_lsn, segment_size=stretch.segment_size, shown=reading.shown)
    before = None
    while dump.stopped is None and not dump.done and dump.next_lsn not in {before, stretch.end_lsn}:
        before = dump.next_lsn
        first_lsn, segments = stretch.batch(before, TOTALS_BYTES)
        dump.read(first_lsn, segments, length=TOTALS_BYTES)
    reading.add_totals(dump, stretch.segments[0].major)
    last_lsn = dump.last_lsn or start_lsn
    return last_lsn - last_lsn % PAGE_SIZE, replace(wanted, start_lsn=max(from_lsn, dump.next_lsn))


def _behind(stretch: Stretch, inspector: WalInspector, start_lsn: int) -> int | None:
    """Where WAL goes on behind the place where reading stopped; None: that is its end."""
    end_lsn = inspector.record_end_lsn
    if end_lsn > start_lsn and end_lsn % PAGE_SIZE and stretch.page_is_blank(end_lsn):
        return None
    return stretch.next_page(inspector.received_lsn + 1)


def _damage(stretch: Stretch, inspector: WalInspector) -> WalDamaged:
    good = Lsn(inspector.record_end_lsn)
    return WalDamaged(f"damaged wal: {inspector.stopped}", good_until=good, **stretch.place(good))


def _cut_short(stretch: Stretch, inspector: WalInspector) -> Iterator[WalDamaged]:
    """A file that ends before its segment does, and is not one that is still growing."""
    last = stretch.segments[-1]
    if inspector.received_lsn < last.end_lsn and not last.is_partial:
        yield WalDamaged(
            "the file is shorter than a segment",
            good_until=Lsn(inspector.record_end_lsn),
            file=last.path,
            size=last.size,
            segment_size=last.segment_size,
        )
