"""`pageserver check-wal`: redo proven by the page images that Postgres itself put into the WAL."""

import asyncio
import json
import re
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final, Self

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pageserver.checklive import LiveCheck
from pageserver.errors import ConfigInvalid, ExitCode
from walcore._native import WalChecker
from walproxy.wire.lsn import Lsn, parse_lsn

_SEGMENT_NAME: Final = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})(\.partial)?")
_LONG_HEADER: Final = struct.Struct("<HHIQI4xQII")  # Ends with: system id, segment size, block size.
_CHUNK_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment file, and where its first byte stands."""

    path: Path
    start_lsn: int


@dataclass(frozen=True, slots=True)
class Count:
    """What was found for one record type. See `WalChecker.counts`."""

    rmgr: str
    record: str
    seen: int
    compared: int
    different: int
    unsupported: int


@dataclass(frozen=True, slots=True)
class Difference:
    """The first page of a record type that redo made otherwise than Postgres."""

    lsn: int
    rmgr: str
    record: str
    page: str | None
    what: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        end_reason: why the check ended where it did; None if every byte was whole records.
    """

    major: int
    start_lsn: int
    end_lsn: int
    end_reason: str | None
    counts: tuple[Count, ...]
    differences: tuple[Difference, ...]

    @classmethod
    def of(cls, checker: WalChecker, start_lsn: int, end_reason: str | None) -> Self:
        return cls(
            major=checker.major,
            start_lsn=start_lsn,
            end_lsn=checker.record_end_lsn,
            end_reason=end_reason,
            counts=tuple(Count(**count) for count in checker.counts()),
            differences=tuple(Difference(**difference) for difference in checker.differences()),
        )

    @property
    def compared(self) -> int:
        """Pages compared with an image."""
        return sum(count.compared for count in self.counts)

    @property
    def different(self) -> int:
        """Pages unlike their image, or that redo failed on."""
        return sum(count.different for count in self.counts)

    @property
    def unsupported(self) -> int:
        """Pages changed by records without redo."""
        return sum(count.unsupported for count in self.counts)


def command(
    target: Annotated[
        str,
        typer.Argument(
            metavar="DIR|CONNINFO",
            help="Directory with plain WAL segment files, pg_wal or an archive; or a libpq connection string.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    start: Annotated[
        str | None,
        typer.Option(help="LSN to begin at, of a live server; default: its current segment."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with a live server until interrupted.")
    ] = False,
) -> None:
    """Redo WAL written with wal_consistency_checking = all, and compare with the images in it.

    Exit codes: 0 no page differs, 3 one does, 2 the WAL has no image to compare with.
    """
    console = Console(stderr=True)
    if "=" in target and not Path(target).exists():
        report = asyncio.run(check_server(target, None if start is None else parse_lsn(start), follow=follow))
    elif start is not None or follow:
        raise ConfigInvalid("--start and --follow are for a live server", target=target)
    else:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            report = check(Path(target), progress)
    if as_json:
        typer.echo(json.dumps(asdict(report)))
    else:
        _print(report)
    if report.different:
        raise typer.Exit(ExitCode.DAMAGED)
    if not report.compared:
        console.print("nothing to compare with: is wal_consistency_checking set to all?", highlight=False)
        raise typer.Exit(ExitCode.RUNTIME)


async def check_server(conninfo: str, start_lsn: Lsn | None = None, *, follow: bool = False) -> Report:
    """Check what a server or a walproxy node has, from ``start_lsn`` or its current segment on.

    Raises:
        StreamBroken, ConfigInvalid: as `LiveCheck`.
    """
    live = await LiveCheck.begin(conninfo, start_lsn)
    await live.run(follow=follow)
    return Report.of(live.checker, live.start_lsn, live.end_reason)


def check(directory: Path, progress: Progress | None = None) -> Report:
    """Check every segment file from the first on, up to the end of WAL or the first gap.

    Raises:
        ConfigInvalid: there is no segment file, or the first is not one.
    """
    segments, segment_size, behind_gap = find_segments(directory)
    checker = WalChecker(segments[0].start_lsn, segment_size=segment_size)
    task = progress.add_task("checking", total=len(segments)) if progress else None
    end_reason: str | None = None
    for segment in segments:
        for chunk in _chunks(segment.path):
            end_reason = checker.feed_to_end(chunk)
            if end_reason is not None:
                break
        if end_reason is not None:
            break
        if progress and task is not None:
            progress.advance(task)
    if end_reason is None and behind_gap:
        end_reason = (
            f"a segment file is missing behind {segments[-1].path.name}: {behind_gap} more were not read"
        )
    return Report.of(checker, segments[0].start_lsn, end_reason)


def find_segments(directory: Path) -> tuple[list[Segment], int, int]:
    """The segment files up to the first gap, each of the highest timeline that has it; their size; how many follow."""
    named: dict[tuple[int, int], tuple[int, Path]] = {}
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if match := _SEGMENT_NAME.fullmatch(path.name):
            tli, log, segno = (int(part, 16) for part in match.groups()[:3])
            named[log, segno] = max(named.get((log, segno), (0, path)), (tli, path))
    if not named:
        raise ConfigInvalid("no WAL segment files", directory=directory)
    numbers = sorted(named)
    first = named[numbers[0]][1]
    with first.open("rb") as file:
        header = file.read(_LONG_HEADER.size)
    if len(header) < _LONG_HEADER.size:
        raise ConfigInvalid("not a WAL segment", file=first)
    segment_size: int = _LONG_HEADER.unpack(header)[-2]
    if segment_size not in {1 << n for n in range(20, 31)}:
        raise ConfigInvalid("not a WAL segment", file=first)
    segments: list[Segment] = []
    for log, segno in numbers:
        start_lsn = (log << 32) + segno * segment_size
        if segments and start_lsn != segments[-1].start_lsn + segment_size:
            break
        segments.append(Segment(named[log, segno][1], start_lsn))
    return segments, segment_size, len(numbers) - len(segments)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _print(report: Report) -> None:
    console = Console()
    table = Table("rmgr", "record", title=f"PostgreSQL {report.major}")
    for column in ("seen", "compared", "different", "no redo"):
        table.add_column(column, justify="right")
    for count in report.counts:
        cells = (count.seen, count.compared, count.different, count.unsupported)
        style = "red" if count.different else "yellow" if count.unsupported else None
        table.add_row(count.rmgr, count.record, *(f"{cell:,}" for cell in cells), style=style)
    console.print(table)
    for found in report.differences:
        where = f"{found.rmgr}/{found.record} lsn={Lsn(found.lsn)} page={found.page}"
        console.print(f"different: {where}: {found.what}", markup=False, highlight=False)
    span = f"start={Lsn(report.start_lsn)} end={Lsn(report.end_lsn)}"
    totals = f"compared={report.compared:,} different={report.different:,} no_redo={report.unsupported:,}"
    console.print(f"checked: {span} {totals}", markup=False, highlight=False)
    if report.end_reason is not None:
        console.print(f"end of WAL: {report.end_reason}", markup=False, highlight=False)
