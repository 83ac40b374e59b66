"""Stretches of WAL without a gap, from files; and the folders they are in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from walproxy.inspect import packed
from walproxy.inspect.errors import TargetUnusable, WalDamaged
from walproxy.inspect.segment import PAGE_SIZE, Segment, open_segment, parse_name
from walproxy.wire.lsn import Lsn

PIECE_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class Stretch:
    """Segments that follow each other.

    Args:
        damage: what lies between them and the stretch before.
    """

    segments: Sequence[Segment]
    damage: WalDamaged | None = None

    @property
    def start_lsn(self) -> Lsn:
        return self.segments[0].start_lsn

    @property
    def end_lsn(self) -> Lsn:
        return self.segments[-1].end_lsn

    @property
    def segment_size(self) -> int:
        return self.segments[0].segment_size

    @property
    def system_id(self) -> int:
        return self.segments[0].system_id

    @property
    def is_of_one_cluster(self) -> bool:
        """Whether each segment says so: who reads them in parallel does not ask."""
        return all(segment.system_id == self.system_id for segment in self.segments)

    def batch(self, lsn: int, bytes_max: int) -> tuple[Lsn, list[str | bytes]]:
        """Start of the segment that holds ``lsn``; then it and those behind it, for ``bytes_max`` bytes."""
        chosen = [s for s in self.segments if s.end_lsn > lsn and s.start_lsn < lsn + bytes_max]
        return chosen[0].start_lsn, [packed.unpack(s.path) if s.is_packed else str(s.path) for s in chosen]

    def pieces(self, start_lsn: int) -> Iterator[bytes]:
        """The bytes from ``start_lsn`` on. Ends early where a file is shorter than a segment."""
        for segment in self.segments:
            if segment.end_lsn <= start_lsn:
                continue
            left = segment.segment_size - max(start_lsn - segment.start_lsn, 0)
            with segment.open() as file:
                file.seek(segment.segment_size - left)
                while left and (piece := file.read(min(PIECE_BYTES, left))):
                    left -= len(piece)
                    yield piece
            if left:
                return

    def place(self, lsn: int) -> dict[str, object]:
        """The file that holds the byte at ``lsn``, and where in it."""
        holder = self._holder(lsn)
        return {"file": holder.path, "offset": lsn - holder.start_lsn}

    def page_is_blank(self, lsn: int) -> bool:
        """Whether nothing but zeros follows ``lsn`` on its page: nothing was written there yet."""
        holder = self._holder(lsn)
        with holder.open() as file:
            file.seek(lsn - holder.start_lsn)
            return not any(file.read(PAGE_SIZE - lsn % PAGE_SIZE))

    def next_page(self, lsn: int) -> Lsn | None:
        """The first page at or behind ``lsn`` that was written as part of this WAL."""
        for segment in self.segments:
            if segment.end_lsn <= lsn:
                continue
            first = max(lsn - segment.start_lsn, 0)
            with segment.open() as file:
                for offset in range(first + -first % PAGE_SIZE, segment.size, PAGE_SIZE):
                    file.seek(offset)
                    if segment.page_is_wal(offset, file.read(16)):
                        return Lsn(segment.start_lsn + offset)
        return None

    def _holder(self, lsn: int) -> Segment:
        return next((s for s in self.segments if lsn < s.end_lsn), self.segments[-1])


def stretches_of(target: Path, timeline: int | None) -> list[Stretch]:
    """The WAL of a segment file, a folder of them, or a data directory.

    ``timeline``: the one to follow, through its ancestors; None: the newest in the folder.

    Raises:
        TargetUnusable, WalDamaged: there is no WAL there.
    """
    if target.is_file():
        return [Stretch([open_segment(target)])]
    folder = target / "pg_wal" if (target / "pg_wal").is_dir() else target
    paths = _chosen(folder, timeline)
    if not paths:
        raise TargetUnusable("no wal segments there", folder=folder, timeline=timeline or "any")
    return _joined(paths)


def _chosen(folder: Path, timeline: int | None) -> list[Path]:
    """One file for each position: the newest timeline's, whole before partial; timelines never go back."""
    best: dict[str, tuple[int, bool, Path]] = {}
    for path in folder.iterdir():
        if (named := parse_name(path.name)) is None:
            continue
        tli, digits, partial = named
        if timeline is None or tli <= timeline:
            best[digits] = max(best.get(digits, (0, False, path)), (tli, not partial, path))
    chosen: list[Path] = []
    newest = 0
    for digits in sorted(best):
        tli, _, path = best[digits]
        if tli >= newest:
            chosen.append(path)
            newest = tli
    return chosen


def _joined(paths: Sequence[Path]) -> list[Stretch]:
    """Stretches of the files. What cannot be read behind the last that can is preallocated or recycled."""
    stretches: list[Stretch] = []
    segments: list[Segment] = []
    damage: WalDamaged | None = None
    broken: WalDamaged | None = None
    for path in paths:
        try:
            segment = open_segment(path)
        except WalDamaged as error:
            broken = broken or error
            continue
        before = segments[-1] if segments else None
        if before and not broken and before.end_lsn != segment.start_lsn:
            broken = WalDamaged("wal is missing", from_lsn=before.end_lsn, to_lsn=segment.start_lsn)
        if before and (broken or before.size < before.segment_size):
            stretches.append(Stretch(segments, damage))
            segments = []
        if not segments:
            damage = broken
        segments.append(segment)
        broken = None
    if not segments:
        raise broken or AssertionError("no paths")
    return [*stretches, Stretch(segments, damage)]
